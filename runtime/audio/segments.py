"""Segments: where somebody speaks in a sound, with a little sound around it, each short enough for a model.

In: blocks (512,) at 16 kHz, as they come, or a whole sound. Out: what a block decided, and the segment's sound. A
segment ends with a silence. A segment that grows too long is cut where speech is least likely. If that is no silence,
both parts hold the sound around the cut, and words that both of them have must be dropped from the second. One segment
is kept at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import BEFORE, Endpointer, EndpointOptions, blocks, for_recordings
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, RATE, Floats
from voxrill.runtime.audio.voice_activity import VoiceActivity, VoiceDetector

SEGMENT_SECONDS = 15.0
"""Seconds after which a segment is cut: with what is around it, it fits the 16 s of a fixed-shape encoder."""

OVERLAP = 0.5
"""Seconds on both sides of a cut through speech that both parts hear: a spoken word takes about as long."""

AROUND = 2 * OVERLAP
"""Seconds of sound around a segment, at most."""

LEAST = 0.16
"""Seconds that must be voiced of a segment; a shorter one is noise."""


@dataclass(frozen=True)
class Span:
    """A segment's sound.

    samples: (n,) at 16 kHz, from a little before to a little after the voiced part; first, last: its first and last
    voiced block, by number; voiced: how many of the blocks between them are voiced; joined: it hears the end of the
    segment before again.
    """

    samples: Floats
    first: int
    last: int
    voiced: int
    joined: bool

    @property
    def start(self) -> float:
        """Seconds at which the voiced part begins."""
        return self.first * BLOCK_SECONDS

    @property
    def end(self) -> float:
        """Seconds at which the voiced part ends."""
        return (self.last + 1) * BLOCK_SECONDS


@dataclass(frozen=True)
class Change:
    """What became known with a block: a segment paused (it may be over), went on, or is over."""

    what: Literal["paused", "speaking", "over"]
    span: Span


@dataclass(frozen=True)
class _Kept:
    number: int
    samples: Floats
    probability: float


class Segmenter:
    """Finds the segments of one sound.

    Args:
        voice: tells speech from other sound.
        options: when a segment begins and ends.
        judge: says at a pause whether the segment is over; None where silence alone decides.
    """

    def __init__(self, voice: VoiceDetector, options: EndpointOptions, judge: PauseJudge | None = None) -> None:
        self._voice, self._judge = voice, judge
        self._options = options
        self._endpointer = Endpointer(options)
        self._before, self._after, self._overlap = blocks(BEFORE), options.pause_blocks, blocks(OVERLAP)
        self._kept: deque[_Kept] = deque()
        self._cut: int | None = None  # where the open segment was cut off from the one before, if it was

    @property
    def speaking(self) -> bool:
        """Whether a segment is open."""
        return self._endpointer.state != "quiet"

    @property
    def voiced(self) -> bool:
        """Whether a segment is open and its newest block voiced."""
        return self.speaking and self._endpointer.last == self._endpointer.number - 1

    def hear(self, samples: Floats) -> Change | None:
        """Take the next block (512,); None while nothing is said."""
        probability = self._voice(samples)
        self._kept.append(_Kept(self._endpointer.number, samples, probability))
        decision = self._endpointer.hear(probability)
        change: Change | None = None
        if decision == "too long":
            change = self._split()
        elif decision == "ended":
            change, self._cut = Change("over", self._span(self._endpointer.last)), None
        elif self._endpointer.state == "quiet":
            # A turn is known to begin only after `begin` voiced blocks, and its sound begins `before` blocks earlier.
            self._forget(self._endpointer.number - self._before - blocks(self._options.begin))
        elif decision == "paused":
            change = Change("paused", self._span(self._endpointer.last))
            self._judge_pause(change.span)
        return change

    def _judge_pause(self, span: Span) -> None:
        silence = self._judge(span.samples, self._options) if self._judge is not None else None
        if silence is not None:
            self._endpointer.judge(silence)

    def open(self) -> Span | None:
        """The open segment so far."""
        return self._span(self._endpointer.last) if self.speaking else None

    def _split(self) -> Change:
        """Cut the open segment where speech was least likely in its second half."""
        first, last = self._endpointer.first, self._endpointer.last
        # In the first half a cut would leave a short segment; of equally unlikely blocks the latest is taken.
        half = [kept for kept in self._kept if (first + last) // 2 < kept.number <= last]
        least = min(half, key=lambda kept: (kept.probability, -kept.number))
        # Through speech: a word may lie across the cut, so both segments hear OVERLAP seconds around it.
        through = least.probability >= self._options.threshold - self._options.release
        span = self._span(least.number - 1, self._overlap if through else 0)
        self._cut = least.number if through else None
        self._endpointer.split(least.number)
        self._forget(least.number - (self._overlap if through else self._before))
        return Change("over", span)

    def _span(self, last: int, after: int | None = None) -> Span:
        """The open segment until block `last`, with `after` blocks more."""
        first = self._endpointer.first
        begin = first - (self._before if self._cut is None else self._overlap)
        end = last + (self._after if after is None else after)
        voiced = sum(first <= kept.number <= last and self._is_voiced(kept) for kept in self._kept)
        samples = np.concatenate([kept.samples for kept in self._kept if begin <= kept.number <= end])
        return Span(samples, first, last, voiced, self._cut is not None)

    def _is_voiced(self, kept: _Kept) -> bool:
        return kept.probability >= self._options.threshold - self._options.release

    def _forget(self, number: int) -> None:
        """What was heard before block `number` is not needed any more."""
        while self._kept and self._kept[0].number < number:
            self._kept.popleft()


def in_blocks(sound: Iterable[Floats]) -> Iterator[Floats]:
    """Pieces (n,) of any length as blocks (512,), the last one filled up with silence."""
    left = np.zeros(0, np.float32)
    for piece in sound:
        left = np.concatenate([left, piece])
        whole = len(left) // BLOCK * BLOCK
        yield from left[:whole].reshape(-1, BLOCK)
        left = left[whole:]
    if len(left):
        yield np.pad(left, (0, BLOCK - len(left)))


def spans(sound: Floats, longest: float = SEGMENT_SECONDS, voice: VoiceDetector | None = None) -> list[Span]:
    """The stretches of a whole sound (n,) at 16 kHz in which somebody speaks; noise too short for speech is none.

    Args:
        sound: all of it.
        longest: seconds after which a stretch is cut.
        voice: tells speech from other sound; None for silero's network, behind an automatic gain.
    """
    return [span for span in spans_of([sound], longest, voice) if span is not None]


def spans_of(
    pieces: Iterable[Floats], longest: float = SEGMENT_SECONDS, voice: VoiceDetector | None = None
) -> Iterator[Span | None]:
    """The same of a sound that comes in pieces (n,): each stretch once it is over, and None for other blocks.

    So a caller can do something else between two blocks. One stretch is kept at a time.
    """
    segmenter = Segmenter(voice or VoiceActivity(auto_gain=True), for_recordings(longest))
    for block in in_blocks(pieces):
        change = segmenter.hear(block)
        yield change.span if change is not None and change.what == "over" and _is_speech(change.span) else None
    rest = segmenter.open()
    if rest is not None and _is_speech(rest):
        yield rest


def _is_speech(span: Span) -> bool:
    """Whether enough of a stretch is voiced. A shorter one is noise."""
    return span.voiced * BLOCK_SECONDS >= LEAST


def speech_in(sound: Floats, voice: VoiceDetector | None = None) -> Floats:
    """The speech in a whole sound (n,) at 16 kHz, without the silence around it; empty where nobody speaks.

    Of a silence within the speech that is as long as one that ends a turn, less than half a second is left.
    """
    longest = len(sound) / RATE + EndpointOptions.endpoint  # nothing is cut but silence
    found = [span.samples for span in spans(sound, longest, voice)]
    return np.concatenate([np.zeros(0, np.float32), *found])
