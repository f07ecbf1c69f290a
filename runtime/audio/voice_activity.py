"""Is somebody speaking? Silero's small network on onnxruntime, one block at a time.

In: blocks (512,) at 16 kHz. Out: the probability that the block holds speech. The network's file comes from the
silero-vad 6.2 package (MIT, its licence beside it), whose own Python would bring torch along.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from voxrill.devices.providers import CPU, session_options
from voxrill.runtime.audio.protocols import BLOCK, RATE, Floats

MODEL = "silero/silero_vad_16k_op15.onnx"

_CONTEXT = 64
"""Samples of the block before that the network sees again."""

_STATE = (2, 1, 128)


class VoiceDetector(Protocol):
    """Anything that tells speech from other sound, block by block."""

    def __call__(self, samples: Floats) -> float:
        """The probability, 0 to 1, that the stream's next samples (512,) hold speech."""

    def reset(self) -> None:
        """Forget what was heard."""


@cache
def _network() -> ort.InferenceSession:
    """The network, which all streams share: what one remembers is handed in and out with each block."""
    path = Path(str(resources.files("voxrill.runtime.audio"))) / MODEL
    return ort.InferenceSession(str(path), sess_options=session_options(threads=1), providers=[CPU])


class VoiceActivity:
    """One stream's detector; it remembers what it heard until `reset`."""

    def __init__(self) -> None:
        self._session = _network()
        self._rate = np.array(RATE, np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._state = np.zeros(_STATE, np.float32)
        self._input = np.zeros((1, _CONTEXT + BLOCK), np.float32)

    def __call__(self, samples: Floats) -> float:
        """The probability, 0 to 1, that `samples` (512,), the stream's next, hold speech."""
        self._input[0, :_CONTEXT] = self._input[0, -_CONTEXT:]
        self._input[0, _CONTEXT:] = samples
        speech, self._state = self._session.run(
            ["output", "stateN"], {"input": self._input, "state": self._state, "sr": self._rate}
        )
        return float(speech[0, 0])
