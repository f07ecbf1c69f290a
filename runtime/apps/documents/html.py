"""HTML to its tags and its text in one pass, whatever the file holds.

In: a page. Out: `HtmlPart`s in order. Python's own parser reads to the end of the page for each tag that is not closed:
for 60 kB of `<a ` it took 33 s. Here each character is looked at a few times at most. Markup that nothing closes ends
the scan, because nothing after it can be closed either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Literal

_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")

# Possessive (`*+`, `++`): the pattern never gives back what it has matched. So a failure costs one pass, and not one
# for each way to divide the text. A quote counts only after an equals sign, as in a browser, and only if it is closed.
_TAG = re.compile(r"""<(/?)([a-zA-Z][^\s/>]*+)(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?)*+>""")

_RAW_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}
"""Elements whose content is not HTML, and the pattern of their end."""

_HUGE_NUMBER = re.compile(r"&#[0-9]{8,}+;?")
"""A reference to a character by a number that no character has. Python reads no number of more than 4,300 digits."""


@dataclass(frozen=True, slots=True)
class HtmlPart:
    """Text between tags as it is written, or a tag's name in lower case; `at` is its first character in the page."""

    kind: Literal["text", "start", "end"]
    value: str
    at: int


def html_parts(page: str) -> Iterator[HtmlPart]:
    """The tags and texts of a page; comments, declarations and the content of scripts and styles are left out."""
    at = 0
    while at < len(page):
        markup = _MARKUP.search(page, at)
        begin = markup.start() if markup else len(page)
        if begin > at:
            yield HtmlPart("text", page[at:begin], at)
        if begin == len(page):
            return
        tag = _TAG.match(page, begin)
        at = tag.end() if tag else _behind(page, begin)
        if tag is None and at < 0:  # nothing closes it, so it is no markup
            yield HtmlPart("text", page[begin:], begin)
            return
        if tag is not None:
            yield from _tag_parts(tag)
            at = _behind_raw(page, tag)


def plain(text: str) -> str:
    """Text with its character references replaced by the characters."""
    return unescape(_HUGE_NUMBER.sub("\N{REPLACEMENT CHARACTER}", text)) if "&" in text else text


def _behind(page: str, begin: int) -> int:
    """Where a comment or declaration at `begin` ends; an open comment ends with the page, an open declaration at -1."""
    if not page.startswith("<!--", begin):
        return page.find(">", begin) + 1 or -1
    end = page.find("-->", begin + 2)  # `<!-->` is a whole comment
    return len(page) if end < 0 else end + 3


def _tag_parts(tag: re.Match[str]) -> Iterator[HtmlPart]:
    name = tag[2].lower()
    yield HtmlPart("end" if tag[1] else "start", name, tag.start())
    if not tag[1] and tag[0].endswith("/>"):
        yield HtmlPart("end", name, tag.start())


def _behind_raw(page: str, tag: re.Match[str]) -> int:
    """Where to read on after a tag: behind it, or at the end of an element whose content is not HTML."""
    raw = None if tag[1] or tag[0].endswith("/>") else _RAW_END.get(tag[2].lower())
    if raw is None:
        return tag.end()
    end = raw.search(page, tag.end())
    return len(page) if end is None else end.start()
