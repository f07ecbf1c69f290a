"""What a transcription yields: segments, whose text is final; tentative text, which is replaced; and the whole.

Units: seconds since the sound began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voxrill.runtime.events import Result


@dataclass(frozen=True)
class TentativeEvent:
    """The text of the open segment so far; the next event replaces it."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class SegmentEvent:
    """A segment that is over: its text is final.

    number: from 1. start, end: of its voiced part. loop: the model repeated itself without end, and was stopped.
    """

    number: int
    start: float
    end: float
    text: str
    loop: bool = False


TranscriptEvent = TentativeEvent | SegmentEvent


def joined_text(segments: Iterable[SegmentEvent]) -> str:
    """The text of all segments, in one line."""
    return " ".join(segment.text for segment in segments)


@dataclass
class Transcript(Result):
    """The words of a sound, whole.

    duration: seconds of the sound that was heard; segments: its parts with their times. A sound that was heard whole is
    one segment. What a `Result` says of time and tokens is that of all segments together.
    """

    duration: float = 0.0
    segments: tuple[SegmentEvent, ...] = ()
