"""The language of the served model: how answers name it, and what clients call it.

In: its ISO 639-1 code from the manifest. A model of several languages has their names there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_WORDS = {"en": ("english", "eng"), "ja": ("japanese", "jpn")}
"""The English name of each language, and its ISO 639-3 code."""


def language_name(code: str, named: Mapping[str, str] = MappingProxyType({})) -> str:
    """The name in `verbose_json`, where OpenAI's API has words and not codes. named: the names that a model has."""
    return _WORDS[code][0] if code in _WORDS else named.get(code, code).casefold()


def is_language(code: str, said: str) -> bool:
    """Whether a client means this language: en, eng, en-US, en_GB and English are the same."""
    first = said.strip().replace("_", "-").split("-")[0].casefold()
    return first in (code, *_WORDS.get(code, ()))
