"""A ring buffer from a PortAudio callback to a thread of ours: chunks of sound are handed over without waiting.

The callback copies samples into memory that was allocated before, and wakes the thread once there are as many as it
waits for. Nothing that it does blocks: appending to a deque is atomic, and `put` of a `queue.SimpleQueue` never waits.
When nobody takes chunks, the newest ones are dropped. The next chunk that arrives shows by its position how many
samples are missing.
"""

from __future__ import annotations

import queue
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.protocols import Floats

_NOBODY_WAITS = sys.maxsize


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
        self._waiting: deque[tuple[int, int, int, float]] = deque()
        self._enough: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._clock = clock
        self._put = 0
        self._end = 0
        self._taken = 0  # index after the last sample that was taken
        self._awaited = _NOBODY_WAITS  # index at whose arrival the other thread is woken

    def put(self, samples: Floats) -> None:
        """From the callback: hand over (n,) samples, or drop them if too many chunks wait. It never waits."""
        count = len(samples)
        self._end += count  # also when they are dropped: the position of the next chunk shows the gap
        # A chunk leaves the queue before `take` has copied it. So one slot fewer may wait than there are: the slot that
        # is being copied is the one before the oldest that waits, and is never written meanwhile.
        if len(self._waiting) < len(self._slots) - 1:
            slot = self._put % len(self._slots)
            self._slots[slot, :count] = samples
            self._put += 1
            self._waiting.append((slot, count, self._end, self._clock()))
        if self._end >= self._awaited:
            self._enough.put(None)

    def take(self, timeout: float, least: int = 1) -> Chunk | None:
        """From the other thread: all that waits up to the next gap, once it is `least` samples or `timeout` s passed.

        None if there is nothing then.
        """
        self._wait(timeout, self._taken + least)
        parts: list[Floats] = []
        at = 0.0
        while self._waiting and (not parts or self._follows()):
            slot, count, self._taken, at = self._waiting.popleft()
            parts.append(self._slots[slot, :count].copy())
        return Chunk(np.concatenate(parts), self._taken, at) if parts else None

    def _wait(self, timeout: float, end: int) -> None:
        # The callback appends and then looks at `_awaited`; this thread writes it and then looks at what was appended.
        # So one of the two sees the other, whichever is first. A signal that comes late only ends the next wait early.
        self._awaited = end
        until = self._clock() + timeout
        while self._end < end and (left := until - self._clock()) > 0:
            try:
                self._enough.get(timeout=left)
            except queue.Empty:
                break
        self._awaited = _NOBODY_WAITS

    def _follows(self) -> bool:
        _, count, end, _ = self._waiting[0]
        return end - count == self._taken
