"""Citations: what the model writes in brackets, compared with the passages that it was given.

In: an answer's text, in pieces as it is made, and the sources. Out: the same text. Every citation in it names a file
and lines that the model got. The model writes a passage's number, `[2]` or `[1, 3]`, and that becomes `[kettle.md,
lines 3-9]`. It may also write file and lines itself, of a passage or of a part of it.

Anything in square brackets with a digit or the name of a readable file in it is a citation. A citation of a source that
does not exist is taken out of the text and kept in `removed`. Words without brackets are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from voxrill.runtime.apps.documents.reader import READABLE
from voxrill.runtime.printable import printable

LONGEST = 200
"""Characters within which a bracket has to be closed: the text after an open bracket waits for the end."""

_NUMBERS = re.compile(r"\s*(\d{1,6})(?:\s*[,;]\s*\d{1,6})*\s*")
_LINES = re.compile(r"lines?\s*+(\d{1,9})(?:\s*+[-–]\s*+(\d{1,9}))?\s*+$")


class Citation(msgspec.Struct, frozen=True):
    """Lines `first` to `last` of a file, from 1."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        lines = f"line {self.first}" if self.first == self.last else f"lines {self.first}-{self.last}"
        return f"{printable(self.file)}, {lines}"


class CitationFilter:
    """Checks an answer's citations as its text comes.

    Args:
        sources: the passages that the model got; number 1 is the first.
    """

    def __init__(self, sources: Sequence[Citation]) -> None:
        self._sources = sources
        self._held = ""
        self.citations: list[Citation] = []
        self.removed: list[str] = []

    def push(self, text: str) -> str:
        """The text that is certain, now that `text` has come: all but white space and a bracket at the end."""
        self._held += text
        certain = ""
        while (step := self._step()) is not None:
            certain += step
        return certain

    def flush(self) -> str:
        """What is left when the answer has ended."""
        space, bracket, within = self._held.partition("[")
        self._held = ""
        return self._unclosed(space, within) if bracket else space

    def _step(self) -> str | None:
        """The next part of the held text that is certain; None if it depends on the next characters."""
        text, bracket, _ = self._held.partition("[")
        certain = text.rstrip()  # the space in front of a citation goes with it if the citation does not exist
        if certain or not bracket:
            return self._take(len(certain)) or None
        begin = len(text) + 1
        furthest = begin + LONGEST  # an answer with one lost bracket must not wait for its end
        end = re.search(r"[\[\]]", self._held[begin:furthest])
        if end is None:
            if len(self._held) < furthest:
                return None
            return self._unclosed(text, self._take(furthest)[begin:])
        within = self._take(begin + end.start())[begin:]
        if end[0] == "[":  # the bracket before it was never closed; the new one is looked at in the next step
            return self._unclosed(text, within)
        self._take(1)
        return self._closed(text, within)

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def _closed(self, space: str, within: str) -> str:
        """A bracket as it appears in the text, with the space in front; "" for a citation that does not exist."""
        if not _reads_as_citation(within):
            return f"{space}[{within}]"
        cited = self._cited(within)
        self.citations += [citation for citation in cited if citation not in self.citations]
        return space + " ".join(f"[{citation}]" for citation in cited) if cited else ""

    def _unclosed(self, space: str, within: str) -> str:
        """Leave out a bracket that nothing closes, and the text in it if it reads as a citation."""
        if not _reads_as_citation(within):
            return space + within
        self.removed.append(f"[{within}")
        return ""

    def _cited(self, within: str) -> list[Citation]:
        """The citations in a bracket that exist; the others go to `removed`."""
        if _NUMBERS.fullmatch(within):
            numbers = [int(number) for number in re.findall(r"\d+", within)]
            self.removed += [f"[{number}]" for number in numbers if not 1 <= number <= len(self._sources)]
            return [self._sources[number - 1] for number in numbers if 1 <= number <= len(self._sources)]
        wanted = _named(within)
        for source in self._sources:
            if wanted is not None and _holds(source, wanted):
                return [Citation(source.file, wanted.first, wanted.last)]
        self.removed.append(f"[{within}]")
        return []


def _reads_as_citation(within: str) -> bool:
    return any(character.isnumeric() for character in within) or any(ending in within.lower() for ending in READABLE)


def _named(within: str) -> Citation | None:
    """A file and its lines, as `kettle.md, lines 3-9`; None for anything else."""
    lines = _LINES.search(within)
    if lines is None:
        return None
    file = within[: lines.start()].strip().removesuffix(",").rstrip()
    return Citation(file, int(lines[1]), int(lines[2] or lines[1])) if file else None


def _holds(source: Citation, wanted: Citation) -> bool:
    """Whether lines are among those of a source. Its file is named as the model was shown it."""
    return printable(source.file) == wanted.file and source.first <= wanted.first <= wanted.last <= source.last
