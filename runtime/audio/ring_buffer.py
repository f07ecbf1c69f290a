"""From a PortAudio callback to a thread of ours: chunks of sound are handed over without waiting.

The callback's side copies into memory that was set aside and puts a small tuple into a `queue.SimpleQueue`, whose `put`
never blocks. When nobody takes the chunks, the newest are dropped, and the next that arrives shows by its position how
many samples are missing.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.protocols import Floats


@dataclass(frozen=True)
class Chunk:
    """samples (n,); end: index after the last, lost ones counted; at: clock's seconds when it came."""

    samples: Floats
    end: int
    at: float


class RingBuffer:
    """A way for chunks of up to `size` samples, of which `places` may wait."""

    def __init__(self, size: int, places: int, clock: Callable[[], float]) -> None:
        self._places = np.zeros((places, size), np.float32)
        self._waiting: queue.SimpleQueue[tuple[int, int, int, float]] = queue.SimpleQueue()
        self._clock = clock
        self._put = 0
        self._end = 0

    def put(self, samples: Floats) -> None:
        """The callback's side: hand over (n,) samples, or drop them if too many wait. Never waits."""
        count = len(samples)
        self._end += count
        if self._waiting.qsize() >= len(self._places) - 1:  # one place may be in the taker's hands
            return
        place = self._put % len(self._places)
        self._places[place, :count] = samples
        self._put += 1
        self._waiting.put((place, count, self._end, self._clock()))

    def take(self, timeout: float) -> Chunk | None:
        """The taker's side: the next chunk, None if none comes within `timeout` seconds."""
        try:
            place, count, end, at = self._waiting.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        return Chunk(self._places[place, :count].copy(), end, at)
