"""Sound files in, mono float32 waveforms out.

Every file passes `open_sound` or `read_audio`, and every other sound `sound_source.py`, so that the rest of the runtime
meets one kind of array only: float32, mono, `[samples]`, finite, not empty. A file is opened once, decoded and
resampled block by block: a three-hour recording never holds more than its own 16 kHz copy.

A header may promise another length than the file has. What is there is read, and a `VoxrillWarning` says what is
missing.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import iscoroutinefunction
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxrill.runtime.audio.ffmpeg import FfmpegFailed, ffmpeg_sound, has_ffmpeg
from voxrill.runtime.audio.mixing import ChannelMixer
from voxrill.runtime.audio.sinc_resampler import SincResampler
from voxrill.runtime.audio.sound_headers import Checked, repaired
from voxrill.runtime.audio.sound_kinds import BY_FFMPEG, FLAC, HEAD_BYTES, READABLE, SoundKind, kind_of, sniff
from voxrill.runtime.errors import AudioFileError, UsageError, VoxrillWarning

__all__ = [
    "SAMPLE_RATE",
    "OpenSound",
    "check_finite",
    "check_rate",
    "open_sound",
    "promised_seconds",
    "read_audio",
    "read_pieces",
]

SAMPLE_RATE = 16000  # Hz: what the audio encoder hears

AudioPath = str | os.PathLike[str]
Waveform = NDArray[np.float32]

_BLOCK_FRAMES = 1 << 16  # frames decoded at once: 1.4 s at 48 kHz
_FLAC_FRAMES = 1 << 12  # the same of FLAC: where a file is damaged, the whole block is lost
_MAX_HINT_SECONDS = 24 * 3600  # a header that claims more is not believed when room is reserved
HIGHEST_RATE = 768_000  # Hz: no sound is recorded with more, and a resampler's weights grow with the rate
_HASHED_AT_ONCE = 1 << 20
_IN_MEMORY = 64 << 20  # bytes of a pipe that are kept in memory; the rest goes to a file without a name
CANCELLED = "its channels cancel each other, so the louder one is heard"

SPLIT = "Split it into shorter files"
"""The remedy for a sound that is too long."""

_ROUNDING = 0.1  # seconds by which a decoded MP3 or FLAC may differ from what its header says

_REMEDY_FORMAT = (
    f"Give a {READABLE} file, with ffmpeg on PATH also {BY_FFMPEG}; or convert it first: ffmpeg -i INPUT output.wav"
)
REMEDY_EMPTY = "Record or choose a sound that is not empty"
_REMEDY_NOT_FINITE = "Re-record or repair it"


class OpenSound:
    """A sound that was opened with `open_sound`. It can be read once.

    name: for messages. rate: Hz of the file itself; channels: of it. seconds: how long its header says it is, 0 if it
    does not say.
    After reading also: missing: seconds that its header promises and that are not there. damaged: decoding failed on
    the way. notices: sentences about what is wrong with it although it can be read.
    """

    def __init__(self, file: BinaryIO, name: str, decoder: SoundDecoder, checked: Checked, longest: float) -> None:
        self.name = name
        self.rate, self.channels = decoder.rate, decoder.channels
        if not 1 <= self.rate <= HIGHEST_RATE:
            raise AudioFileError(f"{name} says that it has {self.rate} samples a second", _REMEDY_FORMAT)
        self.missing = 0.0
        self.notices: list[str] = []
        self._file, self._decoder, self._checked = file, decoder, checked
        self._frames = 0  # decoded so far
        self.damaged = False
        self._told = 0  # notices that were given as warnings
        believable = 0 < decoder.frames < _MAX_HINT_SECONDS * decoder.rate
        self.seconds = decoder.frames / decoder.rate if believable else 0.0
        self.limit(longest)

    def limit(self, longest: float) -> None:
        """Allow no more than `longest` seconds.

        Raises:
            AudioFileError: its header says that it is longer.
        """
        self._longest = longest
        if self.seconds > longest:
            raise _too_long(self.name, longest)

    def pieces(self, sample_rate: int = SAMPLE_RATE) -> Iterator[Waveform]:
        """The sound, mono and resampled, in pieces `[samples]` of about a second. Joined they are the whole sound.

        Raises:
            AudioFileError: it is damaged, too long, or holds no samples or NaN or infinite ones.
        """
        empty = True
        for piece in _resampled(self._mono_blocks(), self.rate, sample_rate):
            empty = empty and piece.size == 0
            yield piece
        if empty:
            raise AudioFileError(f"{self.name} holds no samples", REMEDY_EMPTY)

    def waveform(self, sample_rate: int = SAMPLE_RATE) -> Waveform:
        """The whole sound, mono and resampled, `[samples]`.

        Raises:
            AudioFileError: as for `pieces`, or it is too long for this device's memory.
        """
        return _collect(self.pieces(sample_rate), math.ceil(self.seconds * sample_rate) + 1, self.name)

    def sha256(self) -> str:
        """The hash of the file's bytes, in hexadecimal. May be called while the sound is being read."""
        digest = hashlib.sha256()
        with _disk_errors(self.name):
            where = self._file.tell()
            self._file.seek(0)
            while block := self._file.read(_HASHED_AT_ONCE):
                digest.update(block)
            self._file.seek(where)
        return digest.hexdigest()

    def warn(self) -> None:
        """Give the notices that were not given yet as warnings."""
        for notice in self.notices[self._told :]:
            warnings.warn(notice, VoxrillWarning, stacklevel=2)
        self._told = len(self.notices)

    def _mono_blocks(self) -> Iterator[Waveform]:
        """The file's blocks `[frames]` as one channel, each checked for NaN."""
        mix = ChannelMixer()
        for block in self._decoded():
            self._frames += len(block)
            if self._frames > self._longest * self.rate:
                raise _too_long(self.name, self._longest)
            mono = mix(block)
            check_finite(mono, self.name)
            yield mono
        if mix.cancelled:
            self.notices.append(f"{self.name}: {CANCELLED}")
        self._compare()

    def _decoded(self) -> Iterator[Waveform]:
        """The decoder's blocks; damage ends the sound, and is an error only if nothing was decoded before it."""
        try:
            with _disk_errors(self.name):
                yield from self._decoder.blocks()
        except soundfile.SoundFileError as error:
            if not self._frames:
                raise AudioFileError(f"{self.name} is damaged: {error}", _REMEDY_FORMAT) from error
            self.damaged = True
        self.damaged = self.damaged or self._decoder.failed

    @property
    def _now(self) -> float:
        return self._frames / self.rate

    def _compare(self) -> None:
        """Compare what was decoded with what the header promises."""
        checked = self._checked
        if checked.missing:
            self.missing = self._now * checked.missing / max(1, checked.present)
        elif checked.counted and self._now < self.seconds - _ROUNDING:
            self.missing = self.seconds - self._now
        if self.missing:
            whole = self._now + self.missing
            self.notices.append(
                f"{self.name} is cut off: {self.missing:.3f} s of the {whole:.3f} s that its header promises are "
                "missing. The rest is read."
            )
        elif self.damaged:
            self.notices.append(f"{self.name} is damaged after {self._now:.1f} s: what follows is not read.")
        elif checked.cut:
            self.notices.append(f"{self.name} has no end: it may have been cut off. What is there is read.")
        elif checked.wrong:
            self.notices.append(f"{self.name} holds more sound than its header says. All of it is read.")


class SoundDecoder(Protocol):
    """What decodes a file: libsndfile or ffmpeg. rate: Hz. frames: that the header promises. failed: it is damaged."""

    rate: int
    channels: int
    frames: int
    failed: bool

    def blocks(self) -> Iterator[Waveform]:
        """`[frames, channels]`, full scale ±1."""


class LibrarySound:
    """A file that libsndfile decodes, in blocks of `frames_at_once`."""

    failed = False

    def __init__(self, file: BinaryIO, frames_at_once: int) -> None:
        self._file = GuardedFile(file)
        self._sound = soundfile.SoundFile(self._file)
        self.rate: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        self.frames: int = self._sound.frames
        self._block = frames_at_once
        if self.frames > _MAX_HINT_SECONDS * self.rate:
            self._sound.seekable = lambda: False  # a FLAC stream without a length: soundfile would seek to its end

    def blocks(self) -> Iterator[Waveform]:
        """`[frames, channels]`, full scale ±1."""
        while len(block := self._sound.read(self._block, dtype="float32", always_2d=True)):
            yield block
        if self._file.error is not None:
            raise self._file.error

    def close(self) -> None:
        """Let libsndfile go. The file stays open."""
        self._sound.close()


class GuardedFile:
    """A file as libsndfile's callbacks read it: an error cannot pass through C, so it ends the file and is kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int) -> bytes:
        """As of a file; nothing after an error."""
        try:
            return b"" if self.error is not None else self._file.read(size)
        except OSError as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()


@contextmanager
def open_sound(path_or_file: AudioPath | BinaryIO, longest: float = math.inf) -> Iterator[OpenSound]:
    """Open a sound of any kind, once. Its kind is known by how its bytes begin.

    Args:
        path_or_file: a path, which may be a pipe; or a file open for reading bytes, such as `sys.stdin.buffer`.
        longest: seconds above which a sound is refused, before it is decoded or as soon as it turns out so.

    Raises:
        AudioFileError: the file is missing, a directory, empty, not a sound file, damaged or too long, or its disk
            gives an error.
    """
    with ExitStack() as stack:
        file, name = stack.enter_context(_opened(path_or_file))
        with _disk_errors(name):
            kind = sniff(file)
            if kind is None:
                raise _unreadable(name) if file.read(1) else _empty(name)
            checked = repaired(file, kind)
            file.seek(0)
            decoder = _decoder(file, name, kind, checked, longest, stack)
        yield OpenSound(file, name, decoder, checked, longest)


def _decoder(
    file: BinaryIO, name: str, kind: SoundKind, checked: Checked, longest: float, stack: ExitStack
) -> SoundDecoder:
    """What decodes a file, to be closed by `stack`: libsndfile if it can, else ffmpeg."""
    if kind.by_library:
        try:
            sound = LibrarySound(checked.file, _FLAC_FRAMES if kind is FLAC else _BLOCK_FRAMES)
        except soundfile.SoundFileError:
            if not kind.demuxer:
                raise _unreadable(name) from None
        else:
            stack.callback(sound.close)
            return sound
    elif not has_ffmpeg():
        raise AudioFileError(
            f"{name} is {kind.name}, which ffmpeg decodes, and there is no ffmpeg on PATH",
            "Install ffmpeg, or convert the file on another machine: ffmpeg -i INPUT output.wav",
        )
    try:
        return stack.enter_context(ffmpeg_sound(file, kind, longest))
    except FfmpegFailed:
        raise _unreadable(name) from None


@contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    """An error of the disk or the network as one of this sound: a batch goes on with the next."""
    try:
        yield
    except OSError as error:
        raise AudioFileError(
            f"{name} cannot be read: {error.strerror or error}", "Check its disk, or copy the file elsewhere"
        ) from error


def _unreadable(name: str) -> AudioFileError:
    return AudioFileError(f"{name} is not a sound file we can read", _REMEDY_FORMAT)


@contextmanager
def _opened(path_or_file: AudioPath | BinaryIO) -> Iterator[tuple[BinaryIO, str]]:
    """The open file, at whose beginning and end can be looked, and its name for messages."""
    with ExitStack() as stack:
        if isinstance(path_or_file, str | os.PathLike):
            name = os.fspath(path_or_file)
            file = stack.enter_context(_open(name))
        else:
            name, file = name_of(path_or_file), path_or_file
            _check_open(file, name)
        seekable = hasattr(file, "seekable") and file.seekable()
        yield file if seekable else stack.enter_context(_spooled(file, name)), name


def name_of(file: object) -> str:
    """What an open file is called in messages."""
    name = getattr(file, "name", None)
    if name == "<stdin>":
        return "stdin"
    return name if isinstance(name, str) else "the open file"


def _check_open(file: object, name: str) -> None:
    """Refuse an open file that gives no bytes."""
    if isinstance(file, io.TextIOBase):
        raise AudioFileError(f"{name} was opened as text", f'Open it for reading bytes: open({name!r}, "rb")')
    if iscoroutinefunction(getattr(file, "read", None)):
        raise AudioFileError(
            f"{name} must be awaited to be read", "Give the file within it, such as upload.file, or its bytes"
        )
    if getattr(file, "closed", False):
        raise AudioFileError(f"{name} is closed", "Open it again")


def _open(name: str) -> BinaryIO:
    if os.path.isdir(name):
        raise AudioFileError(f"{name} is a folder, not a sound file", "Give one of the files within it")
    try:
        file = open(name, "rb")  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as error:
        raise AudioFileError(f"There is no file {name}", "Check the path") from error
    except PermissionError as error:
        raise AudioFileError(f"{name} may not be read by this user", f"Run: chmod u+r {name}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise AudioFileError(f"Cannot open {name!r}: {error}", "Check the path") from error
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        file.close()
        raise _empty(name)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        file.close()
        raise AudioFileError(f"{name} is a device, not a sound file", "Give a file, or a pipe")
    return file


def _empty(name: str) -> AudioFileError:
    return AudioFileError(f"{name} is empty (0 bytes)", REMEDY_EMPTY)


@contextmanager
def _spooled(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """All that a pipe brings, in memory or, if it is long, in a file without a name."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise _empty(name)
    if kind_of(head) is None:  # it may never end
        raise _unreadable(name)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
        try:
            spool.write(head)
            shutil.copyfileobj(file, spool)
        except OSError as error:
            raise AudioFileError(f"{name} cannot be read to its end: {error}", "Give a file instead") from error
        yield spool  # type: ignore[misc]


def read_audio(
    path_or_file: AudioPath | BinaryIO, sample_rate: int = SAMPLE_RATE, longest: float = math.inf
) -> Waveform:
    """Decode a sound file, average its channels and resample it.

    Args:
        path_or_file: a path, or a file open for reading bytes; of the kinds in `sound_kinds`.
        sample_rate: Hz of the waveform returned.
        longest: seconds above which a sound is refused, before it is decoded or as soon as it turns out so.

    Returns:
        `[samples]` float32, full scale ±1.

    Raises:
        AudioFileError: the file is missing, a directory, empty, not a sound file, damaged, too long, or holds
            no samples or NaN or infinite ones.
        UsageError: a sample rate that is not a positive whole number.
    """
    check_rate(sample_rate)
    with open_sound(path_or_file, longest) as sound:
        waveform = sound.waveform(sample_rate)
        sound.warn()
    return waveform


def read_pieces(path_or_file: AudioPath | BinaryIO, sample_rate: int = SAMPLE_RATE) -> Iterator[Waveform]:
    """As `read_audio`, but piece by piece, so that the sound may be longer than memory.

    Yields:
        `[samples]` float32, about a second each, which joined together are what `read_audio` returns.
    """
    check_rate(sample_rate)
    with open_sound(path_or_file) as sound:
        yield from sound.pieces(sample_rate)
        sound.warn()


def promised_seconds(path: AudioPath) -> float:
    """How long a sound file's header says it is, 0 if it does not say; it may lie.

    Raises:
        AudioFileError: as for `read_audio`.
    """
    with open_sound(path) as sound:
        return sound.seconds


def check_rate(rate: object) -> None:
    """Refuse what is not a positive whole number of hertz, or more than any sound has.

    Raises:
        UsageError: it is such a number.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not 1 <= rate <= HIGHEST_RATE:
        raise UsageError(f"A sample rate of {rate!r} makes no sense", "Give whole hertz, such as 16000")


def _too_long(name: str, longest: float) -> AudioFileError:
    return AudioFileError(f"{name} is longer than {longest:g} seconds", SPLIT)


def _collect(pieces: Iterator[Waveform], expected: int, name: str) -> Waveform:
    """Join pieces into one array; `expected` is the header's promise of samples, only used to reserve room."""
    filled = 0
    try:
        collected = np.empty(expected, dtype=np.float32)
        for piece in pieces:
            if filled + piece.size > collected.size:  # the header promised less
                # refcheck: a debugger's reference would fail it, and no view of the array exists here
                collected.resize(filled + piece.size + collected.size // 2, refcheck=False)
            collected[filled : filled + piece.size] = piece
            filled += piece.size
        collected.resize(filled, refcheck=False)
    except MemoryError as error:
        raise AudioFileError(f"{name} is too long for this device's memory", SPLIT) from error
    return collected


def _resampled(blocks: Iterator[Waveform], from_rate: int, to_rate: int) -> Iterator[Waveform]:
    resampler = SincResampler(from_rate, to_rate)
    for block in blocks:
        yield resampler(block)
    yield resampler.rest()


def check_finite(waveform: Waveform, name: str) -> None:
    """Refuse a sound with NaN or infinite samples.

    Raises:
        AudioFileError: it holds some.
    """
    if not np.isfinite(waveform).all():
        raise AudioFileError(f"{name} holds NaN or infinite samples", _REMEDY_NOT_FINITE)
