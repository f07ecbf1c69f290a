"""Where the time of a turn goes: from the user's last sound to the first sound of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Speculation = Literal["served", "false start", "none"]


@dataclass(frozen=True)
class TurnTrace:
    """One turn. Times are `time.perf_counter()` seconds, None for what did not happen.

    voice_end: the user's last voiced sample was captured; paused: the short silence was noticed; endpoint: the turn
    was decided to be over; encoded, prefilled, first_token, first_frame: each was done; queued: the first sample went
    to the player; played: it left for the device; underruns: times the player ran dry; speculation: whether the answer
    had been begun before the endpoint; false_starts: answers begun and thrown away in this turn, and
    false_start_cpu: the processor seconds they cost; barge_in: seconds of the answer that were played before
    the user interrupted it, None if nobody did.
    """

    number: int
    voice_end: float | None = None
    paused: float | None = None
    endpoint: float | None = None
    encoded: float | None = None
    prefilled: float | None = None
    first_token: float | None = None
    first_frame: float | None = None
    queued: float | None = None
    played: float | None = None
    ended: float | None = None
    underruns: int = 0
    speculation: Speculation = "none"
    false_starts: int = 0
    false_start_cpu: float = 0.0
    cpu: float = 0.0
    question_seconds: float = 0.0
    answer_seconds: float = 0.0
    barge_in: float | None = None

    @property
    def waited(self) -> float | None:
        """Seconds from the user's last voiced sample to the first sample of the answer that was played."""
        return None if self.played is None or self.voice_end is None else self.played - self.voice_end
