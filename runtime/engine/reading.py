"""What a model can read of a text from outside, where it knows a list of words and no others.

In: a system prompt, a typed question, an earlier turn. Out: the text that the model is told, without the words that it
does not know. The caller is told of them once for each text. Most models can read every text: for them nothing changes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from voxrill.runtime.engine.tokenizer import Tokenizer
from voxrill.runtime.errors import VoxrillWarning

UNDERSTOOD = 0.75
"""A question is understood if the model knows more than this share of its words. Pebble knows three words of "what is
the zeitgeist", and answers "what is the" with the weather."""

_NAMED = 8
"""Unknown words that a warning names at most."""

_LEFT_OUT = "the words are left out"

_REMEMBERED = 1024
"""Texts that are remembered as told of."""


@dataclass(frozen=True)
class UnknownWords:
    """Words of a text that the model does not know: the kind of text, the words, and what follows."""

    text: Literal["system prompt", "question", "earlier turn"]
    words: tuple[str, ...]
    outcome: str


def warn(unknown: UnknownWords) -> None:
    """Tell a caller in Python: a `VoxrillWarning` that names the words."""
    more = len(unknown.words) - _NAMED
    named = ", ".join(unknown.words[:_NAMED]) + (f" and {more} more words" if more > 0 else "")
    warnings.warn(
        f"this model does not know {named} in the {unknown.text}: {unknown.outcome}", VoxrillWarning, stacklevel=4
    )


class Reading:
    """Reads texts for one model. `tell` hears of the words that were left out, once for each text.

    Args:
        tokenizer: knows the words.
        refusal: the sentence with which the model answers what it does not know; empty if it has none.
    """

    def __init__(self, tokenizer: Tokenizer, refusal: str) -> None:
        self.tell: Callable[[UnknownWords], None] = warn
        self.refusal = refusal
        self._tokenizer = tokenizer
        self._told: dict[bytes, None] = {}  # in the order in which they were told

    def prompt(self, text: str, own: str) -> str:
        """A system prompt, or the model's `own` in place of one with unknown words.

        What is left of a prompt without some of its words is no prompt. Pebble took "translate the user into", left of
        "Translate everything the user says into French.", for the prompt that asks for German.
        """
        _, unknown = self._tokenizer.readable(text)
        if not unknown:
            return text
        self._tell(text, UnknownWords("system prompt", unknown, "its own system prompt is used"))
        return own

    def question(self, text: str, with_sound: bool) -> str | None:
        """A typed question without its unknown words; None if the model understands too little of it.

        Args:
            text: the question.
            with_sound: a spoken question is heard before it, and can be answered alone.

        Raises:
            UnknownText: the model understands too little, and has no sentence to say so.
        """
        left, unknown = self._tokenizer.readable(text)
        if not unknown:
            return text
        understood = self._tokenizer.count(left) > UNDERSTOOD * self._tokenizer.count(text)
        if not understood and not with_sound and not self.refusal:
            self._tokenizer.encode(text)  # raises the error that names the words
        otherwise = "the text is left out" if with_sound else "the model refuses"
        self._tell(text, UnknownWords("question", unknown, _LEFT_OUT if understood else otherwise))
        return left if understood else None

    def earlier(self, text: str) -> str:
        """A question or an answer of an earlier turn, without its unknown words."""
        left, unknown = self._tokenizer.readable(text)
        if unknown:
            self._tell(text, UnknownWords("earlier turn", unknown, _LEFT_OUT))
        return left

    def _tell(self, text: str, unknown: UnknownWords) -> None:
        key = hashlib.sha256(f"{unknown.text}\0{text}".encode()).digest()
        if key in self._told:
            return
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        self.tell(unknown)
