"""How fast memory is read: threads that sum an array far larger than the caches.

In: bytes and threads. Out: a reader that reads everything once in each pass.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np


class MemoryReader:
    """An array of `size` bytes that `threads` threads read."""

    def __init__(self, size: int, threads: int) -> None:
        self._parts = np.array_split(np.ones(size // 8, np.int64), threads)
        self._pool = ThreadPoolExecutor(threads)
        self.size = sum(part.nbytes for part in self._parts)

    def read(self) -> None:
        """Read everything once."""
        list(self._pool.map(np.sum, self._parts))  # numpy lets other threads run meanwhile

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()
