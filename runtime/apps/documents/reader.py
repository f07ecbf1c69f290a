"""A document to blocks: headings and paragraphs, each with the lines of the file it stands on.

In: a text, Markdown, reST or HTML file. Out: `TextBlock`s in order. Headings are marked, because passages are
split there and carry the one they stand under. Markup inside a paragraph is left as it is written, except HTML's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

READABLE = (".txt", ".md", ".rst", ".html", ".htm")
"""Endings of the files that are read; everything else is refused by name."""

LARGEST = 32 << 20
"""Bytes of the largest file that is read: some ten times the text of a thick handbook."""

_MARKDOWN_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_UNDERLINES = {".md": re.compile(r"([=-])\1{2,}\s*$"), ".rst": re.compile(r"([=\-~^\"'`#*+])\1{2,}\s*$")}
_FENCE = re.compile(r"\s*(```|~~~)")


_CONTROLS = {code: " " for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""Read as spaces: a form feed is no new line to an editor, and an escape must not reach the terminal."""


class Unreadable(Exception):
    """A file that is not taken in; its text says why, to be put after the file's name."""


@dataclass(frozen=True)
class TextBlock:
    """A heading or a paragraph: lines `first` to `last` of the file, from 1, and their text without the markup."""

    first: int
    last: int
    text: str
    heading: bool = False


def read_blocks(name: str, content: bytes) -> list[TextBlock]:
    """The blocks of a file's content; its name says what kind it is.

    Raises:
        Unreadable: it holds something else than text, or text that is not Unicode.
    """
    text = _decoded(content)
    if Path(name).suffix.lower() in (".html", ".htm"):
        return _html_blocks(text)
    return list(_text_blocks(text.split("\n"), Path(name).suffix.lower()))


def _decoded(content: bytes) -> str:
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable("not text in UTF-8" if b"\0" not in content else "binary, not text") from None
    if "\0" in text:
        raise Unreadable("binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)


def _text_blocks(lines: list[str], ending: str) -> Iterator[TextBlock]:
    """Paragraphs end at empty lines; Markdown's and reStructuredText's headings are blocks of their own."""
    paragraph: list[str] = []
    fenced = False

    def ended(before: int) -> Iterator[TextBlock]:
        if paragraph:
            yield TextBlock(before - len(paragraph) + 1, before, "\n".join(paragraph))
            paragraph.clear()

    for number, line in enumerate(lines, 1):
        if ending == ".md" and _FENCE.match(line):
            fenced = not fenced
        heading = None if ending != ".md" or fenced else _MARKDOWN_HEADING.match(line)
        if heading:
            yield from ended(number - 1)
            yield TextBlock(number, number, heading[1], heading=True)
        elif ending in _UNDERLINES and not fenced and _underlines(line, paragraph, _UNDERLINES[ending]):
            yield TextBlock(number - len(paragraph), number, paragraph[-1].strip(), heading=True)
            paragraph.clear()
        elif line.strip():
            paragraph.append(line.rstrip())
        else:
            yield from ended(number - 1)
    yield from ended(len(lines))


def _underlines(line: str, paragraph: list[str], mark: re.Pattern[str]) -> bool:
    """Whether a line makes a heading of the one above, as both kinds of markup write it; some have a line above too."""
    *above, title = paragraph or [line]
    return len(above) <= 1 and all(map(mark.match, [line, *above])) and not mark.match(title)


def _html_blocks(text: str) -> list[TextBlock]:
    parser = _HtmlReader()
    parser.feed(text)
    parser.close()
    parser.end_block()
    return parser.blocks


_HEADINGS = frozenset({"title", "h1", "h2", "h3", "h4", "h5", "h6"})
_INLINE = frozenset(
    "a abbr b bdi bdo cite code data del dfn em font i img input ins kbd label mark q s samp small span strong sub sup "
    "time tt u var wbr".split()
)
_UNSEEN = frozenset({"script", "style", "template", "noscript"})


class _HtmlReader(HTMLParser):
    """HTML to blocks: every tag that is not one of a running line's ends a block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[TextBlock] = []
        self._words: list[str] = []
        self._lines: list[int] = []
        self._heading = False
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A tag begins."""
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag not in _INLINE:
            self.end_block()
            self._heading = tag in _HEADINGS

    def handle_endtag(self, tag: str) -> None:
        """A tag ends."""
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag not in _INLINE:
            self.end_block()

    def handle_data(self, data: str) -> None:
        """Text between tags; its first line is where the parser stands."""
        if self._unseen:
            return
        line = self.getpos()[0]
        for at, part in enumerate(data.split("\n")):
            if part.strip():
                self._lines.append(line + at)
        self._words.append(data)

    def end_block(self) -> None:
        """What was read since the last block becomes one."""
        text = " ".join("".join(self._words).split())
        if text:
            self.blocks.append(TextBlock(self._lines[0], self._lines[-1], text, self._heading))
        self._words, self._lines, self._heading = [], [], False
