"""Whatever a caller calls sound, to what the model hears: mono float32 at 16 kHz.

In: a file by its path, its bytes or itself; samples with their rate; or the pieces of a sound as they come. Out:
waveforms `[samples]`. Samples without a rate are refused: a wrong guess would make a sound that nobody understands.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxrill.runtime.audio.audio_file import (
    CANCELLED,
    REMEDY_EMPTY,
    SAMPLE_RATE,
    AudioPath,
    Waveform,
    check_finite,
    check_rate,
    read_audio,
    read_pieces,
)
from voxrill.runtime.audio.mixing import ChannelMixer
from voxrill.runtime.audio.pcm import PcmJoiner
from voxrill.runtime.audio.sinc_resampler import SincResampler, resample
from voxrill.runtime.errors import AudioFileError, UsageError, VoxrillWarning

SoundBytes = bytes | bytearray | memoryview
"""A sound file's bytes; or, as a piece of a sound, its samples."""

SoundArray = NDArray[Any]
"""Samples `[samples]` or `[samples, channels]`: floats (full scale ±1), int8, int16, int32 or uint8."""

AudioSource = AudioPath | SoundBytes | BinaryIO | SoundArray | tuple[SoundArray, int] | Mapping[str, Any]
"""A sound: a path, a file's bytes, a file that is open for reading bytes, an array, an array with its sample rate in
Hz, or `{"array": ..., "sampling_rate": ...}` as the package datasets gives it."""

SoundPiece = SoundArray | SoundBytes
"""A piece of a sound that comes bit by bit: an array, or the bytes of its samples."""

_MAX_CHANNELS = 32  # an array with more "channels" is taken to be transposed

_LOUDEST = 16.0
"""A sample of floats beyond this is no sound of full scale ±1: integers were made floats without being scaled. Sound
that was made too loud by mistake stays below it."""

_ZEROS = {"i1": 0.0, "i2": 0.0, "i4": 0.0, "u1": 128.0}
"""Types of whole numbers that are taken, and what silence is in them."""

_KINDS = "[samples] or [samples, channels]"


class SoundFileBytes(io.BytesIO):
    """The bytes of a sound file, as an open file."""

    name = "the sound's bytes"


def is_file(audio: object) -> TypeGuard[AudioPath | SoundBytes | BinaryIO]:
    """Whether a sound is a file: its path, its bytes, or itself. Then it brings its own sample rate."""
    return isinstance(audio, str | os.PathLike | SoundBytes) or hasattr(audio, "read")


def opened(audio: AudioPath | SoundBytes | BinaryIO) -> AudioPath | BinaryIO:
    """A file as `read_audio` takes it."""
    return SoundFileBytes(audio) if isinstance(audio, SoundBytes) else audio


def as_waveform(audio: AudioSource, sample_rate: int | None = None) -> Waveform:
    """Bring whatever a caller calls sound to 16 kHz mono.

    Args:
        audio: see `AudioSource`. Channels are mixed.
        sample_rate: Hz of an array. A file, a pair and a mapping bring their own.

    Returns:
        `[samples]` float32 at 16 kHz; may share memory with the array handed in.

    Raises:
        AudioFileError: as for `read_audio`, and for arrays of another shape or type.
        UsageError: a sample rate that is missing, is not a positive whole number, or stands beside a sound that has its
            own.
    """
    if is_file(audio):
        _check_no_rate(sample_rate)
        return read_audio(opened(audio))
    samples, rate = _samples_and_rate(audio, sample_rate)
    mono = _mono(_as_float(samples, "The array"))
    check_rate(rate)
    if mono.size == 0:
        raise AudioFileError("The array holds no samples", REMEDY_EMPTY)
    check_finite(mono, "The array")
    waveform = resample(mono, rate, SAMPLE_RATE)
    if waveform.size == 0:
        raise AudioFileError("The array is shorter than one sample at 16 kHz", REMEDY_EMPTY)
    return waveform


def pieces_of(
    sound: AudioSource | Iterable[SoundPiece], sample_rate: int | None = None, dtype: DTypeLike | None = None
) -> Iterator[Waveform]:
    """Any sound as pieces `[samples]` at 16 kHz. A file is never held whole.

    Args:
        sound: see `AudioSource`; or an iterable of pieces, all of them of one rate, type and number of channels.
        sample_rate: Hz of an array or of pieces.
        dtype: the type of the samples of pieces; needed where they are bytes, as "int16".

    Raises:
        AudioFileError: it cannot be read, or is not usable sound.
        UsageError: what must be known of its samples is missing, or does not fit them.
    """
    if is_file(sound):
        _check_no_rate(sample_rate)
        _check_no_dtype(dtype)
        return read_pieces(opened(sound))
    if isinstance(sound, tuple) or hasattr(sound, "__array__") or _is_mapping(sound):
        _check_no_dtype(dtype)
        return iter([as_waveform(cast("AudioSource", sound), sample_rate)])
    if isinstance(sound, AsyncIterable):
        raise UsageError("The pieces of this sound must be awaited", "Give an iterable that is not asynchronous")
    if not isinstance(sound, Iterable):
        raise _not_understood(sound)
    return _read(cast("Iterable[SoundPiece]", sound), PieceReader(sample_rate, dtype))


def _read(pieces: Iterable[SoundPiece], reader: PieceReader) -> Iterator[Waveform]:
    for piece in pieces:
        yield reader(piece)
    yield reader.rest()


class PieceReader:
    """Brings the pieces of one sound to 16 kHz mono, as they come.

    Args:
        sample_rate: Hz.
        dtype: the type of the samples: a float, "int16", "int32", "int8" or "uint8". None for that of the first piece,
            which must be an array then.

    Raises:
        UsageError: the rate is missing or senseless, or there is no such type.
    """

    def __init__(self, sample_rate: int | None, dtype: DTypeLike | None = None) -> None:
        if sample_rate is None:
            raise UsageError("The pieces have no sample rate", "Give it in Hz: sample_rate=16000")
        check_rate(sample_rate)
        self._dtype = None if dtype is None else _known_dtype(dtype)
        self._resampler = SincResampler(sample_rate, SAMPLE_RATE)
        self._mix = ChannelMixer()
        self._channels: int | None = None
        self._joiner: PcmJoiner | None = None

    def __call__(self, piece: SoundPiece) -> Waveform:
        """The next piece, as far as it is certain: `[samples]`, perhaps none.

        Raises:
            AudioFileError: it is not usable sound.
            UsageError: it is of another type or number of channels than the pieces before it, or than was declared.
        """
        samples = self._array(piece)
        self._check_same(samples)
        mono = _mono(_as_float(samples, "A piece"), self._mix)
        check_finite(mono, "A piece")
        return self._resampler(mono) if len(mono) else mono

    def rest(self) -> Waveform:
        """The sound is over: what was held back, `[samples]`."""
        if self._joiner is not None and self._joiner.waiting:
            warnings.warn(
                f"The last {self._joiner.waiting} bytes are no whole sample: they are left out",
                VoxrillWarning,
                stacklevel=3,
            )
        if self._mix.cancelled:
            warnings.warn(f"The pieces: {CANCELLED}", VoxrillWarning, stacklevel=3)
        return self._resampler.rest()

    def _array(self, piece: SoundPiece) -> SoundArray:
        if not isinstance(piece, SoundBytes):
            if not isinstance(piece, np.ndarray):
                raise AudioFileError(
                    f"A piece of type {type(piece).__name__} is not understood", "Give numpy arrays, or bytes"
                )
            return piece
        if self._dtype is None:
            raise UsageError("The samples of these bytes have no type", 'Give it: dtype="int16"')
        if self._joiner is None:
            self._joiner = PcmJoiner(self._dtype.itemsize)
        return np.frombuffer(self._joiner(bytes(piece)), self._dtype.newbyteorder("<"))

    def _check_same(self, samples: SoundArray) -> None:
        """Refuse a piece that does not go on where the piece before ended."""
        channels = samples.shape[1] if samples.ndim == 2 else 1
        dtype = samples.dtype.newbyteorder("=")
        self._dtype, self._channels = self._dtype or dtype, self._channels or channels
        if dtype != self._dtype:
            raise UsageError(
                f"A piece holds {dtype}, and the sound is {self._dtype}", f"Convert it: piece.astype({str(dtype)!r})"
            )
        if channels != self._channels:
            raise UsageError(
                f"A piece has {channels} channels, and the first one had {self._channels}",
                "Give pieces that have the same number of channels",
            )


def _check_no_rate(sample_rate: int | None) -> None:
    if sample_rate is not None:
        raise UsageError(
            "This sound brings its own sample rate",
            "Leave sample_rate out; for raw samples give an array: numpy.frombuffer(data, 'int16')",
        )


def _check_no_dtype(dtype: DTypeLike | None) -> None:
    if dtype is not None:
        raise UsageError("This sound brings its own type of samples", "Leave dtype out; it is for pieces of bytes")


def _samples_and_rate(audio: object, sample_rate: int | None) -> tuple[Any, Any]:
    if isinstance(audio, tuple) and len(audio) == 2:
        _check_no_rate(sample_rate)
        return audio
    if _is_mapping(audio):
        _check_no_rate(sample_rate)
        return _from_mapping(audio)
    if not hasattr(audio, "__array__"):
        raise _not_understood(audio)
    if sample_rate is None:
        raise UsageError("The array has no sample rate", "Give it in Hz: sample_rate=16000")
    return np.asarray(audio), sample_rate


def _is_mapping(audio: object) -> bool:
    """Whether it is a dict, or an object that is read as one, as the decoders of the package datasets are."""
    others = isinstance(audio, tuple | list | str) or hasattr(audio, "__array__")
    return hasattr(audio, "__getitem__") and not others


def _from_mapping(audio: Any) -> tuple[Any, Any]:
    try:
        samples, rate = audio["array"], audio["sampling_rate"]
    except (KeyError, TypeError, IndexError):
        raise AudioFileError(
            "This mapping is not understood as sound", 'Give {"array": samples, "sampling_rate": 16000}'
        ) from None
    return np.asarray(samples), rate


def _not_understood(audio: object) -> AudioFileError:
    return AudioFileError(
        f"Sound of type {type(audio).__name__} is not understood",
        "Give a path, a file's bytes, an open file, or a numpy array with sample_rate=16000",
    )


def _known_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise UsageError(f"There is no type of samples {dtype!r}", 'Give one such as "int16" or "float32"') from None
    if not _is_sound(found):
        raise UsageError(f"Samples of type {found} are not understood", 'Give one such as "int16" or "float32"')
    return found


def _is_sound(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or f"{dtype.kind}{dtype.itemsize}" in _ZEROS


def _as_float(samples: object, name: str) -> Waveform:
    """The array as float32 with full scale ±1."""
    if not isinstance(samples, np.ndarray):
        raise _not_understood(samples)
    if not _is_sound(samples.dtype):
        raise AudioFileError(
            f"{name} holds {samples.dtype}, which is not understood as sound",
            "Convert it to float32 (full scale ±1) or int16",
        )
    if samples.dtype.kind != "f":
        zero = _ZEROS[f"{samples.dtype.kind}{samples.dtype.itemsize}"]
        full = np.float32(2 ** (8 * samples.dtype.itemsize - 1))
        return (samples.astype(np.float32) - np.float32(zero)) / full
    with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which is refused next
        floats = samples.astype(np.float32, copy=False)
    if samples.size and np.isfinite(floats).all() and np.abs(floats).max() > _LOUDEST:
        raise AudioFileError(
            f"{name} holds floats of up to {np.abs(floats).max():.0f}, and the loudest sound is 1",
            "Give the integers themselves, or divide by their full scale: samples / 32768",
        )
    return floats


def _mono(samples: Waveform, mix: ChannelMixer | None = None) -> Waveform:
    """`[samples]` or `[samples, channels]` to `[samples]`. Without `mix`, channels that cancel each other are told."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioFileError(f"Sound of shape {samples.shape} is not understood", f"Give {_KINDS}")
    if samples.shape[1] > _MAX_CHANNELS:
        raise AudioFileError(f"Sound of shape {samples.shape} looks like [channels, samples]", "Transpose it: audio.T")
    mixer = mix or ChannelMixer()
    mono = mixer(samples)
    if mix is None and mixer.cancelled:
        warnings.warn(f"The array: {CANCELLED}", VoxrillWarning, stacklevel=3)
    return mono
