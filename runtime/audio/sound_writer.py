"""Sound into files: WAV, FLAC, OGG, Opus or MP3, by the file's suffix, as the samples come.

A file takes its name once it is whole, so that no reader ever finds half of one. It says that Voxrill made it: where a
machine speaks, others may want to know, and `made_by_us` tells a file of ours from a recording of the user's.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Protocol, Self, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.audio.audio_file import AudioPath, check_finite, check_rate, name_of
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.errors import AudioFileError, UsageError
from voxrill.runtime.version import MAKER

Waveform = NDArray[np.float32]

ENCODINGS = {
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
"""libsndfile's names for the compressed formats that are written, by their suffix without its dot."""

WRITABLE = ("wav", *ENCODINGS)

SoundFormat = Literal["wav", "flac", "ogg", "opus", "mp3"]
"""The names in `WRITABLE`, for type checkers."""

_NO_LENGTH = 2**32 - 1  # what stands in a WAV header whose length is not known yet
_PCM, _FLOAT = 1, 3  # how a WAV header calls the two encodings
WAV_HEADER_BYTES = 44
_MAX_WAV_BYTES = 2**32 - 4096  # RIFF counts its bytes in 32 bits; room for header and mark is left


def wav_header(sample_rate: int, data_bytes: int | None, *, floats: bool = False, after: int = 0) -> bytes:
    """The 44 bytes before mono samples.

    Args:
        sample_rate: Hz.
        data_bytes: of the samples; None where that is not known yet.
        floats: the samples are float32, else 16-bit PCM.
        after: bytes of further chunks that follow the samples.
    """
    width = 4 if floats else 2
    riff_bytes = _NO_LENGTH if data_bytes is None else WAV_HEADER_BYTES - 8 + data_bytes + after
    return struct.pack(
        "<4sI8sIHHIIHH4sI",
        *(b"RIFF", riff_bytes, b"WAVEfmt "),
        # The format chunk's size, encoding, channels, rate, bytes a second, bytes a sample, bits a sample.
        *(16, _FLOAT if floats else _PCM, 1, sample_rate, width * sample_rate, width, 8 * width),
        *(b"data", _NO_LENGTH if data_bytes is None else data_bytes),
    )


def _wav_mark() -> bytes:
    """The chunk that names the program that made a WAV file. It lies behind the samples, where no reader minds it."""
    name = MAKER.encode() + b"\0"
    return struct.pack(f"<4sI4s4sI{len(name)}s", b"LIST", 12 + len(name), b"INFO", b"ISFT", len(name), name)


def write_sound(path: AudioPath, waveform: Waveform, sample_rate: int) -> None:
    """Write a mono waveform as a sound file in the format of its suffix: whole, or not at all.

    Args:
        path: where to; replaced if it exists. Its folder must exist.
        waveform: `[samples]` float32; beyond ±1 it is clipped.
        sample_rate: Hz.

    Raises:
        AudioFileError: the format or the file cannot be written (a missing folder, a full disk), or the waveform holds
            NaN.
    """
    with SoundWriter(path, sample_rate) as writer:
        writer.write(waveform)


def encoded_sound(form: str, waveform: Waveform, sample_rate: int) -> bytes:
    """A mono waveform as the bytes of a file in one of `WRITABLE`, with a header that gives its true length.

    Raises:
        AudioFileError: the format cannot hold the rate, or the waveform holds NaN.
    """
    check_finite(waveform, "The waveform")
    file = io.BytesIO()
    encoder = _encoder(form, file, sample_rate)
    encoder.write(pcm16(waveform))
    encoder.finish()
    return file.getvalue()


def check_sound_name(path: AudioPath) -> str:
    """The format that a file's suffix asks for: one of `WRITABLE`. A name without a suffix means WAV.

    Raises:
        AudioFileError: it is none that can be written, or not by the installed libsndfile.
    """
    suffix = Path(path).suffix.lower()
    return check_sound_format(suffix.removeprefix(".") or "wav", f"a name in .{', .'.join(WRITABLE)}")


def check_sound_format(form: str, remedy: str = f"one of: {', '.join(WRITABLE)}") -> str:
    """A format's name, as it stands in `WRITABLE`; `remedy` says what to give instead.

    Raises:
        AudioFileError: it cannot be written, or not by the installed libsndfile.
    """
    name = form.lower().removeprefix(".")
    if name not in WRITABLE:
        raise AudioFileError(f".{name} is not a sound format that can be written", f"Give {remedy}")
    if name in ENCODINGS and not soundfile.check_format(*ENCODINGS[name]):
        raise AudioFileError(f"The installed libsndfile cannot write .{name}", "Write WAV, or update soundfile")
    return name


def made_by_us(path: AudioPath) -> bool:
    """Whether a sound file says that Voxrill made it."""
    try:
        with open(path, "rb") as file, soundfile.SoundFile(file) as sound:
            return str(sound.software).startswith(MAKER) or sound.comment == MAKER
    except (OSError, soundfile.SoundFileError, TypeError):
        return False


class SoundWriter:
    """A mono sound file that is written as the samples come.

        with SoundWriter("answer.mp3", 24000) as writer:
            for frame in speech:
                writer.write(frame)

    The samples go to a hidden file beside `path`, which takes the name when the block ends; when it ends with
    an exception, nothing is left behind and an older file of that name stays as it was. An open file gets
    all of it at the end, from where the file stands, and stays open.

    Args:
        target: a path, or a file that is open for writing bytes.
        sample_rate: Hz.
        form: one of `WRITABLE`; None for what the path's suffix says (see `check_sound_name`), and for WAV in an open
            file.

    Raises:
        AudioFileError: that format cannot be written.
    """

    def __init__(self, target: AudioPath | BinaryIO, sample_rate: int, form: str | None = None) -> None:
        check_rate(sample_rate)
        self.sample_rate = sample_rate
        self.samples_written = 0
        self._file: BinaryIO | None = None
        if isinstance(target, str | os.PathLike):
            self.path = Path(target)
            self._form = check_sound_name(target) if form is None else check_sound_format(form)
        else:
            if isinstance(cast("object", target), io.TextIOBase) or not hasattr(target, "write"):
                raise AudioFileError(
                    f"{type(target).__name__} takes no bytes", 'Give a path, a BytesIO, or a file opened with "wb"'
                )
            self._file, self.path = target, Path(name_of(target))
            self._whole = io.BytesIO()
            self._form = check_sound_format(form or "wav")
        self._stack = ExitStack()
        self._encoder: FileEncoder | None = None

    def __enter__(self) -> Self:
        """Open the hidden file.

        Raises:
            AudioFileError: the folder is missing or cannot be written to, or `path` is a folder.
        """
        if self._file is not None:
            self._encoder = _encoder(self._form, self._whole, self.sample_rate)
            return self
        if self.path.is_dir():
            raise AudioFileError(f"{self.path} is a folder", "Give the name of a file within it")
        with self._named_errors(), ExitStack() as stack:
            part = stack.enter_context(atomic_write(self.path))
            file = stack.enter_context(open(part, "w+b" if part != self.path else "wb"))
            self._encoder = _encoder(self._form, file, self.sample_rate)
            stack.callback(self._encoder.close)
            self._stack = stack.pop_all()
        return self

    def write(self, waveform: Waveform) -> None:
        """Append samples.

        Args:
            waveform: `[samples]` float32; beyond ±1 it is clipped.

        Raises:
            AudioFileError: the disk is full or gone, the samples are not finite, or a WAV file would pass 4 GB.
            UsageError: the writer is not open.
        """
        if self._encoder is None:
            raise UsageError("This sound file is not open", "Write within `with SoundWriter(...) as writer:`")
        if waveform.ndim != 1:
            raise AudioFileError(f"A sound file of shape {waveform.shape} is not supported", "Give mono [samples]")
        check_finite(waveform, "The waveform")
        if self._form == "wav" and 2 * (self.samples_written + waveform.size) > _MAX_WAV_BYTES:
            raise AudioFileError(f"{self.path} would grow past 4 GB", "Go on in a new file, or write FLAC")
        with self._named_errors():
            try:
                self._encoder.write(pcm16(waveform))
            except BaseException as error:
                self._discard(error)  # even if the caller goes on, there is no file with a gap
                raise
        self.samples_written += waveform.size

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete the file and give it its name; after an error, remove what was written.

        Raises:
            AudioFileError: the disk turned out to be full.
        """
        encoder, self._encoder = self._encoder, None
        if error is not None:
            self._discard(error)
        elif encoder is not None:
            with self._named_errors(), self._stack:
                encoder.finish()
                if self._file is not None:
                    self._file.write(self._whole.getvalue())

    def _discard(self, error: BaseException) -> None:
        """Remove the hidden file."""
        self._encoder = None
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            self._stack.__exit__(type(error), error, None)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Errors of the disk name the file."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise AudioFileError(
                f"Cannot write {self.path}: {reason}", "Choose a folder that exists, may be written to and has room"
            ) from error


class FileEncoder(Protocol):
    """Writes one sound into an open file."""

    def write(self, samples: NDArray[np.int16]) -> None:
        """The next samples `[samples]`."""

    def finish(self) -> None:
        """No more samples come: complete the file."""

    def close(self) -> None:
        """The file will be closed next, whether it was completed or not."""


def _encoder(form: str, file: BinaryIO, sample_rate: int) -> FileEncoder:
    if form == "wav":
        return WavEncoder(file, sample_rate)
    if not file.seekable():
        raise AudioFileError(f"{form.upper()} cannot be written to a pipe", "Give a file, or -o - for raw samples")
    return LibraryEncoder(form, file, sample_rate)


class WavEncoder:
    """16-bit PCM behind a header, which is completed at the end where the file can be rewound."""

    def __init__(self, file: BinaryIO, sample_rate: int) -> None:
        self._file, self._sample_rate = file, sample_rate
        self._bytes = 0
        file.write(wav_header(sample_rate, None))

    def write(self, samples: NDArray[np.int16]) -> None:
        """The next samples."""
        self._file.write(samples.tobytes())
        self._bytes += samples.nbytes

    def finish(self) -> None:
        """Name the maker and say the length."""
        if self._file.seekable():
            mark = _wav_mark()
            self._file.write(mark)
            self._file.seek(0)
            self._file.write(wav_header(self._sample_rate, self._bytes, after=len(mark)))

    def close(self) -> None:
        """Nothing is held back here."""


class LibraryEncoder:
    """A format that libsndfile writes."""

    def __init__(self, form: str, file: BinaryIO, sample_rate: int) -> None:
        container, subtype = ENCODINGS[form]
        self._out = GuardedOutput(file)
        try:
            self._sound = soundfile.SoundFile(
                self._out, "w", sample_rate, channels=1, format=container, subtype=subtype
            )
            self._sound.software = MAKER
            if form == "mp3":  # its tags have no field for a program
                self._sound.comment = MAKER
        except soundfile.SoundFileError as error:
            self._out.check()
            raise AudioFileError(f"{form.upper()} cannot hold {sample_rate} Hz", "Give a name in .wav") from error

    def write(self, samples: NDArray[np.int16]) -> None:
        """The next samples."""
        try:
            self._sound.write(samples)
        except (soundfile.SoundFileError, AssertionError):  # the latter is how soundfile says that less was written
            self._out.check()  # the file's own error says more
            raise
        self._out.check()

    def finish(self) -> None:
        """Write what was held back, and the header anew."""
        self._sound.close()
        self._out.check()

    def close(self) -> None:
        """Let libsndfile go while there still is a file that it may write to."""
        self._sound.close()


class GuardedOutput:
    """A file as libsndfile's callbacks write it: an error cannot pass through C, so it is kept for `check`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """As of a file; nothing after an error."""
        return self._guarded(lambda: self._file.write(data))

    def read(self, size: int) -> bytes:
        """As of a file."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return self._guarded(lambda: self._file.seek(offset, whence))  # it writes what waits in the buffer

    def tell(self) -> int:
        """As of a file."""
        return self._guarded(self._file.tell)

    def _guarded(self, call: Callable[[], int]) -> int:
        if self._error is None:
            try:
                return call()
            except OSError as error:
                self._error = error
        return 0

    def check(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error
