"""How one answer is made, as a caller may wish it: the options that every question takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.errors import UsageError


class AnswerKeywords(TypedDict, total=False):
    """The fields of `AnswerOptions` as keyword arguments, for type checkers."""

    max_new_tokens: int | None
    seed: int | None
    text_sampling: Sampling | None
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
