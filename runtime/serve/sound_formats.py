"""Sound that a client asked for: samples in as they are made, bytes of a file out as soon as they are certain.

What is streamed can be played while it comes: a WAV header without a length, and FLAC, MP3 and Opus as libsndfile
writes them. What is sent whole has a header with its true length. A format's name is OpenAI's.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.sound_writer import ENCODINGS, encoded_sound, wav_header

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """One sound on its way out."""

    def push(self, samples: Floats) -> bytes:
        """The next samples (n,) in; the bytes out that are certain."""

    def finish(self) -> bytes:
        """What is left at the sound's end."""


class _Raw:
    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def push(self, samples: Floats) -> bytes:
        header, self._header = self._header, b""
        return header + pcm16(samples).tobytes()

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header


class _Compressed:
    """What libsndfile writes, without what it would go back to write again: the length in the header stays unknown."""

    def __init__(self, rate: int, form: str, **how: Any) -> None:
        container, subtype = ENCODINGS[form]
        self._bytes = io.BytesIO()
        self._sound = soundfile.SoundFile(self._bytes, "w", rate, 1, format=container, subtype=subtype, **how)
        self._sent = 0

    def push(self, samples: Floats) -> bytes:
        self._sound.write(samples)
        self._sound.flush()
        return self._new()

    def finish(self) -> bytes:
        self._sound.close()
        return self._new()

    def _new(self) -> bytes:
        new = self._bytes.getvalue()[self._sent :]
        self._sent += len(new)
        return new


_MP3 = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
"""A constant rate (it takes both): without a length in the header, readers work it out from the first frame."""

Format = tuple[str, Callable[[int], Encoder]]
"""Its media type, and what makes an encoder for a sample rate in Hz."""

FORMATS: dict[str, Format] = {
    "wav": ("audio/wav", lambda rate: _Raw(wav_header(rate, None))),
    "pcm": ("audio/pcm", lambda _rate: _Raw()),
    "flac": ("audio/flac", lambda rate: _Compressed(rate, "flac")),
    "mp3": ("audio/mpeg", lambda rate: _Compressed(rate, "mp3", **_MP3)),
    "opus": ("audio/ogg", lambda rate: _Compressed(rate, "opus")),
}


def whole_sound(name: str, pieces: list[Floats], rate: int) -> bytes:
    """All of a sound at once in one of `FORMATS`. It may take long: a minute of MP3 is encoded in some 0.3 s."""
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    return pcm16(samples).tobytes() if name == "pcm" else encoded_sound(name, samples, rate)
