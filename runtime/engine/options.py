"""How one answer is made, as a caller may wish it: the options that every question takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec

from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.errors import UsageError


class TextKeywords(TypedDict, total=False):
    """Options of an answer in text, as keyword arguments: see `AnswerOptions`."""

    max_new_tokens: int | None
    seed: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None


class AnswerKeywords(TextKeywords, total=False):
    """Options of an answer that may be spoken, as keyword arguments: see `AnswerOptions`."""

    audio_temperature: float | None
    audio_top_k: int | None


@dataclass(frozen=True)
class AnswerOptions:
    """How one answer is made. None leaves a choice to the model's family.

    max_new_tokens: limit on text tokens and audio frames together, at least 1. seed: the same seed gives the same
    answer.

    temperature, top_k, top_p: how text tokens are drawn. temperature 0 takes the likeliest; top_k keeps that many
    candidates, 0 all of them; top_p keeps the likeliest candidates that have this probability together.
    audio_temperature, audio_top_k: the same for the sound.

    Raises:
        UsageError: one of them is out of range.
    """

    max_new_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    audio_temperature: float | None = None
    audio_top_k: int | None = None

    def __post_init__(self) -> None:
        for name, least, most, remedy in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # also what is not a number
                raise UsageError(f"{name} is {value}", remedy)
        if self.top_p == 0:
            raise UsageError("top_p is 0", "Give a number above 0, up to 1; for the likeliest token temperature=0")

    def text_sampling(self, usual: Sampling) -> Sampling:
        """How text tokens are drawn: as usual, where nothing else was given."""
        changed = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return _changed(usual, changed)

    def audio_sampling(self, usual: Sampling) -> Sampling:
        """How codes are drawn: as usual, where nothing else was given."""
        return _changed(usual, {"temperature": self.audio_temperature, "top_k": self.audio_top_k})


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("max_new_tokens", 1, math.inf, "Give at least 1"),
    ("seed", 0, math.inf, "Give a whole number from 0 up"),
    ("temperature", 0, 100, "Give a number from 0 to 100"),
    ("audio_temperature", 0, 100, "Give a number from 0 to 100"),
    ("top_k", 0, 1 << 24, "Give a whole number from 0 up; 0 keeps every candidate"),
    ("audio_top_k", 0, 1 << 24, "Give a whole number from 0 up; 0 keeps every candidate"),
    ("top_p", 0, 1, "Give a number above 0, up to 1"),
)
"""Options with their ranges, and what to do about a value outside."""


def _changed(usual: Sampling, changes: Mapping[str, float | None]) -> Sampling:
    return msgspec.structs.replace(usual, **{name: value for name, value in changes.items() if value is not None})


def answer_options(call: str, given: Mapping[str, Any], known: type = AnswerKeywords) -> AnswerOptions:
    """The keyword arguments that the function `call` was given, checked at that call.

    Args:
        call: its name, for the error.
        given: its `**options`.
        known: the `TypedDict` that they are.

    Raises:
        TypeError: one of them is not known.
        UsageError: one of them is out of range.
    """
    check_keywords(call, given, known.__annotations__)
    return AnswerOptions(**given)


def check_keywords(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for a keyword argument that `call` does not take, in the words Python has for it.

    `**options` accepts every name, and hands a wrong one on: without this an inner function refuses it, perhaps much
    later, and by its own name.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}; it takes {', '.join(known)}")
