"""No loudspeaker: answers are only read."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from voxrill.runtime.audio.protocols import Floats


class MutePlayer:
    """A `Player` without a loudspeaker: an answer is over as soon as it is made."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, rate: float | None, expected_seconds: float) -> None:
        """Nothing is played."""

    def push(self, samples: Floats) -> None:
        """Nothing is played."""

    def finish(self) -> None:
        """The answer is whole."""

    def hold(self, held: bool) -> None:
        """Nothing is played."""

    def ensure(self) -> None:
        """There is no device to lose."""

    def stop(self) -> int:
        """No samples were played."""
        return 0

    def played(self) -> int:
        """No samples were played."""
        return 0

    def underruns(self) -> int:
        """None."""
        return 0

    def busy(self) -> bool:
        """Never."""
        return False

    def first_queued(self) -> float | None:
        """Never."""
        return None

    def first_played(self) -> float | None:
        """Never."""
        return None
