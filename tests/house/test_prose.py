"""Plain language: what a newcomer reads has short sentences and few numbers.

Counted is prose: no headings, no tables, no blocks of code. Code within a sentence is one word. A number is a word that
begins with a digit.
"""

import re

import pytest
from markdown_it import MarkdownIt

from tests.places import ROOT, SNIPPET_PAGES

PAGES = [*SNIPPET_PAGES, "benchmarks/README.md", "pebble/README.md"]
"""The README, how to contribute, how to measure, the card of the small model, and every page of docs/."""

LONGEST_MEAN = 15
"""Words of a sentence, on average."""

LONGEST = 30
"""Words of any sentence."""

NUMBERS = 3
"""Numbers in 100 words, at most."""

_SHOWN = {"text": lambda part: part.content, "code_inline": lambda part: "code", "softbreak": lambda part: " "}


def paragraphs(text):
    """Each paragraph and list item, as its reader sees it."""
    skipped = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("table_open", "heading_open"):
            skipped += 1
        elif token.type in ("table_close", "heading_close"):
            skipped -= 1
        elif token.type == "inline" and not skipped:
            yield "".join(_SHOWN[part.type](part) for part in token.children if part.type in _SHOWN)


def sentences(text):
    """Each sentence, as its words."""
    for paragraph in paragraphs(text):
        for sentence in re.split(r"(?<=[.!?])[\"')]*\s+", paragraph):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                yield words


def measured(text):
    """Words of a sentence, and numbers in 100 words."""
    found = list(sentences(text))
    words = [word.lstrip("([\"'*±<>=") for sentence in found for word in sentence]
    return len(words) / len(found), 100 * sum(word[0].isdigit() for word in words if word) / len(words)


def test_what_is_counted():
    text = (
        "# A title of 9 words\n\nOne two `a b c 4` (5). Six\nseven!\n\n| 1 | 2 |\n|---|---|\n| 3 | 4 |\n\n    10 20\n"
    )
    assert list(sentences(text)) == [["One", "two", "code", "(5)."], ["Six", "seven!"]]
    assert measured(text) == (3, pytest.approx(100 / 6))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_plain(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [" ".join(words) for words in sentences(text) if len(words) > LONGEST] == []
    length, numbers = measured(text)
    assert length <= LONGEST_MEAN and numbers <= NUMBERS, f"{length:.1f} words a sentence, {numbers:.1f} numbers in 100"
