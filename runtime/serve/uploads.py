"""Sound that a client sent: bytes in, a waveform out, within limits. On Linux nothing of it is written to disk.

Every kind that a command reads can be read: `sound_kinds` has the list. A sound that is shorter than its header
promises was cut off on its way, and is refused. A header without a length, as programs write it to a pipe, promises
nothing.
"""

from __future__ import annotations

import base64
import binascii
import io

import soundfile

from voxrill.runtime.audio.audio_file import OpenSound, Waveform, open_sound
from voxrill.runtime.errors import AudioFileError
from voxrill.runtime.serve.api_errors import ApiError

_SHORT = 0.1
"""Seconds by which a sound may be shorter than its header says: many programs count a few samples too many."""

_MOST_CHANNELS = 8
"""Channels of a sound: 7.1. A block of 1024 channels, which a header may claim, takes 268 MB."""

_STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the URL-safe digits of base64 to the usual ones."""

_DATA_URL = 256
"""Characters in which the beginning of a data URL ends, media type included."""

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
    try:
        with open_sound(io.BytesIO(body), longest) as sound:
            sound.limit(min(longest, _decodable(sound, most, param)))
            waveform = sound.waveform()
    except AudioFileError as error:
        raise ApiError(400, _named(error), "invalid_audio", param) from None
    # numpy, soxr and soundfile raise these for a header whose numbers make no sense
    except (MemoryError, ValueError, RuntimeError, OverflowError, soundfile.SoundFileError):
        raise ApiError(400, "This sound cannot be decoded. Send 16-bit WAV.", "invalid_audio", param) from None
    if sound.missing > _SHORT or sound.damaged:
        raise ApiError(400, _CUT_OFF, "invalid_audio", param)
    return waveform


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
