"""A question to the words that the index is searched for."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")

_EMPTY = frozenset(
    "a about am an and any are as at be been but by can could did do does for from get go got had has have he her "
    "here him his how i if in into is it its just long many may me mean might much must my need no not of often on or "
    "our out please s shall she should so some t tell than that the their them then there these they this those to "
    "under up us was we were what when where which while who whom whose why will with without would you your".split()
)
"""English words that do not say what a question is about. In a small folder "how" may be rare and would count a lot."""

LONGEST = 64
"""Words that are searched for at most: the first ones of a longer question."""


def search_words(question: str) -> list[str]:
    """The distinct words of a question in order, in lower case, without the empty ones."""
    # casefold, and not lower: it also makes "STRASSE" and "straße" the same word.
    words = (word for word in _WORD.findall(question.casefold()) if word not in _EMPTY)
    return list(dict.fromkeys(words))[:LONGEST]
