"""Blocks to passages: the pieces of a document that are found, given to the model, and cited.

In: a document's blocks, and how long a text is in the model's tokens. Out: `Passage`s of at most `size` tokens, which
begin at headings and paragraphs where they can, and overlap by whole paragraphs, so that an answer that two of them
share is in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from voxrill.runtime.apps.documents.reader import TextBlock

Count = Callable[[str], int]
"""Tokens of a text."""

SIZE = 200
"""Tokens of a passage at most: five of them are 1,000 positions."""
OVERLAP = 40
"""Tokens of a passage's end that the next one may begin with."""


@dataclass(frozen=True)
class Passage:
    """Lines `first` to `last` of a document, from 1; the heading they stand under ("" before the first)."""

    first: int
    last: int
    heading: str
    text: str


@dataclass(frozen=True)
class _Sized:
    block: TextBlock
    tokens: int


def split(blocks: Sequence[TextBlock], count: Count, size: int = SIZE, overlap: int = OVERLAP) -> Iterator[Passage]:
    """The passages of a document, in order."""
    heading = ""
    section: list[_Sized] = []
    for block in blocks:
        if block.heading:
            yield from _packed(section, heading, size, overlap)
            heading, section = block.text, []
        section += [_Sized(part, count(part.text)) for part in _fitting(block, count, size)]
    yield from _packed(section, heading, size, overlap)


def _packed(section: list[_Sized], heading: str, size: int, overlap: int) -> Iterator[Passage]:
    """A section's blocks in passages of at most `size` tokens."""
    taken: list[_Sized] = []
    for sized in section:
        if taken and _tokens(taken) + sized.tokens > size:
            yield _passage(taken, heading)
            taken = _tail(taken, min(overlap, size - sized.tokens))
        taken.append(sized)
    if any(not sized.block.heading for sized in taken):  # a heading with nothing under it answers no question
        yield _passage(taken, heading)


def _tail(taken: list[_Sized], most: int) -> list[_Sized]:
    """The last blocks that are at most so many tokens together."""
    kept: list[_Sized] = []
    for sized in reversed(taken):
        if _tokens(kept) + sized.tokens > most:
            break
        kept.insert(0, sized)
    return kept


def _tokens(taken: list[_Sized]) -> int:
    return sum(sized.tokens for sized in taken)


def _passage(taken: list[_Sized], heading: str) -> Passage:
    blocks = [sized.block for sized in taken]
    return Passage(blocks[0].first, blocks[-1].last, heading, "\n".join(block.text for block in blocks))


def _fitting(block: TextBlock, count: Count, size: int) -> Iterator[TextBlock]:
    """A block in parts that each fit: lines where it has as many as it stands on, and of a long line words.

    Pieces are counted by themselves, once: together they are at most that long.
    """
    if count(block.text) <= size:
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


def _pieces(block: TextBlock, count: Count, size: int) -> Iterator[TextBlock]:
    """The lines of a block, and the words of the long ones, each with the white space after it."""
    lines = block.text.split("\n")
    placed = len(lines) == block.last - block.first + 1  # else HTML: which word is on which of its lines is not known
    for at, line in enumerate(lines):
        first, last = (block.first + at, block.first + at) if placed else (block.first, block.last)
        pieces = [f"{line}\n"] if count(line) <= size else _words(f"{line}\n", max(1, size // 4))
        for piece in pieces:
            yield TextBlock(first, last, piece)


def _words(line: str, longest: int) -> Iterator[str]:
    """Words with what follows them, cut to so many characters: Chinese has no spaces, and data no words."""
    for word in re.findall(r"\S+\s*|\s+", line):
        for start in range(0, len(word), longest):
            yield word[start : start + longest]


def _joined(part: list[TextBlock]) -> TextBlock:
    return TextBlock(part[0].first, part[-1].last, "".join(piece.text for piece in part).rstrip())
