"""Blocks to passages: the pieces of a document that a search finds, the model gets, and an answer cites.

In: a document's blocks, and a function that counts a text's tokens. Out: `Passage`s of at most `size` tokens. They
begin at headings and paragraphs if they can. They overlap by whole paragraphs: an answer at the border of two passages
is then whole in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from voxrill.runtime.apps.documents.reader import TextBlock

Count = Callable[[str], int]
"""Counts the tokens of a text."""

SIZE = 200
"""Tokens of a passage at most: five of them are 1,000 positions."""
OVERLAP = 40
"""Tokens of a passage's end that the next one may begin with."""

LONGEST_HEADING = 200
"""Characters of a heading at most, as each passage under it repeats it."""

_LONGEST_TOKEN = 64
"""Characters that one token stands for at most. A text that is too long by this measure is cut without counting its
tokens: for one word of 30 MB, a tokenizer takes gigabytes."""


@dataclass(frozen=True)
class Passage:
    """Lines `first` to `last` of a document, from 1, and the heading above them ("" if there is none)."""

    first: int
    last: int
    heading: str
    text: str


@dataclass(frozen=True)
class _Sized:
    block: TextBlock
    tokens: int


def split(blocks: Iterable[TextBlock], count: Count, size: int = SIZE, overlap: int = OVERLAP) -> Iterator[Passage]:
    """The passages of a document, in order."""
    packing = _Packing(size, overlap)
    for block in blocks:
        if block.heading:
            yield from packing.ended()
            packing.heading = block.text[:LONGEST_HEADING].rstrip()
        for part in _fitting(block, count, size):
            yield from packing.add(_Sized(part, count(part.text)))
    yield from packing.ended()


class _Packing:
    """The blocks of a section that are not yet in a passage of at most `size` tokens."""

    def __init__(self, size: int, overlap: int) -> None:
        self.heading = ""
        self._size, self._overlap = size, overlap
        self._taken: list[_Sized] = []
        self._tokens = 0

    def add(self, sized: _Sized) -> Iterator[Passage]:
        """Take one more block, after the passage that it has no room in."""
        if self._taken and self._tokens + sized.tokens > self._size:
            yield _passage(self._taken, self.heading)
            # The overlap must leave room for the new block, or the passage would be too long.
            self._taken = _tail(self._taken, min(self._overlap, self._size - sized.tokens))
            self._tokens = sum(kept.tokens for kept in self._taken)
        self._taken.append(sized)
        self._tokens += sized.tokens

    def ended(self) -> Iterator[Passage]:
        """The rest of the section, unless it is a heading with nothing under it, which answers no question."""
        if any(not sized.block.heading for sized in self._taken):
            yield _passage(self._taken, self.heading)
        self._taken, self._tokens = [], 0


def _tail(taken: list[_Sized], most: int) -> list[_Sized]:
    """The last blocks that are at most `most` tokens together."""
    start, tokens = len(taken), 0
    while start and tokens + taken[start - 1].tokens <= most:
        start -= 1
        tokens += taken[start].tokens
    return taken[start:]


def _passage(taken: list[_Sized], heading: str) -> Passage:
    blocks = [sized.block for sized in taken]
    return Passage(blocks[0].first, blocks[-1].last, heading, "\n".join(block.text for block in blocks))


def _fitting(block: TextBlock, count: Count, size: int) -> Iterator[TextBlock]:
    """A block in parts that each fit: its lines, or the words of a long line.

    Each piece is counted by itself, once: together they have at most the sum of their tokens.
    """
    if _fits(block.text, count, size):
        yield block
        return
    part: list[TextBlock] = []
    taken = 0
    for piece in _pieces(block, count, size):
        tokens = count(piece.text)
        if part and taken + tokens > size:
            yield _joined(part)
            part, taken = [], 0
        part.append(piece)
        taken += tokens
    yield _joined(part)


def _fits(text: str, count: Count, size: int) -> bool:
    return len(text) <= size * _LONGEST_TOKEN and count(text) <= size


def _pieces(block: TextBlock, count: Count, size: int) -> Iterator[TextBlock]:
    """The lines of a block, and the words of the long ones, each with the white space after it."""
    lines = block.text.split("\n")
    placed = len(lines) == block.last - block.first + 1  # not in HTML: which word is on which of its lines is not known
    for at, line in enumerate(lines):
        first, last = (block.first + at, block.first + at) if placed else (block.first, block.last)
        pieces = [f"{line}\n"] if _fits(line, count, size) else _words(f"{line}\n", max(1, size // 4))
        for piece in pieces:
            yield TextBlock(first, last, piece)


def _words(line: str, longest: int) -> Iterator[str]:
    """Words with the space after them, cut to `longest` characters: Chinese has no spaces, and data no words."""
    for word in re.finditer(r"\S+\s*|\s+", line):
        for start in range(word.start(), word.end(), longest):
            yield line[start : min(start + longest, word.end())]


def _joined(part: list[TextBlock]) -> TextBlock:
    return TextBlock(part[0].first, part[-1].last, "".join(piece.text for piece in part).rstrip())
