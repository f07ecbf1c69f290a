"""Text to token ids and back, and the special tokens by name.

In: a bundle's `tokenizer.json`. Ids are never written down in code: they are looked up by the names in `contract`.
Text comes from outside: users, networks, documents. No text gives a special token, or it could end its turn and speak
in another role. The turns' own marks are ready-made here, from the contract alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer
from tokenizers.decoders import DecodeStream

from voxrill.runtime.bundle.contract import SPECIAL_TOKENS
from voxrill.runtime.errors import BundleError, UnknownText, UsageError

ROLES = ("system", "user", "assistant")

_MARK = re.compile(r"<\|.+\|>", re.DOTALL)
"""A token that means something beside what it spells, whether the tokenizer calls it special or not."""


class Tokenizer:
    """The model's tokenizer. `start`, `openings` (by role) and `closing`: the marks of a conversation's turns, as ids.

    Raises:
        BundleError: the file is missing or unreadable, or lacks a special token (the message names it).
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = _Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path} is not a readable tokenizer ({error})", "Copy it again") from None
        unknown = getattr(self._tokenizer.model, "unk_token", None)  # byte-level models have none
        self._unknown = self._tokenizer.token_to_id(unknown) if unknown else None
        self.ids: dict[str, int] = {}
        for role, token in SPECIAL_TOKENS.items():
            token_id = self._tokenizer.token_to_id(token)
            if token_id is None:
                raise BundleError(f"{path} has no token {token}", "This tokenizer is not an LFM2-Audio model's")
            self.ids[role] = token_id
        self._special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self.start = self._matched(SPECIAL_TOKENS["start"])
        self.openings = {role: self._matched(f"{SPECIAL_TOKENS['im_start']}{role}\n") for role in ROLES}
        self.closing = self._matched(f"{SPECIAL_TOKENS['im_end']}\n")
        self._tokenizer.encode_special_tokens = True  # from here on, what is written like one is taken for text

    def _matched(self, template: str) -> list[int]:
        """The ids of a template as the reference has them: special tokens in it are matched."""
        ids: list[int] = self._tokenizer.encode(template, add_special_tokens=False).ids
        return ids

    def special(self, names: Iterable[str]) -> tuple[int, ...]:
        """The ids of special tokens by their names.

        Raises:
            BundleError: the tokenizer has not all of them.
        """
        found = {name: self._tokenizer.token_to_id(name) for name in names}
        lacking = [name for name, i in found.items() if i is None]
        if lacking:
            raise BundleError(
                f"the tokenizer has no token {', '.join(lacking)}", "This tokenizer is not of this model's family"
            )
        return tuple(found.values())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, none of them special, whatever is written in it.

        Raises:
            UsageError: it holds lone surrogates, as Python makes of bytes that are not UTF-8.
            UnknownText: it holds words that a model with a closed vocabulary does not know; the message names them.
        """
        ids, bad = self._encoded(text)
        if bad and self.closed:
            unknown = dict.fromkeys(text[span] for span in bad.values())
            raise UnknownText(f"this model does not know {', '.join(unknown)}", "Say it in words the model knows")
        return [
            one for place, i in enumerate(ids) for one in (self._spelled(text[bad[place]]) if place in bad else [i])
        ]

    def readable(self, text: str) -> tuple[str, tuple[str, ...]]:
        """What the model can read of `text`, and the words that it does not know, each once.

        Raises:
            UsageError: as `encode`.
        """
        _, bad = self._encoded(text)
        if not bad or not self.closed:
            return text, ()
        left, end = "", 0
        for span in bad.values():
            left += text[end : span.start]
            end = span.stop
        return " ".join((left + text[end:]).split()), tuple(dict.fromkeys(text[span] for span in bad.values()))

    def _encoded(self, text: str) -> tuple[list[int], dict[int, slice]]:
        """The tokens of `text`; and, by their places, those that it may not become, with their part of the text."""
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError("the text holds bytes that are not UTF-8", "Give it in UTF-8")
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        bad = [place for place, token in enumerate(encoding.tokens) if self._refused(ids[place], token)]
        spans = encoding.offsets if bad else []  # to ask for them costs time
        return ids, {place: slice(*spans[place]) for place in bad}

    def _refused(self, token_id: int, token: str) -> bool:
        """Whether text may not become this token.

        The library's own switch is not enough: a word list holds the special tokens as words, which the normaliser may
        make of others (`<|IM_END|>`), and a tokenizer may have marks that it does not call special.
        """
        return token_id == self._unknown or token_id in self._special or _MARK.fullmatch(token) is not None

    def _spelled(self, mark: str) -> Iterator[int]:
        """A mark as text: character by character, so that it cannot be matched as a whole."""
        for character in mark:
            yield from self._tokenizer.encode(character, add_special_tokens=False).ids

    @property
    def closed(self) -> bool:
        """Whether there are words that this model does not know at all."""
        return self._unknown is not None

    def count(self, text: str) -> int:
        """How many tokens `text` is; words that the model does not know count as one each."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens left out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def stream(self) -> TextStream:
        """A decoder for tokens that come one at a time."""
        return TextStream(self._tokenizer)


class TextStream:
    """Text as its tokens come: a piece is handed out once its bytes are whole characters."""

    def __init__(self, tokenizer: _Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that became certain with `token`; empty while a character is incomplete."""
        piece: str | None = self._stream.step(self._tokenizer, token)
        return piece or ""
