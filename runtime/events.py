"""What generation hands out: typed events, each with its timing, and the result at the end.

Units: `at` is in seconds since the request began; samples are float32 in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
    confidence: how sure the model was of its text, from 0 to 1: the geometric mean of the probabilities of its text
    tokens and of the end; 0 without text;
    first_text and first_audio: seconds until each, None if there was none; stages: milliseconds by stage.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    codes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    samples: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    sample_rate: int = 0
    finish_reason: FinishReason = "stop"
    skipped_frames: int = 0
    confidence: float = 0.0
    first_text: float | None = None
    first_audio: float | None = None
    seconds: float = 0.0
    prompt_positions: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A clock says more digits than it knows: 0.1 ms of seconds, and 1 us of stages, are enough for everybody.
        self.seconds = round(self.seconds, 4)
        self.confidence = round(self.confidence, 4)
        self.first_text, self.first_audio = _rounded(self.first_text), _rounded(self.first_audio)
        self.stages = {name: round(milliseconds, 3) for name, milliseconds in self.stages.items()}

    @property
    def audio_seconds(self) -> float:
        """Length of the spoken answer."""
        return round(len(self.samples) / self.sample_rate, 4) if self.sample_rate else 0.0

    def as_json(self) -> dict[str, Any]:
        """The result as `--json` prints it: words, counts and times, without the sound itself."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "tokens": len(self.tokens),
            "frames": int(self.codes.shape[1]),
            "skipped_frames": self.skipped_frames,
            "confidence": self.confidence,
            "audio_seconds": self.audio_seconds,
            "seconds": self.seconds,
            "first_text_seconds": self.first_text,
            "first_audio_seconds": self.first_audio,
            "stages_ms": self.stages,
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
