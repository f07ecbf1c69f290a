"""Sound that a client sent: bytes in, a waveform out, within limits. Nothing of it is written to disk, or executed.

Only four containers are opened, known by how they begin. A sound that is shorter than its header promises was cut off
on its way, and is refused; a header without a length (what programs write to a pipe) promises nothing.
"""

from __future__ import annotations

import base64
import binascii
import io
import math

import soundfile

from voxrill.runtime.audio.audio_file import SAMPLE_RATE, Waveform, read_audio
from voxrill.runtime.errors import AudioFileError
from voxrill.runtime.serve.api_errors import ApiError

_UNKNOWN_LENGTH = 0x7FFF0000
"""Bytes of a WAV file's data from which the number stands for "as long as it lasts": ffmpeg, sox and OpenAI differ."""

_SHORT = 0.1
"""Seconds by which a decoded FLAC file may differ from its header's length: more than resampling makes of it."""

_MOST_CHANNELS = 8
"""Channels of a sound: 7.1. A block of 1024 channels, which a header may claim, takes 268 MB."""

_WAV, _FLAC = b"RIFF", b"fLaC"
_BEGINNINGS = (_WAV, _FLAC, b"OggS", b"ID3", *(b"\xff" + second for second in (b"\xfa", b"\xfb", b"\xf2", b"\xf3")))

_CUT_OFF = "The sound is shorter than its header says: it was cut off on its way. Send all of it."


def from_base64(text: str, param: str) -> bytes:
    """The bytes of base64 text.

    Raises:
        ApiError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "This is not base64. Encode the sound's bytes with it.", "invalid_base64", param) from None


def decode(body: bytes, longest: float, most: int, param: str) -> Waveform:
    """The sound (samples,) at 16 kHz in the bytes of a file.

    Args:
        body: WAV, FLAC, OGG or MP3.
        longest: seconds it may last.
        most: samples of all channels that may be decoded.
        param: which part of the request it is.

    Raises:
        ApiError: it is not such a file, cut off, damaged, empty or too long.
    """
    if not body.startswith(_BEGINNINGS):
        raise ApiError(400, "This is not sound that we can read. Send WAV, FLAC, OGG or MP3.", "invalid_audio", param)
    if body.startswith(_WAV) and _is_cut_off(body):
        raise ApiError(400, _CUT_OFF, "invalid_audio", param)
    try:
        waveform = read_audio(io.BytesIO(body), longest=min(longest, _decodable(body, most, param)))
        promised = _flac_seconds(body) if body.startswith(_FLAC) else 0.0
    except AudioFileError as error:
        raise ApiError(400, _named(error), "invalid_audio", param) from None
    # MemoryError and the like: what numpy, soxr and soundfile make of numbers that no sound has
    except (MemoryError, ValueError, RuntimeError, OverflowError, soundfile.SoundFileError):
        raise ApiError(400, "This sound cannot be decoded. Send 16-bit WAV.", "invalid_audio", param) from None
    if len(waveform) / SAMPLE_RATE < promised - _SHORT:
        raise ApiError(400, _CUT_OFF, "invalid_audio", param)
    return waveform


def _decodable(body: bytes, most: int, param: str) -> float:
    """Seconds of a file that hold at most `most` samples, all channels counted.

    A second of eight channels at 655 kHz is 55 times the work of one in 48 kHz stereo, and may compress to nothing.

    Raises:
        ApiError: its header promises more samples, or too many channels.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as sound:
            channels, rate, seconds = sound.channels, sound.samplerate, sound.frames / sound.samplerate
    except (soundfile.SoundFileError, ZeroDivisionError):
        return math.inf  # reading it says what is wrong with it
    decodable: float = most / (channels * rate)
    unknown = seconds > _UNKNOWN_LENGTH  # a stream's header has no length: the limit holds while it is decoded
    if channels > _MOST_CHANNELS or (seconds > decodable and not unknown):
        raise ApiError(
            400,
            f"The sound has {channels} channels at {rate} Hz: too much to decode. Send 16 kHz mono.",
            "sound_too_large",
            param,
        )
    return decodable


def _named(error: AudioFileError) -> str:
    """The error's words about a file that has no name."""
    return str(error).replace("the open file", "The sound")


def _is_cut_off(wav: bytes) -> bool:
    """Whether a chunk of a WAV file promises more than there is."""
    at = 12
    while at + 8 <= len(wav):
        name, size = wav[at : at + 4], int.from_bytes(wav[at + 4 : at + 8], "little")
        if name == b"data":
            return size < _UNKNOWN_LENGTH and at + 8 + size > len(wav)
        at += 8 + size + size % 2
    return True


def _flac_seconds(body: bytes) -> float:
    """How long a FLAC file says it is; 0 if it does not say."""
    with soundfile.SoundFile(io.BytesIO(body)) as sound:
        seconds = sound.frames / sound.samplerate
    return 0.0 if seconds > _UNKNOWN_LENGTH else float(seconds)
