"""The machine's read bandwidth as a contender: threads that sum an array far larger than the caches.

In: a number of threads, and the kind of pages. Out: the time of one pass; its amount is the bytes that it read. It is
measured beside every decode step: a step reads every weight once, so it cannot be faster than this rate allows.
"""

from __future__ import annotations

import argparse

from benchmarks.protocol import Call, Contender, serve
from voxrill.devices.bandwidth import MemoryReader

BYTES = 400_000_000


class Bandwidth(Contender):
    """An array in memory."""

    def __init__(self, threads: int, small_pages: bool) -> None:
        self._reader = MemoryReader(BYTES, threads, small_pages)

    def decode(self, context: int, head: bool) -> Call:
        """Read everything once; the context does not matter. The amount is bytes."""
        return self._read

    def product(self, bits: int, block: int) -> Call:
        """Read everything once; the product does not matter."""
        return self._read

    def _read(self) -> float:
        self._reader.read()
        return float(self._reader.size)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--small-pages", action="store_true")
    args = parser.parse_args()
    serve(lambda: Bandwidth(args.threads, args.small_pages))


if __name__ == "__main__":
    main()
