"""The machine's read bandwidth as a contender: threads that sum an array far larger than the caches.

In: a number of threads. Out: the time of one pass, with the bytes it read as the amount. It stands beside every decode
step: a step reads every weight once, so none can be faster than its bytes at this rate.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.protocol import Call, Contender, serve

MEGABYTES = 400


class Bandwidth(Contender):
    """An array in memory."""

    def __init__(self, threads: int) -> None:
        self._parts = np.array_split(np.ones(MEGABYTES * 125_000, np.int64), threads)
        self._pool = ThreadPoolExecutor(threads)

    def decode(self, context: int, head: bool) -> Call:
        """Read everything once, whatever the context; the amount is bytes."""
        return self._read

    def product(self, bits: int, block: int) -> Call:
        """Read everything once, whatever the product."""
        return self._read

    def _read(self) -> float:
        list(self._pool.map(np.sum, self._parts))  # numpy lets other threads run meanwhile
        return float(sum(part.nbytes for part in self._parts))


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    serve(lambda: Bandwidth(args.threads))


if __name__ == "__main__":
    main()
