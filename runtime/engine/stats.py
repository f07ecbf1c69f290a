"""Where the time of a model goes: the wall time of each stage, over all calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stage:
    """Calls of one stage and the wall time, in seconds, of all of them."""

    calls: int = 0
    seconds: float = 0.0


@dataclass
class StageTimes:
    """Times by the name of a stage: a graph, or work on the host such as the log-mel."""

    stages: dict[str, Stage] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            stage = self.stages.setdefault(name, Stage())
            stage.calls += 1
            stage.seconds += time.perf_counter() - start

    def milliseconds(self) -> dict[str, float]:
        """The milliseconds of each stage."""
        # A copy is taken first: another thread may add a stage meanwhile.
        return {name: 1000 * stage.seconds for name, stage in dict(self.stages).items()}

    def reset(self) -> None:
        """Forget everything measured."""
        self.stages.clear()
