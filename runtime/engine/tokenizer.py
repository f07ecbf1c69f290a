"""Text to token ids and back, and the special tokens by name.

In: a bundle's `tokenizer.json`. Ids are never written down in code: they are looked up by the names in `contract`.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer
from tokenizers.decoders import DecodeStream

from voxrill.runtime.bundle.contract import SPECIAL_TOKENS
from voxrill.runtime.errors import BundleError, UnknownText, UsageError


class Tokenizer:
    """The model's tokenizer.

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

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written out in it are recognised, none are added.

        Raises:
            UsageError: it holds lone surrogates, as Python makes of bytes that are not UTF-8.
            UnknownText: it holds words that a model with a closed vocabulary does not know; the message names them.
        """
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError("the text holds bytes that are not UTF-8", "Give it in UTF-8")
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self._unknown in ids:
            pieces = [text[slice(*span)] for token, span in zip(ids, encoding.offsets, strict=True)
                      if token == self._unknown]  # fmt: skip
            raise UnknownText(
                f"this model does not know {', '.join(dict.fromkeys(pieces))}", "Say it in words the model knows"
            )
        return ids

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
