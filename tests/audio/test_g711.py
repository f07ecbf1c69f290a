"""G.711 against the numbers of its recommendation, and against Python's own implementation where there is one."""

import warnings

import numpy as np
import pytest

from voxrill.runtime.audio.g711 import decode, encode

EVERY = np.arange(-32768, 32768).astype(np.int16)
BYTES = bytes(range(256))


@pytest.mark.parametrize(
    ("law", "code", "sample"),
    [
        ("ulaw", 0xFF, 0),
        ("ulaw", 0x00, -32124),
        ("ulaw", 0x80, 32124),
        ("ulaw", 0xF0, 120),
        ("ulaw", 0xEF, 132),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x2A, -32256),
    ],
)
def test_published_values(law, code, sample):
    """The ends of the scale, silence, and the first step of a segment."""
    assert decode(bytes([code]), law).tolist() == [sample]
    assert encode(np.array([sample], np.int16), law) == bytes([code])


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_every_code_comes_back(law):
    codes = [code for code in BYTES if (law, code) != ("ulaw", 0x7F)]  # mu-law has a second zero
    assert encode(decode(bytes(codes), law), law) == bytes(codes)


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_the_error_stays_small_beside_the_sample(law):
    """Half a step of a segment: a thirty-second of the sample and mu-law's bias, and what 14 or 13 bits lose."""
    size = np.abs(EVERY.astype(int))
    error = np.abs(decode(encode(EVERY, law), law).astype(int) - EVERY)
    assert (error <= (size + 132) / 32 + 8)[size <= 32124].all()


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_as_python_s_own(law):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="Python 3.13 has no audioop")
    lin2, back = (audioop.lin2ulaw, audioop.ulaw2lin) if law == "ulaw" else (audioop.lin2alaw, audioop.alaw2lin)
    assert encode(EVERY, law) == lin2(EVERY.tobytes(), 2)
    assert decode(BYTES, law).tobytes() == back(BYTES, 2)
