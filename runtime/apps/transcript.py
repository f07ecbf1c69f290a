"""What a transcription hands out: segments, which stay as they are, tentative text, which does not, and the whole.

Units: seconds since the sound began.
"""

from __future__ import annotations

from dataclasses import dataclass

from voxrill.runtime.events import Result


@dataclass(frozen=True)
class TentativeEvent:
    """What the open segment seems to say so far; the next event replaces it."""

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


@dataclass
class Transcript(Result):
    """The words of a sound, whole.

    duration: seconds of the sound that was heard; segments: its parts with their times. A sound that was heard whole is
    one segment. What a `Result` says of time and tokens is that of all segments together.
    """

    duration: float = 0.0
    segments: tuple[SegmentEvent, ...] = ()
