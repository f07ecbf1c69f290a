"""Work in steps: their progress, silent, as a bar or as lines; and the result of steps that nobody watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from voxrill.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

Result = TypeVar("Result")

Progress = Callable[[str, int, int], None]
"""Called with the name of the step that begins, the number of steps done, and the number of all steps."""


def result_of(steps: Generator[Any, None, Result]) -> Result:
    """Take all steps; their result."""
    while True:
        try:
            next(steps)
        except StopIteration as over:
            result: Result = over.value
            return result


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """The `Progress` that shows nothing."""


@contextmanager
def step_progress(console: Console, what: str, lines: bool = False) -> Iterator[Progress]:
    """Yields a `Progress` that shows a bar while the block runs. Without a terminal it shows nothing, or `lines`."""
    from rich import progress as bars  # 25 ms, which `import voxrill` must not take

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),  # it may be a file's name
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        told = Lines(what, lambda line: console.print(line, style="dim", soft_wrap=True))

        def step(stage: str, done: int, total: int) -> None:
            bar.update(task, description=printable(stage), completed=done, total=total)
            if lines and not console.is_terminal:
                told.step(stage, done, total)

        yield step


class Lines:
    """Progress for a log: a line for each stage, and within a long one for each tenth of the work.

    Args:
        what: the work.
        tell: takes the lines.
        clock: seconds that pass.
    """

    def __init__(self, what: str, tell: Callable[[str], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self._what, self._tell, self._clock = what, tell, clock
        self._started = clock()
        self._last: tuple[str, int] | None = None

    def step(self, stage: str, done: float, total: float, progress: str = "") -> None:
        """As of `Progress`. progress: says how far the work is; without it, done and total do."""
        place = (stage, int(10 * done / total) if total else 0)
        if place == self._last:
            return
        self._last = place
        name = self._what if stage in ("", self._what) else f"{self._what}: {stage}"
        left = remaining(self._clock() - self._started, done, total)
        self._tell(f"{printable(name)}, {progress or f'{done:g} of {total:g}'}{f', {left}' if left else ''}")


def remaining(elapsed: float, done: float, total: float) -> str:
    """How long the rest will take at the pace so far, in words; empty while nothing can be said."""
    if not 0 < done < total:
        return ""
    minutes, seconds = divmod(round(elapsed * (total - done) / done), 60)
    return f"about {minutes} min left" if minutes else f"about {seconds} s left"
