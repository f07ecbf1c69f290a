"""What generation hands out: typed events, each with its timing, and the result at the end.

Units: `at` is in seconds since the request began; samples are float32 in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "audio_ended", "context_full", "ran_on"]
"""Why generation ended.

stop: the model ended it (`<|im_end|>`). length: max_new_tokens was reached. audio_ended: text and audio had both ended,
and the model went on without `<|im_end|>`; the reference would loop here. context_full: the model's context is full.
ran_on: the speech did not end by itself: it was much longer than its text needs, or repeated itself (see
`voxrill.runtime.engine.running_on`).
"""


@dataclass(frozen=True)
class StageEvent:
    """A step before the answer is done: the sound was encoded, a part of a long prompt was prefilled, or all of it."""

    stage: Literal["encoded", "prefilling", "prefilled"]
    at: float


@dataclass(frozen=True)
class TextEvent:
    """A text token: its id, and the piece of text that is certain now (it may be empty)."""

    text: str
    token: int
    at: float


@dataclass(frozen=True)
class AudioEvent:
    """Sound: `samples` (n,) at `sample_rate` Hz, and `codes` (codebooks,), the frame that completed it.

    `codes` is None for the last samples, which are flushed when the audio ends.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    codes: NDArray[np.int64] | None
    at: float


@dataclass(frozen=True)
class EndEvent:
    """The end of an answer."""

    finish_reason: FinishReason
    result: Result
    at: float


Event = TextEvent | AudioEvent | EndEvent


@dataclass
class Result:
    """A whole answer.

    text: all of its text; tokens: their ids; codes (codebooks, frames): all frames, without end-of-audio frames;
    skipped_frames: frames with an end-of-audio code in a later codebook, which no codec can play;
    first_text and first_audio: seconds until each, None if there was none; stages: milliseconds by stage.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    codes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    samples: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    sample_rate: int = 0
    finish_reason: FinishReason = "stop"
    skipped_frames: int = 0
    first_text: float | None = None
    first_audio: float | None = None
    seconds: float = 0.0
    prompt_positions: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def audio_seconds(self) -> float:
        """Length of the spoken answer."""
        return len(self.samples) / self.sample_rate if self.sample_rate else 0.0
