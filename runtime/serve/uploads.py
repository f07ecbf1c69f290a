"""Sound that a client sent: bytes in, a waveform or its stretches with speech out, within limits.

A sound in a chat's message is held in memory. A file to transcribe lies on disk, unless it is small, and is read piece
by piece.

Every kind that a command reads can be read: `sound_kinds` has the list. A sound that is shorter than its header
promises was cut off on its way, and is refused. A header without a length, as programs write it to a pipe, promises
nothing.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import soundfile

from voxrill.runtime.audio.audio_file import SPLIT, OpenSound, Waveform, open_sound
from voxrill.runtime.audio.segments import Span, spans_of
from voxrill.runtime.errors import AudioFileError
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.limits import Limits

_SHORT = 0.1
"""Seconds by which a sound may be shorter than its header says: many programs count a few samples too many."""

_MOST_CHANNELS = 8
"""Channels of a sound: 7.1. A block of 1024 channels, which a header may claim, takes 268 MB."""

_STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the URL-safe digits of base64 to the usual ones."""

_DATA_URL = 256
"""Characters in which the beginning of a data URL ends, media type included."""

_LONGER = " Or start the server with a larger --max-audio-seconds."

_CUT_OFF = "The sound is damaged, or shorter than its header says: it was cut off on its way. Send all of it."


def from_base64(text: str, param: str) -> bytes:
    """The bytes of base64 text, as clients write it: with line breaks, without padding, URL-safe, or as a data URL.

    Raises:
        ApiError: it is not base64.
    """
    try:
        digits = _digits(text).encode("ascii").translate(_STANDARD, b" \t\r\n").rstrip(b"=")
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "This is not base64. Encode the sound's bytes with it.", "invalid_base64", param) from None


def _digits(text: str) -> str:
    """The base64 digits of a text: all of it, or what follows `data:audio/wav;base64,`."""
    head, comma, rest = text[:_DATA_URL].partition(",")
    if not comma or not head.strip().casefold().startswith("data:") or not head.casefold().endswith(";base64"):
        return text
    return rest + text[_DATA_URL:]


def decode(body: bytes, longest: float, most: int, param: str) -> Waveform:
    """The sound (samples,) at 16 kHz in the bytes of a file.

    Args:
        body: a file of any kind that can be read.
        longest: seconds it may last.
        most: samples of all channels that may be decoded.
        param: which part of the request it is.

    Raises:
        ApiError: it is no sound, or cut off, damaged, empty or too long.
    """
    with _refusals(param), _opened(io.BytesIO(body), longest, most, param) as sound:
        waveform = sound.waveform()
        _check_end(sound, param)
    return waveform


def heard(file: BinaryIO, limits: Limits, segment: float, param: str) -> Generator[float | Span | None]:
    """An uploaded sound, a little at a step: first how many seconds it lasts, then the stretches with speech.

    All of the file is decoded once before any of it is heard, so that a sound that cannot be used is refused at once.
    It is decoded again while it is heard, so that no more than a stretch of it is held. A step takes milliseconds.

    Args:
        file: of any kind that can be read.
        limits: `recording` and `recording_samples` of them.
        segment: seconds after which a stretch is cut.
        param: which part of the request it is.

    Raises:
        ApiError: as for `decode`.
    """
    longest, most = limits.recording, limits.recording_samples
    samples = 0
    with _refusals(param, _LONGER), _opened(file, longest, most, param) as sound:
        for piece in sound.pieces(sound.rate):  # at its own rate: resampling would be for nothing
            samples += len(piece)
            yield None
        _check_end(sound, param)
    yield samples / sound.rate
    file.seek(0)
    yield from spans_of(_pieces(file, longest, param), segment)


def _pieces(file: BinaryIO, longest: float, param: str) -> Iterator[Waveform]:
    """A sound that was checked before, in pieces at 16 kHz."""
    with _refusals(param), open_sound(file, longest) as sound:
        yield from sound.pieces()


@contextmanager
def _opened(file: BinaryIO, longest: float, most: int, param: str) -> Iterator[OpenSound]:
    """A sound within its limits."""
    with open_sound(file, longest) as sound:
        sound.limit(min(longest, _decodable(sound, most, param)))
        yield sound


def _check_end(sound: OpenSound, param: str) -> None:
    """Raise ApiError if a sound that was read to its end is not whole."""
    if sound.missing > _SHORT or sound.damaged:
        raise ApiError(400, _CUT_OFF, "invalid_audio", param)


@contextmanager
def _refusals(param: str, longer: str = "") -> Iterator[None]:
    """What is wrong with a sound, as a refusal. longer: a further remedy for a sound that is too long."""
    try:
        yield
    except AudioFileError as error:
        remedy = longer if error.remedy == SPLIT else ""
        raise ApiError(400, f"{_named(error)}{remedy}", "invalid_audio", param) from None
    # numpy, soxr and soundfile raise these for a header whose numbers make no sense
    except (MemoryError, ValueError, RuntimeError, OverflowError, soundfile.SoundFileError):
        raise ApiError(400, "This sound cannot be decoded. Send 16-bit WAV.", "invalid_audio", param) from None


def _decodable(sound: OpenSound, most: int, param: str) -> float:
    """Seconds of a file that hold at most `most` samples, all channels counted.

    A second of eight channels at 655 kHz is 55 times the work of one in 48 kHz stereo, and may compress to nothing.

    Raises:
        ApiError: its header promises more samples, or too many channels.
    """
    decodable = most / (sound.channels * sound.rate)
    if sound.channels > _MOST_CHANNELS or sound.seconds > decodable:
        raise ApiError(
            400,
            f"The sound has {sound.channels} channels at {sound.rate} Hz: too much to decode. Send 16 kHz mono.",
            "sound_too_large",
            param,
        )
    return decodable  # a stream's header has no length: the limit holds while it is decoded


def _named(error: AudioFileError) -> str:
    """The message of an error about a file without a name."""
    return str(error).replace("the open file", "The sound")
