"""What a transcription yields: segments, whose text is final; tentative text, which is replaced; and the whole.

Units: seconds since the sound began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from voxrill.runtime.events import Result


@dataclass(frozen=True)
class TentativeEvent:
    """The text of the open segment so far; the next event replaces it."""

    start: float
    end: float
    text: str

    def __post_init__(self) -> None:
        _round_times(self)


@dataclass(frozen=True)
class SegmentEvent:
    """A segment that is over: its text is final.

    number: from 1. start, end: of its voiced part. loop: the model repeated itself without end, and was stopped.
    confidence: see `Result`; 0 for a loop.
    """

    number: int
    start: float
    end: float
    text: str
    loop: bool = False
    confidence: float = 0.0

    def __post_init__(self) -> None:
        _round_times(self)

    def as_json(self) -> dict[str, Any]:
        """The segment as it is written in JSON."""
        return {
            "number": self.number,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "text": self.text,
            "loop": self.loop,
            "confidence": self.confidence,
        }


def _round_times(event: TentativeEvent | SegmentEvent) -> None:
    """Times to 0.1 ms: they are counted in samples, and most of those are no short decimals of a second."""
    object.__setattr__(event, "start", round(event.start, 4))  # the event is frozen from here on
    object.__setattr__(event, "end", round(event.end, 4))


TranscriptEvent = TentativeEvent | SegmentEvent


def joined_text(segments: Iterable[SegmentEvent]) -> str:
    """The text of all segments, in one line."""
    return " ".join(segment.text for segment in segments)


def confidence_of(segments: Iterable[SegmentEvent]) -> float:
    """The confidence of the least certain segment; 0 if there is none."""
    return min((segment.confidence for segment in segments), default=0.0)


@dataclass
class Transcript(Result):
    """The words of a sound, whole.

    duration: seconds of the sound that was heard; segments: its parts with their times. A sound that was heard whole is
    one segment. What a `Result` says of time and tokens is that of all segments together, and the confidence is
    that of the least certain one.

    The confidence tells whether the words were meant for the model, as far as it was taught that: the built-in model
    gives talk outside its world no words, or words with a low confidence.
    """

    duration: float = 0.0
    segments: tuple[SegmentEvent, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.duration = round(self.duration, 4)

    def as_json(self) -> dict[str, Any]:
        """The transcript as JSON: its text, and its segments with their times."""
        segments = [segment.as_json() for segment in self.segments]
        return {**super().as_json(), "duration": self.duration, "segments": segments}
