"""G.711, the sound of telephones: 16-bit samples to one byte each and back, in both of its laws.

In: samples of 16 bits, or bytes. Out: the other. The numbers are those of ITU-T's recommendation, and the same as those
of Python's former `audioop`. The rate is 8 kHz; nothing here depends on it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["ulaw", "alaw"]

_ULAW_BIAS = 33
"""What mu-law adds to a 14-bit sample, so that every segment begins at a power of two."""

_ULAW_ENDS = np.array([(64 << segment) - 1 for segment in range(8)])
"""The last biased 14-bit sample of each of mu-law's eight segments: 63 to 8191."""

_ALAW_ENDS = np.array([(32 << segment) - 1 for segment in range(8)])
"""The last 13-bit sample of each of A-law's eight segments: 31 to 4095."""

_ALAW_EVEN_BITS = 0x55
"""A-law inverts every second bit, so that silence is not a long run of zeros."""


def encode(samples: NDArray[np.int16], law: Law) -> bytes:
    """One byte for each sample (n,)."""
    encoded = _ulaw(samples) if law == "ulaw" else _alaw(samples)
    return encoded.astype(np.uint8).tobytes()


def decode(data: bytes, law: Law) -> NDArray[np.int16]:
    """The samples (n,) of n bytes."""
    samples: NDArray[np.int16] = _DECODED[law][np.frombuffer(data, np.uint8)]
    return samples


def _ulaw(samples: NDArray[np.int16]) -> NDArray[np.int64]:
    linear = samples.astype(np.int64) >> 2  # 14 bits
    biased = np.minimum(np.abs(linear) + _ULAW_BIAS, _ULAW_ENDS[-1])  # what is louder is clipped
    segment = np.searchsorted(_ULAW_ENDS, biased)
    code = segment << 4 | (biased >> (segment + 1) & 0xF)
    # All bits are sent inverted; the sign is the first.
    inverted: NDArray[np.int64] = code ^ np.where(linear < 0, 0x7F, 0xFF)
    return inverted


def _alaw(samples: NDArray[np.int16]) -> NDArray[np.int64]:
    linear = samples.astype(np.int64) >> 3  # 13 bits
    size = np.where(linear < 0, -linear - 1, linear)
    segment = np.searchsorted(_ALAW_ENDS, size)
    code = segment << 4 | (size >> np.maximum(segment, 1) & 0xF)  # the first two segments have the same step
    inverted: NDArray[np.int64] = code ^ np.where(linear < 0, _ALAW_EVEN_BITS, _ALAW_EVEN_BITS | 0x80)
    return inverted


def _ulaw_table() -> NDArray[np.int16]:
    code = ~np.arange(256) & 0xFF
    size = (((code & 0xF) << 3) + 4 * _ULAW_BIAS << (code >> 4 & 7)) - 4 * _ULAW_BIAS
    samples: NDArray[np.int16] = np.where(code & 0x80, -size, size).astype(np.int16)
    return samples


def _alaw_table() -> NDArray[np.int16]:
    code = np.arange(256) ^ _ALAW_EVEN_BITS
    segment = code >> 4 & 7
    size = ((code & 0xF) << 4) + np.where(segment, 0x108, 8) << np.maximum(segment - 1, 0)
    samples: NDArray[np.int16] = np.where(code & 0x80, size, -size).astype(np.int16)
    return samples


_DECODED = {"ulaw": _ulaw_table(), "alaw": _alaw_table()}
