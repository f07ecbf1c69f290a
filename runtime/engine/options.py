"""How one answer is made, as a caller may wish it: the options that every question takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.errors import UsageError


class TextKeywords(TypedDict, total=False):
    """Options of an answer in text, as keyword arguments: see `AnswerOptions`."""

    max_new_tokens: int | None
    seed: int | None
    text_sampling: Sampling | None


class AnswerKeywords(TextKeywords, total=False):
    """Options of an answer that may be spoken, as keyword arguments: see `AnswerOptions`."""

    audio_sampling: Sampling | None


@dataclass(frozen=True)
class AnswerOptions:
    """How one answer is made. None leaves a choice to the model's family.

    max_new_tokens: limit on text tokens and audio frames together, at least 1; seed: the same seed gives the same
    answer; text_sampling, audio_sampling: how tokens and codes are drawn.

    Raises:
        UsageError: max_new_tokens is below 1.
    """

    max_new_tokens: int | None = None
    seed: int | None = None
    text_sampling: Sampling | None = None
    audio_sampling: Sampling | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}", "Give at least 1")


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
