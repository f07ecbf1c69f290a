"""How fast memory is read: threads that sum an array far larger than the caches.

In: bytes, threads and the kind of pages. Out: a reader that reads everything once in each pass.
"""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray


class MemoryReader:
    """An array of `size` bytes that `threads` threads read.

    Args:
        size: bytes.
        threads: how many read.
        small_pages: whether the array lies on the smallest pages. Otherwise numpy asks the kernel for huge ones.
    """

    def __init__(self, size: int, threads: int, small_pages: bool = False) -> None:
        array = _on_small_pages(size) if small_pages else np.empty(size // 8, np.int64)
        array.fill(1)
        self._parts = np.array_split(array, threads)
        self._pool = ThreadPoolExecutor(threads)
        self.size = sum(part.nbytes for part in self._parts)

    def read(self) -> None:
        """Read everything once."""
        list(self._pool.map(np.sum, self._parts))  # numpy lets other threads run meanwhile

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()


def _on_small_pages(size: int) -> NDArray[np.int64]:
    """An array that the kernel is asked to keep on small pages, where it can be asked."""
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.empty(size // 8, np.int64)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.int64)
