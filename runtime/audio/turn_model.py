"""The end-of-turn network: has the speaker finished? Smart Turn, versions 3.0 to 3.2, on onnxruntime.

In: the sound of a turn up to a short pause, (n,) at 16 kHz. Out: the probability that the speaker has finished. The
network is Whisper tiny's encoder with a small head (https://github.com/pipecat-ai/smart-turn, BSD-2). It hears the
last 8 seconds, with silence before a shorter turn. Its file is not ours: `end_of_turn.py` finds it.

The front end is Whisper's log-mel, as the package pipecat-ai computes it. The largest difference is 1e-5 on speech.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxrill.devices.providers import open_foreign
from voxrill.runtime.audio.log_mel import mel_filterbank
from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.errors import DataError

SECONDS = 8
"""Seconds that the network hears."""

_SAMPLES = SECONDS * RATE
_WINDOW, _HOP, _MELS = 400, 160, 80
_FRAMES = _SAMPLES // _HOP  # 800

_INPUT, _SHAPE = "input_features", [_MELS, _FRAMES]

_QUIETEST = 1e-10
"""Mel power below which all is the same silence."""

_RANGE = 8.0
"""Powers of ten below the loudest band that are still told apart."""


class TurnLogMel:
    """Whisper's log-mel of the last 8 seconds of a sound."""

    def __init__(self) -> None:
        self._window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)  # periodic, unlike the audio encoder's
        self._filters = np.ascontiguousarray(mel_filterbank(RATE, _WINDOW, _MELS).T)

    def __call__(self, sound: Floats) -> NDArray[np.float32]:
        """The log-mel (80, 800) of a sound (n,) at 16 kHz, brought to mean 0 and deviation 1 before."""
        heard = sound[-_SAMPLES:]
        whole = np.zeros(_SAMPLES, np.float32)
        whole[_SAMPLES - len(heard) :] = heard
        whole = (whole - whole.mean()) / np.sqrt(whole.var() + np.float32(1e-7))
        padded = np.pad(whole, _WINDOW // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:_FRAMES]
        spectrum = np.fft.rfft(frames * self._window)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        # A product for each frame, because numpy's BLAS would give a larger one to threads of its own (see LogMel).
        bands = (power.astype(np.float32, copy=False)[:, None] @ self._filters)[:, 0]
        log = np.log10(np.maximum(bands, np.float32(_QUIETEST)))
        log = np.maximum(log, log.max() - np.float32(_RANGE))
        return np.ascontiguousarray(((log + 4) / 4).T, dtype=np.float32)


class TurnModel:
    """The network of one file. Any thread may call it, also several at once.

    Args:
        path: the ONNX file.

    Raises:
        DataError: it is not such a network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log_mel = TurnLogMel()
        try:
            # One thread: the answer is begun at the same time, and needs the other cores.
            self._session = open_foreign(path, threads=1, repack=True)
        except Exception as error:  # onnxruntime's classes differ from release to release
            raise _refused(path, f"cannot be opened ({str(error).splitlines()[0]})") from None
        self._check()
        probability = self(np.zeros(RATE, np.float32))  # the first run is slow; and an untrue version shows here
        if not 0 <= probability <= 1:
            raise _refused(path, f"gives {probability:g} where a probability is expected")

    def __call__(self, sound: Floats) -> float:
        """The probability that the speaker has finished. sound: the turn so far, (n,) at 16 kHz."""
        (found,) = self._session.run(None, {_INPUT: self._log_mel(sound)[None]})
        return float(found[0, 0])

    def _check(self) -> None:
        inputs = [(one.name, one.type, list(one.shape[1:])) for one in self._session.get_inputs()]
        if inputs != [(_INPUT, "tensor(float)", _SHAPE)]:
            told = f"{inputs[0][0]} {inputs[0][2]}" if len(inputs) == 1 else f"{len(inputs)} inputs"
            raise _refused(self.path, f"takes {told}, not {_INPUT} {_SHAPE}")
        outputs = [list(one.shape[1:]) for one in self._session.get_outputs()]
        if outputs != [[1]]:
            raise _refused(self.path, f"gives {outputs}, not one probability")


def _refused(path: Path, problem: str) -> DataError:
    return DataError(f"{path} is no end-of-turn model that is known here: it {problem}", "Give Smart Turn 3.0 to 3.2")
