"""Sound files and arrays in, mono float32 waveforms out; and waveforms back into WAV files.

Everything a user may hand to Voxrill as sound passes `read_audio` or `as_waveform`, so that the rest of the
runtime meets one kind of array only: float32, mono, `[samples]`, finite, not empty. Files are decoded and
resampled block by block: a three-hour recording never holds more than its own 16 kHz copy. WAV files are
written beside their final name and renamed once whole, so no reader ever finds half a file.
"""

import math
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from voxrill.runtime.errors import AudioFileError, UsageError

__all__ = [
    "SAMPLE_RATE",
    "SOUND_FILES",
    "AudioSource",
    "WavWriter",
    "as_waveform",
    "pcm16",
    "promised_seconds",
    "read_audio",
    "read_pieces",
    "resample",
    "wav_header",
    "write_wav",
]

SAMPLE_RATE = 16000  # Hz: what the audio encoder hears
SOUND_FILES = (".wav", ".flac", ".ogg", ".mp3")  # what is looked for in a folder

AudioPath = str | os.PathLike[str]
AudioSource = AudioPath | NDArray[Any] | tuple[NDArray[Any], int]
Waveform = NDArray[np.float32]

_BLOCK_FRAMES = 1 << 16  # frames decoded at once: 1.4 s at 48 kHz
_MAX_HINT_SECONDS = 24 * 3600  # a header that claims more is not believed when room is reserved
_MAX_CHANNELS = 32  # an array with more "channels" is taken to be transposed
_NO_LENGTH = 2**32 - 1  # what programs write into a WAV header that goes into a pipe
_MAX_WAV_BYTES = _NO_LENGTH - 36  # RIFF counts its bytes in 32 bits

_REMEDY_FORMAT = "Give a WAV, FLAC, OGG or MP3 file, or convert it first: ffmpeg -i INPUT output.wav"
_REMEDY_EMPTY = "Record or choose a sound that is not empty"
_REMEDY_NOT_FINITE = "Re-record or repair it"


def read_audio(
    path_or_file: AudioPath | BinaryIO, sample_rate: int = SAMPLE_RATE, longest: float = math.inf
) -> Waveform:
    """Decode a sound file, average its channels and resample it.

    Args:
        path_or_file: a path, or a seekable file open for reading bytes; WAV, FLAC, OGG, MP3 and whatever else
            the installed libsndfile knows.
        sample_rate: Hz of the waveform returned.
        longest: seconds above which a sound is refused, before it is decoded or as soon as it turns out so.

    Returns:
        `[samples]` float32, full scale ±1.

    Raises:
        AudioFileError: the file is missing, a directory, empty, not a sound file, damaged, too long, or holds
            no samples or NaN or infinite ones.
        UsageError: a sample rate that is not a positive whole number.
    """
    _check_rate(sample_rate)
    with _opened(path_or_file) as (sound, name):
        blocks = _no_longer(_mono_blocks(sound, name), sound, longest, name)
        waveform = _collect(blocks, sound.samplerate, sample_rate, sound.frames, name)
    if waveform.size == 0:
        raise AudioFileError(f"{name} holds no samples", _REMEDY_EMPTY)
    return waveform


def read_pieces(path_or_file: AudioPath | BinaryIO, sample_rate: int = SAMPLE_RATE) -> Iterator[Waveform]:
    """As `read_audio`, but piece by piece, so that the sound may be longer than memory.

    Yields:
        `[samples]` float32, about a second each, which joined together are what `read_audio` returns.
    """
    _check_rate(sample_rate)
    with _opened(path_or_file) as (sound, name):
        empty = True
        for piece in _resampled(_mono_blocks(sound, name), sound.samplerate, sample_rate):
            empty = empty and piece.size == 0
            yield piece
    if empty:
        raise AudioFileError(f"{name} holds no samples", _REMEDY_EMPTY)


def promised_seconds(path: AudioPath) -> float:
    """How long a sound file's header says it is; it may lie.

    Raises:
        AudioFileError: as for `read_audio`.
    """
    with _opened(path) as (sound, _name):
        return float(sound.frames / sound.samplerate)


def as_waveform(audio: AudioSource, sample_rate: int | None = None) -> Waveform:
    """Bring whatever a user calls sound to 16 kHz mono.

    Args:
        audio: a path; or an array `[samples]` or `[samples, channels]`, floating (full scale ±1), int16 or
            int32; or such an array with its sample rate in Hz, `(array, rate)`.
        sample_rate: Hz of a bare array, 16000 when left out. A path or a pair brings its own.

    Returns:
        `[samples]` float32 at 16 kHz; may share memory with the array handed in.

    Raises:
        AudioFileError: as for `read_audio`, and for arrays of another shape or type.
        UsageError: a sample rate that is not a positive whole number, or one beside a source that has its
            own.
    """
    if isinstance(audio, str | os.PathLike | tuple) and sample_rate is not None:
        raise UsageError("This sound brings its own sample rate", "Leave sample_rate out")
    if isinstance(audio, str | os.PathLike):
        return read_audio(audio)
    bare_rate = SAMPLE_RATE if sample_rate is None else sample_rate
    samples, rate = audio if isinstance(audio, tuple) and len(audio) == 2 else (audio, bare_rate)
    mono = _mono(_as_float(samples))
    _check_rate(rate)
    _check_samples(mono, "The array")
    waveform = resample(mono, rate, SAMPLE_RATE)
    if waveform.size == 0:
        raise AudioFileError("The array is shorter than one sample at 16 kHz", _REMEDY_EMPTY)
    return waveform


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """The same sound at another sample rate (soxr, high quality).

    Args:
        waveform: `[samples]` float32 at `from_rate`.
        from_rate: Hz.
        to_rate: Hz.

    Returns:
        `[about samples * to_rate / from_rate]` float32; the very same array when the rates are equal.
    """
    if from_rate == to_rate:
        return waveform
    return np.asarray(soxr.resample(waveform, from_rate, to_rate), dtype=np.float32)


def pcm16(waveform: Waveform) -> NDArray[np.int16]:
    """Little-endian 16-bit samples; ±1 becomes ±32767, rounded to the nearest; beyond it is clipped."""
    return np.asarray(np.rint(np.clip(waveform, -1.0, 1.0) * 32767.0), dtype="<i2")


def wav_header(sample_rate: int, data_bytes: int | None) -> bytes:
    """The 44 bytes before mono 16-bit PCM; None where its length is not known yet.

    `wave` cannot complete a header without owning the file.
    """
    riff_bytes = _NO_LENGTH if data_bytes is None else 36 + data_bytes
    return struct.pack(
        "<4sI8sIHHIIHH4sI",
        *(b"RIFF", riff_bytes, b"WAVEfmt "),
        *(16, 1, 1, sample_rate, 2 * sample_rate, 2, 16),  # PCM, mono, bytes per second and sample, bits
        *(b"data", _NO_LENGTH if data_bytes is None else data_bytes),
    )


def write_wav(path: AudioPath, waveform: Waveform, sample_rate: int) -> None:
    """Write a mono waveform as a 16-bit PCM WAV file: whole, or not at all.

    Args:
        path: where to; replaced if it exists. Its folder must exist.
        waveform: `[samples]` float32; beyond ±1 it is clipped.
        sample_rate: Hz.

    Raises:
        AudioFileError: the file cannot be written (a missing folder, a full disk), or the waveform holds NaN.
    """
    with WavWriter(path, sample_rate) as wav:
        wav.write(waveform)


class WavWriter:
    """A mono 16-bit WAV file that is written as the samples come.

        with WavWriter("answer.wav", 24000) as wav:
            for frame in speech:
                wav.write(frame)

    The samples go to a hidden file beside `path`, which takes the name when the block ends; when it ends with
    an exception, nothing is left behind and an older file of that name stays as it was.
    """

    def __init__(self, path: AudioPath, sample_rate: int) -> None:
        _check_rate(sample_rate)
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.samples_written = 0
        self._part = self.path.parent / f".{self.path.name}.{secrets.token_hex(4)}.part"
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Open the hidden file.

        Raises:
            AudioFileError: the folder is missing or cannot be written to, or `path` is a folder.
        """
        if self.path.is_dir():
            raise AudioFileError(f"{self.path} is a folder", "Give the name of a file within it")
        try:
            self._file = open(self._part, "xb")
        except OSError as error:
            raise self._cannot_write(error) from error
        with self._removed_on_error():
            self._file.write(wav_header(self.sample_rate, 0))
        return self

    def write(self, waveform: Waveform) -> None:
        """Append samples.

        Args:
            waveform: `[samples]` float32; beyond ±1 it is clipped.

        Raises:
            AudioFileError: the disk is full or gone, the samples are not finite, or the file would pass 4 GB.
            UsageError: the writer is not open.
        """
        if self._file is None:
            raise UsageError("This WAV file is not open", "Write within `with WavWriter(...) as wav:`")
        if waveform.ndim != 1:
            raise AudioFileError(f"A WAV file of shape {waveform.shape} is not supported", "Give mono [samples]")
        _check_finite(waveform, "The waveform")
        pcm = pcm16(waveform)
        if (self.samples_written + pcm.size) * pcm.itemsize > _MAX_WAV_BYTES:
            raise AudioFileError(f"{self.path} would grow past 4 GB", "Go on in a new WAV file")
        with self._removed_on_error():
            self._file.write(pcm.tobytes())
        self.samples_written += pcm.size

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete the header and take the final name; after an error, remove what was written.

        Raises:
            AudioFileError: the disk turned out to be full.
        """
        if error_type is not None or self._file is None:
            self._discard()
            return
        with self._removed_on_error():
            self._file.seek(0)
            self._file.write(wav_header(self.sample_rate, 2 * self.samples_written))
            self._file.close()
            os.replace(self._part, self.path)
        self._file = None

    @contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._discard()
            raise self._cannot_write(error) from error

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # closing flushes, which fails again on a full disk
                self._file.close()
            self._file = None
        self._part.unlink(missing_ok=True)

    def _cannot_write(self, error: OSError) -> AudioFileError:
        reason = error.strerror or str(error)
        return AudioFileError(
            f"Cannot write {self.path}: {reason}",
            "Choose a folder that exists, may be written to and has room",
        )


def _check_rate(rate: object) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or rate < 1:
        raise UsageError(f"A sample rate of {rate!r} makes no sense", "Give whole hertz, such as 16000")


def _check_path(path: Path, name: str) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise AudioFileError(f"There is no file {name}", "Check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise AudioFileError(f"Cannot open {name!r}: {error}", "Check the path") from error
    if path.is_dir():
        raise AudioFileError(f"{name} is a folder, not a sound file", "Give one of the files within it")
    if path.is_file() and status.st_size == 0:
        raise AudioFileError(f"{name} is empty (0 bytes)", _REMEDY_EMPTY)
    if not os.access(path, os.R_OK):
        raise AudioFileError(f"{name} may not be read by this user", f"Run: chmod u+r {name}")


@contextmanager
def _opened(path_or_file: AudioPath | BinaryIO) -> Iterator[tuple[soundfile.SoundFile, str]]:
    """The open sound file, and its name for errors."""
    if isinstance(path_or_file, str | os.PathLike):
        name = os.fspath(path_or_file)
        _check_path(Path(name), name)
        # As bytes, or soundfile refuses names that are not UTF-8; Windows has no such names, and wants text.
        source: str | bytes | BinaryIO = name if os.name == "nt" else os.fsencode(name)
    else:
        name = str(getattr(path_or_file, "name", "the open file"))
        source = path_or_file
    with _open_sound(source, name) as sound:
        yield sound, name


def _open_sound(source: str | bytes | BinaryIO, name: str) -> soundfile.SoundFile:
    try:
        sound = soundfile.SoundFile(source)
        if sound.frames > _MAX_HINT_SECONDS * sound.samplerate:
            sound.seekable = lambda: False  # a FLAC stream without a length: soundfile would seek to its end, and fail
        return sound
    # TypeError: soundfile asks for the sample rate of a headerless file (.raw).
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioFileError(f"{name} is not a sound file we can read", _REMEDY_FORMAT) from error


def _mono_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[Waveform]:
    """The file's blocks `[frames]`, channels averaged, each checked for NaN."""
    while True:
        try:
            block = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioFileError(f"{name} is damaged: {error}", _REMEDY_FORMAT) from error
        if len(block) == 0:
            return
        mono = _mono(block)
        _check_finite(mono, name)
        yield mono


def _no_longer(blocks: Iterator[Waveform], sound: soundfile.SoundFile, longest: float, name: str) -> Iterator[Waveform]:
    """The blocks, until they are longer than `longest` seconds; a header that says so is believed at once."""
    most, decoded = longest * sound.samplerate, 0
    known = (
        sound.frames if sound.frames < _MAX_HINT_SECONDS * sound.samplerate else 0
    )  # a stream's header has no length
    if known > most:
        raise _too_long(name, longest)
    for block in blocks:
        decoded += len(block)
        if decoded > most:
            raise _too_long(name, longest)
        yield block


def _too_long(name: str, longest: float) -> AudioFileError:
    return AudioFileError(f"{name} is longer than {longest:g} seconds", "Split it into shorter files")


def _collect(blocks: Iterator[Waveform], from_rate: int, to_rate: int, frames: int, name: str) -> Waveform:
    """Resample the blocks into one array; `frames` is the header's promise, only used to reserve room."""
    expected = math.ceil(frames * to_rate / from_rate) + 1
    believable = 0 < expected <= _MAX_HINT_SECONDS * to_rate
    filled = 0
    try:
        collected = np.empty(expected if believable else _BLOCK_FRAMES, dtype=np.float32)
        for block in _resampled(blocks, from_rate, to_rate):
            if filled + block.size > collected.size:  # the header promised less
                # refcheck: a debugger's reference would fail it, and no view of the array exists here
                collected.resize(filled + block.size + collected.size // 2, refcheck=False)
            collected[filled : filled + block.size] = block
            filled += block.size
        collected.resize(filled, refcheck=False)
    except MemoryError as error:
        raise AudioFileError(f"{name} is too long for this device's memory", "Split it into shorter files") from error
    return collected


def _resampled(blocks: Iterator[Waveform], from_rate: int, to_rate: int) -> Iterator[Waveform]:
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _as_float(samples: object) -> Waveform:
    """The array as float32 with full scale ±1."""
    if not isinstance(samples, np.ndarray):
        raise AudioFileError(
            f"Sound of type {type(samples).__name__} is not understood",
            "Give a path, a numpy array, or the pair (array, sample rate in Hz)",
        )
    if samples.dtype in (np.int16, np.int32):
        return samples.astype(np.float32) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    if np.issubdtype(samples.dtype, np.floating):
        with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which is refused next
            return samples.astype(np.float32, copy=False)
    raise AudioFileError(f"Sound of type {samples.dtype} is not understood", "Convert it to float32 or int16")


def _mono(samples: Waveform) -> Waveform:
    """`[samples]` or `[samples, channels]` to `[samples]`, channels averaged."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioFileError(
            f"Sound of shape {samples.shape} is not understood", "Give [samples] or [samples, channels]"
        )
    if samples.shape[1] > _MAX_CHANNELS:
        raise AudioFileError(f"Sound of shape {samples.shape} looks like [channels, samples]", "Transpose it: audio.T")
    if samples.shape[1] <= 1:
        return samples.reshape(-1)
    return np.asarray(samples.mean(axis=1), dtype=np.float32)


def _check_samples(waveform: Waveform, name: str) -> None:
    if waveform.size == 0:
        raise AudioFileError(f"{name} holds no samples", _REMEDY_EMPTY)
    _check_finite(waveform, name)


def _check_finite(waveform: Waveform, name: str) -> None:
    if not np.isfinite(waveform).all():
        raise AudioFileError(f"{name} holds NaN or infinite samples", _REMEDY_NOT_FINITE)
