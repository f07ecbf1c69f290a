"""Token sequences as a tree: which tokens may follow a prefix, exactly.

In: the sequences that may be written. Out: places in the tree, the tokens that are allowed at each, and the sequence
that a place completes. The tree is one sorted array, in which every prefix is a range of rows. It has four bytes for
each token: 100,000 sentences of ten tokens take 4 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PAD = -1


@dataclass(frozen=True)
class Place:
    """A prefix: the rows from `low` to `high` of the tree (without `high`) begin with its `depth` tokens."""

    low: int
    high: int
    depth: int


class TokenTree:
    """Different sequences of tokens; `end` is added to each.

    Args:
        sequences: sequences without their end, each only once.
        end: the token that ends a sequence.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], end: int) -> None:
        if not sequences:
            raise ValueError("a tree of no sequences allows nothing")
        rows = np.full((len(sequences), max(map(len, sequences)) + 1), _PAD, np.int32)
        for row, sequence in zip(rows, sequences, strict=True):
            row[: len(sequence)] = sequence
            row[len(sequence)] = end
        # lexsort takes its last key first, so the columns are given backwards. Afterwards every prefix is one range of
        # rows. Padding stands behind the end of a sequence, so it never decides the order of two.
        self._order = np.lexsort(rows.T[::-1])
        self._rows = rows[self._order]
        if (self._rows[1:] == self._rows[:-1]).all(1).any():
            raise ValueError("a sequence is given twice")
        self.root = Place(0, len(rows), 0)

    def __len__(self) -> int:
        return len(self._rows)

    def prefix(self, place: Place) -> list[int]:
        """The tokens that lead to `place`."""
        tokens: list[int] = self._rows[place.low, : place.depth].tolist()
        return tokens

    def complete(self, place: Place) -> int | None:
        """The number of the sequence that `place` completes; None if more tokens follow."""
        more = place.depth < self._rows.shape[1] and self._rows[place.low, place.depth] != _PAD
        return None if more else int(self._order[place.low])

    def allowed(self, place: Place) -> list[tuple[int, Place]]:
        """Every token that may follow, ascending, with the place it leads to; none after a complete sequence."""
        if self.complete(place) is not None:
            return []
        # The column is sorted within the range, so the first row of each token is the end of the range before it.
        tokens, starts = np.unique(self._rows[place.low : place.high, place.depth], return_index=True)
        bounds = [*(place.low + starts).tolist(), place.high]
        return [
            (token, Place(low, high, place.depth + 1))
            for token, low, high in zip(tokens.tolist(), bounds, bounds[1:], strict=False)
        ]

    def forced(self, place: Place) -> tuple[list[int], Place]:
        """The tokens that must follow, because no others are allowed, and the place after them."""
        after, tokens = place, []
        while len(allowed := self.allowed(after)) == 1:
            (token, after), *_ = allowed
            tokens.append(token)
        return tokens, after
