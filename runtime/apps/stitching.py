"""Segments' words to one text: numbered, and without the words that two neighbouring segments both heard. Pure."""

from __future__ import annotations

from voxrill.runtime.apps.transcript import SegmentEvent
from voxrill.runtime.audio.segments import Span


class Stitcher:
    """Puts one sound's segments together, in their order.

    Args:
        since: seconds that were before this sound.
        count: segments that were before this sound.
    """

    def __init__(self, since: float = 0.0, count: int = 0) -> None:
        self._since, self._count = since, count
        self._before = ""  # the text of the segment before

    def times(self, span: Span) -> tuple[float, float]:
        """Seconds at which a segment's voiced part begins and ends, those before this sound counted in."""
        return self._since + span.start, self._since + span.end

    def new(self, span: Span, text: str) -> str:
        """Of a segment's text what the segment before has not."""
        return without_overlap(self._before, text) if span.joined else text

    def add(self, span: Span, text: str, loop: bool = False, confidence: float = 0.0) -> SegmentEvent | None:
        """The next segment, which says `text`; None if nothing in it is new."""
        text = self.new(span, text)
        times = self.times(span)
        return self.take(SegmentEvent(self._count + 1, *times, text, loop, confidence) if text else None)

    def take(self, segment: SegmentEvent | None) -> SegmentEvent | None:
        """The next segment as it was made in an earlier run; None for one without words."""
        self._before = segment.text if segment is not None else ""
        self._count = segment.number if segment is not None else self._count
        return segment


def without_overlap(before: str, text: str) -> str:
    """What is new in `text`, whose first words may be the last of `before`.

    The first word of `text` may be the second half of one, so it may be left out to find the others again.
    """
    old, new = before.split(), text.split()
    for skipped in (0, 1):
        for count in range(min(len(old), len(new) - skipped), 0, -1):
            if _alike(old[-count:]) == _alike(new[skipped : skipped + count]):
                return " ".join(new[skipped + count :])
    return text


def _alike(words: list[str]) -> list[str]:
    """Words as they are compared: whatever their case, and without the punctuation around them."""
    return [word.strip(".,;:!?\"'").casefold() for word in words]
