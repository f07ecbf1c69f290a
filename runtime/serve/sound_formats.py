"""Sound for a client: samples in as they are made, the bytes of a file out as soon as they are certain.

A stream can be played while it arrives: a WAV header without a length, and FLAC, MP3 and Opus as libsndfile writes
them. A sound that is sent whole has a header with its true length. The names of formats are OpenAI's.
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
    """Encodes one sound, piece by piece."""

    def push(self, samples: Floats) -> bytes:
        """Take the next samples (n,); returns the bytes that are certain by now."""

    def finish(self) -> bytes:
        """End the sound; returns the bytes that are left."""


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
    """The bytes that libsndfile writes at first. It would correct the header at the end, but that is sent by then."""

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
"""A constant rate, which needs both options. Without a length in the header, readers derive it from the first frame."""

Format = tuple[str, Callable[[int], Encoder]]
"""The media type, and a function that makes an encoder for a sample rate in Hz."""

FORMATS: dict[str, Format] = {
    "wav": ("audio/wav", lambda rate: _Raw(wav_header(rate, None))),
    "pcm": ("audio/pcm", lambda _rate: _Raw()),
    "flac": ("audio/flac", lambda rate: _Compressed(rate, "flac")),
    "mp3": ("audio/mpeg", lambda rate: _Compressed(rate, "mp3", **_MP3)),
    "opus": ("audio/ogg", lambda rate: _Compressed(rate, "opus")),
}


def whole_sound(name: str, pieces: list[Floats], rate: int) -> bytes:
    """A whole sound in one of `FORMATS`. This may take long: 0.3 s for a minute of MP3."""
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    return pcm16(samples).tobytes() if name == "pcm" else encoded_sound(name, samples, rate)
