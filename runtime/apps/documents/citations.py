"""Citations: what the model writes in brackets, held to the passages that it was given.

In: an answer's text, in pieces as it is made, and the sources. Out: the same text in which every citation is of a file
and lines that the model was given. It writes a passage's number, `[2]` or `[1, 3]`, and that becomes
`[kettle.md, lines 3-9]`; it may also write file and lines itself, of a passage or a part of it.

What counts as a citation is anything in square brackets with a digit or the name of a readable file in it. One that
does not exist is taken out of the text and kept in `removed`. Words without brackets are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from voxrill.runtime.apps.documents.reader import READABLE

LONGEST = 200
"""Characters within which a bracket has to be closed; the text after an open one waits for that."""

_BRACKET = re.compile(r"\s*\[")
_NUMBERS = re.compile(r"\s*(\d{1,6})(?:\s*[,;]\s*\d{1,6})*\s*")
_LINES = re.compile(r"\s*(.+?)\s*,?\s*lines?\s*(\d{1,9})(?:\s*[-–]\s*(\d{1,9}))?\s*", re.DOTALL)


class Citation(msgspec.Struct, frozen=True):
    """Lines `first` to `last` of a file, from 1."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        lines = f"line {self.first}" if self.first == self.last else f"lines {self.first}-{self.last}"
        return f"{self.file}, {lines}"


class CitationFilter:
    """Checks an answer's citations as its text comes.

    Args:
        sources: the passages that the model was given; number 1 is the first.
    """

    def __init__(self, sources: Sequence[Citation]) -> None:
        self._sources = sources
        self._held = ""
        self.citations: list[Citation] = []
        self.removed: list[str] = []

    def push(self, text: str) -> str:
        """The text that is certain after `text` came: all but white space and a bracket at the end."""
        self._held += text
        certain = ""
        while (step := self._step()) is not None:
            certain += step
        return certain

    def flush(self) -> str:
        """What is left when the answer has ended."""
        bracket = _BRACKET.match(self._held)
        rest = self._held if bracket is None else self._unclosed(bracket[0], self._held[bracket.end() :])
        self._held = ""
        return rest

    def _step(self) -> str | None:
        """The next certain part of what is held; None where the next characters decide."""
        bracket = _BRACKET.search(self._held)
        if bracket is None:
            certain = self._held.rstrip()
            self._held = self._held[len(certain) :]
            return certain or None
        if bracket.start():
            return self._take(bracket.start())
        furthest = bracket.end() + LONGEST
        end = re.search(r"[\[\]]", self._held[bracket.end() : furthest])
        if end is None:
            if len(self._held) < furthest:
                return None
            return self._unclosed(bracket[0], self._take(furthest)[bracket.end() :])
        whole = self._take(bracket.end() + end.start())
        if end[0] == "[":
            return self._unclosed(bracket[0], whole[bracket.end() :])
        self._take(1)
        return self._closed(bracket[0], whole[bracket.end() :])

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def _closed(self, bracket: str, within: str) -> str:
        """A bracket and what is within it, as it is to stand in the text; "" for a citation that does not exist."""
        if not _reads_as_citation(within):
            return f"{bracket}{within}]"
        cited = self._cited(within)
        self.citations += [citation for citation in cited if citation not in self.citations]
        return bracket[:-1] + " ".join(f"[{citation}]" for citation in cited) if cited else ""

    def _unclosed(self, bracket: str, within: str) -> str:
        """A bracket that nothing closes is left out, and with it what would read as a citation."""
        if not _reads_as_citation(within):
            return bracket[:-1] + within
        self.removed.append(f"[{within}")
        return ""

    def _cited(self, within: str) -> list[Citation]:
        """The citations that a bracket holds and that exist; the others are noted."""
        if _NUMBERS.fullmatch(within):
            numbers = [int(number) for number in re.findall(r"\d+", within)]
            self.removed += [f"[{number}]" for number in numbers if not 1 <= number <= len(self._sources)]
            return [self._sources[number - 1] for number in numbers if 1 <= number <= len(self._sources)]
        named = _LINES.fullmatch(within)
        if named:
            wanted = Citation(named[1], int(named[2]), int(named[3] or named[2]))
            if any(_holds(source, wanted) for source in self._sources):
                return [wanted]
        self.removed.append(f"[{within}]")
        return []


def _reads_as_citation(within: str) -> bool:
    return any(character.isnumeric() for character in within) or any(ending in within.lower() for ending in READABLE)


def _holds(source: Citation, wanted: Citation) -> bool:
    """Whether lines are among those of a source."""
    return source.file == wanted.file and source.first <= wanted.first <= wanted.last <= source.last
