"""Sound that libsndfile cannot decode or encode, by the ffmpeg program where it is on PATH.

In: an open file of a known kind. Out: its rate, and blocks of samples. The file may be hostile, so ffmpeg may use the
one demuxer of that kind and read nothing but this file: no playlist, no network, no other file. Its memory, its
processor time and its silence are bounded, and it is ended as soon as nobody wants more samples. For encoding: samples
in, bytes of AAC out.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from threading import Thread, Timer
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.audio.sound_kinds import SoundKind

STALL_SECONDS = 30.0
"""Seconds without a sample after which ffmpeg is ended. A Raspberry Pi decodes AAC a hundred times faster than it
plays, so that a block of a second takes some 10 ms."""

_CPU_SECONDS = 60
_CPU_SHARE = 0.1
"""Processor seconds that ffmpeg may take: some at once, and some for each second of sound that is allowed."""

_MEMORY = 1 << 30
"""Bytes of address space. It takes about 400 MB, most of it for its libraries."""

_LARGEST_BLOCK = 64 << 20
"""Bytes that it may allocate at once."""

_QUIET = ("-nostdin", "-v", "quiet")

_AAC = ("-c:a", "aac", "-b:a", "64k", "-flush_packets", "1", "-f", "adts")
"""AAC for speech, each packet written as soon as it is made."""

_PIPE = 1 << 16
"""Bytes that are read at once."""

_BLOCK_FRAMES = 1 << 15
_AU_HEADER = 24
_MOST_CHANNELS = 64

_ENVIRONMENT = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
"""What it is given of the environment: it needs no key, and must not write the logs that FFREPORT asks for."""


class FfmpegFailed(Exception):
    """ffmpeg gave no sound; the caller knows the file's name, and says so."""


class FfmpegSound:
    """The sound of one file, while `ffmpeg_sound` is open. rate: Hz; channels; failed: it ended with an error."""

    frames = 0  # how many there are is known at the end only

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process, self._pipe = process, process.stdout
        self.failed = False
        # AU is the one format whose header is complete before the first sample and says rate and channels in 24 bytes.
        header = self._read(_AU_HEADER)
        offset, _size, _encoding, self.rate, self.channels = np.frombuffer(header[4:].ljust(20, b"\0"), ">u4").tolist()
        if not header.startswith(b".snd") or not self.rate or not 0 < self.channels <= _MOST_CHANNELS:
            raise FfmpegFailed
        self._read(offset - _AU_HEADER)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """`[frames, channels]`, full scale ±1."""
        frame = 4 * self.channels
        while data := self._read(_BLOCK_FRAMES * frame):
            whole = len(data) - len(data) % frame
            yield np.frombuffer(data[:whole], ">f4").astype(np.float32).reshape(-1, self.channels)
        self.failed = self._process.wait() != 0

    def _read(self, size: int) -> bytes:
        """All of `size` bytes but at the end; a process that gives nothing for too long is ended."""
        alarm = Timer(STALL_SECONDS, self._process.kill)
        alarm.start()
        try:
            return self._pipe.read(size)
        finally:
            alarm.cancel()


def has_ffmpeg() -> bool:
    """Whether ffmpeg is on PATH."""
    return shutil.which("ffmpeg") is not None


@contextmanager
def ffmpeg_sound(file: BinaryIO, kind: SoundKind, longest: float = math.inf) -> Iterator[FfmpegSound]:
    """Decode an open file.

    Args:
        file: seekable.
        kind: what it is.
        longest: seconds of sound that are wanted at most, from which the limit of processor time follows.

    Raises:
        FfmpegFailed: it is not installed, or gives no sound.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise FfmpegFailed
    with ExitStack() as stack:
        path, inherited = stack.enter_context(_reachable(file))
        process = subprocess.Popen(
            [program, *_options(kind), "-i", f"file:{path}", *_wanted()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a broken file can make it write gigabytes of complaints
            pass_fds=inherited,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is ours to answer
        )
        stack.callback(_end, process)
        _limit(process.pid, longest)
        yield FfmpegSound(process)


class AacEncoder:
    """One sound to AAC in ADTS frames, which need no header with a length.

    ffmpeg runs until `finish` or `close`. A thread reads what it writes, so that neither waits for the other's pipe.

    Args:
        rate: Hz.

    Raises:
        FfmpegFailed: it is not installed.
    """

    def __init__(self, rate: int) -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise FfmpegFailed
        self._process = subprocess.Popen(
            [program, *_QUIET, *("-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "pipe:0"), *_AAC, "pipe:1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
        _limit(self._process.pid, math.inf)
        self._made: SimpleQueue[bytes] = SimpleQueue()
        self._reader = Thread(target=self._read, name="voxrill-aac", daemon=True)
        self._reader.start()

    def push(self, samples: NDArray[np.float32]) -> bytes:
        """Take the next samples (n,), full scale ±1; returns the bytes that are there by now.

        Raises:
            FfmpegFailed: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(samples.astype("<f4").tobytes())
            self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: `close` was called meanwhile
            raise FfmpegFailed from None
        return self._new()

    def finish(self) -> bytes:
        """End the sound; returns the bytes that are left.

        Raises:
            FfmpegFailed: it ended with an error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._reader.join(STALL_SECONDS)
            failed = self._process.wait(STALL_SECONDS) != 0
        except (OSError, subprocess.TimeoutExpired):
            failed = True
        if failed:
            raise FfmpegFailed
        return self._new()

    def close(self) -> None:
        """End ffmpeg, if it still runs. A `push` in another thread fails then."""
        assert self._process.stdin is not None
        self._process.kill()  # first: a `push` that waits for the pipe would hold the lock that closing needs
        with suppress(OSError):  # what was not written yet cannot be written
            self._process.stdin.close()
        self._reader.join(STALL_SECONDS)
        _end(self._process)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):  # ValueError: `close` was called
            while piece := os.read(self._process.stdout.fileno(), _PIPE):
                self._made.put(piece)

    def _new(self) -> bytes:
        return b"".join(self._made.get_nowait() for _ in range(self._made.qsize()))


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _options(kind: SoundKind) -> list[str]:
    """Of the input: one demuxer, local files only, bounded memory."""
    limits = ["-max_alloc", str(_LARGEST_BLOCK), "-threads", "1"]
    return [*_QUIET, *limits, "-protocol_whitelist", "file", "-f", kind.demuxer]


def _wanted() -> list[str]:
    """The first sound in it, as AU on stdout."""
    return ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]


@contextmanager
def _reachable(file: BinaryIO) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A path by which a child process reaches an open file, and the descriptors that it inherits for that.

    The file is not opened a second time by its name, which may mean another file by now, or be a pipe.
    """
    with ExitStack() as stack:
        if os.name == "nt":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = os.path.join(folder, "sound")
            with open(path, "wb") as copy:
                _copy(file, copy)
            yield path, ()
            return
        try:
            descriptor = file.fileno()
        except (AttributeError, io.UnsupportedOperation):  # it lies in memory
            descriptor = stack.enter_context(_in_memory(file)).fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)  # on macOS, opening the path shares the position
        yield f"/dev/fd/{descriptor}", (descriptor,)


def _in_memory(file: BinaryIO) -> BinaryIO:
    """A copy of a file that lies in memory, with a descriptor; on Linux it stays in memory."""
    # The caller closes it.
    in_memory = hasattr(os, "memfd_create")
    copy = open(os.memfd_create("sound"), "w+b") if in_memory else tempfile.TemporaryFile()  # noqa: SIM115
    _copy(file, copy)
    copy.flush()
    return copy


def _copy(file: BinaryIO, copy: BinaryIO) -> None:
    file.seek(0)
    shutil.copyfileobj(file, copy)


def _limit(process: int, longest: float) -> None:
    """Bound memory and processor time, where the system can do that to another process: Linux."""
    try:
        import resource

        prlimit = resource.prlimit
    except (ImportError, AttributeError):
        return
    limits = {resource.RLIMIT_AS: _MEMORY}
    if math.isfinite(longest):
        limits[resource.RLIMIT_CPU] = _CPU_SECONDS + math.ceil(_CPU_SHARE * longest)
    for which, most in limits.items():
        try:
            prlimit(process, which, (most, most))
        except (ProcessLookupError, PermissionError):  # it has ended already
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
