"""A document to blocks: headings and paragraphs, each with its lines in the file.

In: a text, Markdown, reST or HTML file. Out: `TextBlock`s in order, each made when it is asked for. Headings are
marked: passages are split there, and each passage has the heading above it. Markup inside a paragraph stays as it is
written, except HTML's. A file may hold anything, so time and memory grow with its length and not faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxrill.runtime.apps.documents.html import html_parts, plain

READABLE = (".txt", ".md", ".rst", ".html", ".htm")
"""Endings of the files that are read; all other files are refused by name."""

LARGEST = 32 << 20
"""Bytes of a file at most: about ten times the text of a thick handbook."""

LONGEST_PARAGRAPH = 1000
"""Lines of a block at most: a longer one is a table or a log, and is cut."""

_MARKDOWN_HEADING = re.compile(r" {0,3}#{1,6}(?=\s)")
_UNDERLINES = {".md": re.compile(r"([=-])\1{2,}\s*$"), ".rst": re.compile(r"([=\-~^\"'`#*+])\1{2,}\s*$")}
_FENCE = re.compile(r"\s*(```|~~~)")

_CONTROLS = {code: " " for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""Read as spaces: a form feed is no new line to an editor, and an escape code must not reach the terminal."""


class Unreadable(Exception):
    """A file that is refused; the text is the reason, and follows the file's name in a message."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A heading or a paragraph: lines `first` to `last` of the file, from 1, and their text without the markup."""

    first: int
    last: int
    text: str
    heading: bool = False


def read_blocks(name: str, content: bytes) -> Iterator[TextBlock]:
    """The blocks of a file's content; the name says the kind of file.

    Raises:
        Unreadable: it is not text, or text that is not Unicode.
    """
    text = _decoded(content)
    ending = Path(name).suffix.lower()
    return _html_blocks(text) if ending in (".html", ".htm") else _text_blocks(_lines(text), ending)


def _decoded(content: bytes) -> str:
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable("not text in UTF-8" if b"\0" not in content else "binary, not text") from None
    if "\0" in text:  # UTF-16 without a mark at its beginning decodes as UTF-8 with null characters
        raise Unreadable("binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, one at a time: a list of them takes many times the text's memory."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _text_blocks(lines: Iterator[str], ending: str) -> Iterator[TextBlock]:
    """Paragraphs end at empty lines; Markdown's and reStructuredText's headings are blocks of their own."""
    paragraph: list[str] = []
    fenced, number = False, 0

    def ended(before: int) -> Iterator[TextBlock]:
        if paragraph:
            yield TextBlock(before - len(paragraph) + 1, before, "\n".join(paragraph))
            paragraph.clear()

    for number, line in enumerate(lines, 1):
        if ending == ".md" and _FENCE.match(line):
            fenced = not fenced
        heading = None if ending != ".md" or fenced else _markdown_heading(line)
        if heading is not None:
            yield from ended(number - 1)
            yield TextBlock(number, number, heading, heading=True)
        # A line of text becomes a heading only when its underline is seen, so it waits in the paragraph until then.
        elif ending in _UNDERLINES and not fenced and _underlines(line, paragraph, _UNDERLINES[ending]):
            yield TextBlock(number - len(paragraph), number, paragraph[-1].strip(), heading=True)
            paragraph.clear()
        elif line.strip():
            paragraph.append(line.rstrip())
            if len(paragraph) == LONGEST_PARAGRAPH:
                yield from ended(number)
        else:
            yield from ended(number - 1)
    yield from ended(number)


def _markdown_heading(line: str) -> str | None:
    """The text of a heading, without the number signs around it; None for another line."""
    begin = _MARKDOWN_HEADING.match(line)
    if begin is None:
        return None
    text = line[begin.end() :].strip()
    return text.rstrip("#").rstrip()


def _underlines(line: str, paragraph: list[str], mark: re.Pattern[str]) -> bool:
    """Whether a line underlines the line above it, which is then a heading; some headings have a line above, too."""
    if not 1 <= len(paragraph) <= 2:
        return False
    *above, title = paragraph
    return all(map(mark.match, [line, *above])) and not mark.match(title)


_HEADINGS = frozenset({"title", "h1", "h2", "h3", "h4", "h5", "h6"})
_INLINE = frozenset(
    "a abbr b bdi bdo cite code data del dfn em font i img input ins kbd label mark q s samp small span strong sub sup "
    "time tt u var wbr".split()
)
_UNSEEN = frozenset({"script", "style", "template", "noscript"})


def _html_blocks(page: str) -> Iterator[TextBlock]:
    """HTML to blocks: every tag ends one, except those that stand inside a line."""
    reader = _HtmlReader()
    line, counted = 1, 0
    for part in html_parts(page):
        if part.kind == "text":
            line, counted = line + page.count("\n", counted, part.at), part.at  # each line is counted once
            reader.read_text(part.value, line)
        elif part.value in _UNSEEN:
            reader.unseen = max(0, reader.unseen + (1 if part.kind == "start" else -1))
        elif part.value not in _INLINE:
            yield from reader.ended()
            reader.heading = part.kind == "start" and part.value in _HEADINGS
    yield from reader.ended()


class _HtmlReader:
    """The block that is being read: its words, and the lines they stand on.

    unseen: open elements whose content is not shown; heading: whether the block is a heading.
    """

    def __init__(self) -> None:
        self.unseen = 0
        self.heading = False
        self._words: list[str] = []
        self._first = self._last = 0

    def read_text(self, text: str, line: int) -> None:
        """Add a text that begins on the line `line` of the page."""
        if self.unseen:
            return
        lines = [plain(raw) for raw in _lines(text)]
        for number, words in enumerate(lines, line):
            if words.strip():
                self._first, self._last = self._first or number, number
        self._words.append("\n".join(lines))

    def ended(self) -> Iterator[TextBlock]:
        """What was read since the last block, as one."""
        text = " ".join("".join(self._words).split())
        if text:
            yield TextBlock(self._first, self._last, text, self.heading)
        self._words, self._first, self._last, self.heading = [], 0, 0, False
