"""A whole sound to the stretches in which somebody speaks, each short enough for the model to hear at once.

In: a waveform. Out: segments with their times. Silence and music are no segments, so nothing is made up for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.talk.edges import BLOCK, BLOCK_SECONDS, Floats
from voxrill.runtime.talk.endpointing import Endpointer, EndpointOptions, blocks
from voxrill.runtime.talk.listener import BEFORE
from voxrill.runtime.talk.voice_activity import VoiceActivity

SEGMENT_SECONDS = 15.0
"""Seconds after which a segment is cut: with what is around it, it fits the 16 s of a fixed-shape encoder."""


@dataclass(frozen=True)
class Segment:
    """Speech: samples (n,) at 16 kHz with a little around it, and the seconds at which it begins and ends."""

    samples: Floats
    start: float
    end: float


def segments(waveform: Floats) -> Iterator[Segment]:
    """The segments of a sound (n,) at 16 kHz, in order."""
    voice = VoiceActivity()
    endpointer = Endpointer(EndpointOptions(longest=SEGMENT_SECONDS))
    padded = np.pad(waveform, (0, -len(waveform) % BLOCK))
    for block in padded.reshape(-1, BLOCK):
        decision = endpointer.hear(voice(block))
        if decision in ("ended", "too long"):
            yield _cut(waveform, endpointer)
            endpointer.reset()
    if endpointer.state != "quiet":
        yield _cut(waveform, endpointer)


def _cut(waveform: Floats, endpointer: Endpointer) -> Segment:
    first, last = endpointer.first, endpointer.last
    start = max(0, first - blocks(BEFORE)) * BLOCK
    end = (last + 1 + endpointer.options.pause_blocks) * BLOCK
    return Segment(waveform[start:end], first * BLOCK_SECONDS, (last + 1) * BLOCK_SECONDS)
