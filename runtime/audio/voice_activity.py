"""Voice activity detection: is somebody speaking? Silero's small network on onnxruntime, one block at a time.

In: blocks (512,) at 16 kHz. Out: the probability that the block holds speech. The network's file comes from the package
silero-vad 6.2 (MIT, its licence lies beside it). The package itself is not used: it would bring torch along.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from voxrill.devices.providers import CPU, session_options
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, RATE, Floats

MODEL = "silero/silero_vad_16k_op15.onnx"

_CONTEXT = 64
"""Samples of the previous block that the network is given again, before the new block."""

_STATE = (2, 1, 128)

_LOUD = 0.2
"""Level (RMS, full scale 1) that the loudest recent block is brought to: that of spoken commands at a close microphone.
"""

_MOST_GAIN = 100.0
"""40 dB. Measured with 26 held-out commands after a second of silence: at 20 dB less the network alone finds where
they begin 32 ms later (median), at 40 dB less 192 ms later, and some not at all. With the gain the median is the same
down to 50 dB less. Noise and music that are amplified like this are still no speech to the network."""

_RELEASE = 10 ** (-3.0 * BLOCK_SECONDS / 20)
"""The loudest block is forgotten at 3 dB a second: pauses stay quiet, and after a door has slammed one can whisper."""


class VoiceDetector(Protocol):
    """Tells speech from other sound, block by block."""

    def __call__(self, samples: Floats) -> float:
        """The probability, 0 to 1, that the stream's next samples (512,) hold speech."""

    def reset(self) -> None:
        """Forget what was heard."""


@cache
def _network() -> ort.InferenceSession:
    """The network. All streams share it: a stream's state goes in and comes out with each block."""
    path = Path(str(resources.files("voxrill.runtime.audio"))) / MODEL
    return ort.InferenceSession(str(path), sess_options=session_options(threads=1), providers=[CPU])


class AutomaticGain:
    """Amplifies quiet sound, block by block, to the level at which the network knows speech best; loud sound stays."""

    def __init__(self) -> None:
        self._loudest = 0.0

    def __call__(self, samples: Floats) -> Floats:
        """The stream's next samples (n,), amplified.

        A block that is louder than all before lowers the gain at once, for itself too, so that the network never hears
        the beginning of speech distorted.
        """
        level = float(np.sqrt(np.mean(np.square(samples))))
        self._loudest = max(self._loudest * _RELEASE, level)
        gain = min(_LOUD / self._loudest, _MOST_GAIN) if self._loudest else 1.0
        return samples * np.float32(max(gain, 1.0))


class VoiceActivity:
    """The detector of one stream. It remembers what it heard until `reset`.

    Args:
        auto_gain: also know speech that is very quiet, as in recordings from afar.
    """

    def __init__(self, auto_gain: bool = False) -> None:
        self._session = _network()
        self._rate = np.array(RATE, np.int64)
        self._auto_gain = auto_gain
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._gain = AutomaticGain() if self._auto_gain else None
        self._state = np.zeros(_STATE, np.float32)
        self._input = np.zeros((1, _CONTEXT + BLOCK), np.float32)

    def __call__(self, samples: Floats) -> float:
        """The probability, 0 to 1, that `samples` (512,), the stream's next, hold speech."""
        self._input[0, :_CONTEXT] = self._input[0, -_CONTEXT:]
        self._input[0, _CONTEXT:] = samples if self._gain is None else self._gain(samples)
        speech, self._state = self._run(self._input)
        return float(speech[0, 0])

    def glance(self, samples: Floats) -> float:
        """The probability that the stream's last 512 samples hold speech, `samples` (n,), which come next, included.

        Nothing is remembered of it. The network's state is that of the whole blocks before, which overlap the 512.
        """
        window = np.concatenate([self._input, samples[None]], axis=1)[:, -_CONTEXT - BLOCK :]
        return float(self._run(window)[0][0, 0])

    def _run(self, sound: Floats) -> tuple[Floats, Floats]:
        speech, state = self._session.run(
            ["output", "stateN"], {"input": sound, "state": self._state, "sr": self._rate}
        )
        return speech, state
