"""Samples as bytes: 16-bit PCM out, and chunks of any length joined so that no sample is cut in two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FULL_SCALE = 32767.0
"""What ±1 becomes. -32768 is left out, so that both signs have the same range."""


def pcm16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Little-endian 16-bit samples. ±1 becomes ±32767, rounded to the nearest; beyond it is clipped."""
    return np.asarray(np.rint(np.clip(waveform, -1.0, 1.0) * _FULL_SCALE), dtype="<i2")


class PcmJoiner:
    """Joins the chunks of one PCM stream. A chunk may end within a sample: its last bytes wait for the next chunk.

    Args:
        frame_bytes: bytes of one sample of all channels, such as 2 for 16-bit mono.
    """

    def __init__(self, frame_bytes: int = 2) -> None:
        self._frame_bytes = frame_bytes
        self._rest = b""

    def __call__(self, chunk: bytes) -> bytes:
        """The bytes of all whole samples so far that were not given yet; may be empty."""
        joined = self._rest + chunk
        whole = len(joined) - len(joined) % self._frame_bytes
        self._rest = joined[whole:]
        return joined[:whole]

    @property
    def waiting(self) -> int:
        """Bytes of a sample that is not whole yet. At the end of a stream they are the rest of a cut-off sample."""
        return len(self._rest)

    def reset(self) -> None:
        """Another stream begins."""
        self._rest = b""
