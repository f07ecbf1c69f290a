"""Sound for a client: samples in as they are made, the bytes of a file out as soon as they are certain.

A stream can be played while it arrives: a WAV header without a length, FLAC, MP3 and Opus as libsndfile writes them,
AAC as ffmpeg does. A sound that is sent whole has a header with its true length. The names of formats are OpenAI's.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxrill.runtime.audio.ffmpeg import AacEncoder, FfmpegFailed, has_ffmpeg
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.sound_writer import ENCODINGS, WRITABLE, encoded_sound, wav_header
from voxrill.runtime.serve.api_errors import ApiError

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """Encodes one sound, piece by piece."""

    def push(self, samples: Floats) -> bytes:
        """Take the next samples (n,); returns the bytes that are certain by now."""

    def finish(self) -> bytes:
        """End the sound; returns the bytes that are left."""

    def close(self) -> None:
        """The encoder is not needed any more, whether the sound was ended or not."""


class _Raw:
    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def push(self, samples: Floats) -> bytes:
        header, self._header = self._header, b""
        return header + pcm16(samples).tobytes()

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def close(self) -> None:
        """Nothing is open."""


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

    def close(self) -> None:
        """The sound is closed when nothing refers to it any more: another thread may be writing to it."""

    def _new(self) -> bytes:
        new = self._bytes.getvalue()[self._sent :]
        self._sent += len(new)
        return new


class _Aac:
    def __init__(self, rate: int) -> None:
        with _by_ffmpeg():
            self._encoder = AacEncoder(rate)

    def push(self, samples: Floats) -> bytes:
        with _by_ffmpeg():
            return self._encoder.push(samples)

    def finish(self) -> bytes:
        with _by_ffmpeg():
            return self._encoder.finish()

    def close(self) -> None:
        self._encoder.close()


@contextmanager
def _by_ffmpeg() -> Iterator[None]:
    try:
        yield
    except FfmpegFailed:
        raise ApiError(500, "ffmpeg failed to encode AAC. Ask for mp3.", "ffmpeg_failed", kind="server_error") from None


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
    "aac": ("audio/aac", _Aac),
}


def check_format(name: str, param: str) -> None:
    """Raise ApiError if this server cannot write one of `FORMATS`."""
    if name == "aac" and not has_ffmpeg():
        message = "AAC needs ffmpeg, which this server does not have on PATH. Install ffmpeg there, or ask for mp3."
        raise ApiError(400, message, "invalid_format", param)


def whole_sound(name: str, pieces: list[Floats], rate: int) -> bytes:
    """A whole sound in one of `FORMATS`. This may take long: 0.3 s for a minute of MP3."""
    samples = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    if name in WRITABLE:
        return encoded_sound(name, samples, rate)
    with closing(FORMATS[name][1](rate)) as encoder:  # without a header: a whole sound is as a streamed one
        return encoder.push(samples) + encoder.finish()
