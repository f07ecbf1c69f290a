"""What a transcription hands out: segments, which stay as they are, and tentative text, which does not.

Units: seconds since the sound began.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TentativeEvent:
    """What the open segment seems to say so far: the next event takes its place."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class SegmentEvent:
    """A segment that is over: its text is stable.

    number: from 1; start, end: of its voiced part; loop: the model repeated itself without end, and was cut short.
    """

    number: int
    start: float
    end: float
    text: str
    loop: bool = False


TranscriptEvent = TentativeEvent | SegmentEvent
