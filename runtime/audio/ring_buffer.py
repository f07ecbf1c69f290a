"""A ring buffer from a PortAudio callback to a thread of ours: chunks of sound are handed over without waiting.

The callback copies samples into memory that was allocated before, and puts a small tuple into a `queue.SimpleQueue`,
whose `put` never blocks. When nobody takes chunks, the newest ones are dropped. The next chunk that arrives shows by
its position how many samples are missing.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.protocols import Floats


@dataclass(frozen=True)
class Chunk:
    """samples: (n,). end: index after the last of them; lost samples are counted. at: seconds when the chunk came."""

    samples: Floats
    end: int
    at: float


class RingBuffer:
    """Holds up to `slots` chunks of up to `size` samples each. One thread puts, another one takes."""

    def __init__(self, size: int, slots: int, clock: Callable[[], float]) -> None:
        self._slots = np.zeros((slots, size), np.float32)
        self._waiting: queue.SimpleQueue[tuple[int, int, int, float]] = queue.SimpleQueue()
        self._clock = clock
        self._put = 0
        self._end = 0

    def put(self, samples: Floats) -> None:
        """From the callback: hand over (n,) samples, or drop them if too many chunks wait. It never waits."""
        count = len(samples)
        self._end += count  # also when they are dropped: the position of the next chunk shows the gap
        # A chunk leaves the queue before `take` has copied it. So one slot fewer may wait than there are: the slot that
        # is being copied is the one before the oldest that waits, and is never written meanwhile.
        if self._waiting.qsize() >= len(self._slots) - 1:
            return
        slot = self._put % len(self._slots)
        self._slots[slot, :count] = samples
        self._put += 1
        self._waiting.put((slot, count, self._end, self._clock()))

    def take(self, timeout: float) -> Chunk | None:
        """From the other thread: the next chunk, None if none comes within `timeout` seconds."""
        try:
            slot, count, end, at = self._waiting.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        return Chunk(self._slots[slot, :count].copy(), end, at)
