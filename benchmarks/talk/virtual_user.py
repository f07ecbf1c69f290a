"""The virtual user: it speaks recorded questions into a wire at real speed, and records both sides of the wire.

In: sounds at the wire's rate. Out: one recording of two channels; every time is a sample of it. PulseAudio's own
programs speak and record, so that they share nothing with the program under test.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from benchmarks.talk.sound_server import WIRE_RATE, SoundWire
from voxrill.runtime.audio.protocols import Floats

_FORMAT = ("--raw", "--format=float32le", f"--rate={WIRE_RATE}", "--latency-msec=20")
_CHUNK = WIRE_RATE // 50 * 2 * 4  # bytes of 20 ms of two channels

LONGEST = 60.0
"""Most seconds of a sentence."""


class VirtualUser:
    """A user at the near end of `wire`, for a `with` block."""

    def __init__(self, wire: SoundWire) -> None:
        self._wire = wire
        self._pieces: list[bytes] = []
        self._lock = Lock()
        self._mouth: tuple[subprocess.Popen[bytes], Thread] | None = None

    def __enter__(self) -> Self:
        ear = self._start("parec", f"--device={self._wire.monitor}", "--channels=2", stdout=subprocess.PIPE)
        self._ear = ear, _started(self._record, ear.stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, thread in filter(None, (self._mouth, self._ear)):
            process.kill()
            process.wait()
            thread.join()

    def say(self, samples: Floats) -> None:
        """Begin to say `samples` (n,), after a sentence that is still being said."""
        if self._mouth is not None:
            process, thread = self._mouth
            process.wait(LONGEST)
            thread.join()
        # The sentence is written by a thread, because pacat reads only as fast as it plays.
        mouth = self._start("pacat", "--playback", f"--device={self._wire.user}", "--channels=1", stdin=subprocess.PIPE)
        self._mouth = mouth, _started(_feed, mouth.stdin, samples.astype("<f4").tobytes())

    def listen(self) -> None:
        """Drop the recording, and begin another one."""
        with self._lock:
            self._pieces.clear()

    def recording(self) -> Floats:
        """The recording so far: (n, 2), the user left, the program right."""
        with self._lock:
            whole = b"".join(self._pieces)
        return np.frombuffer(whole, "<f4").reshape(-1, 2)

    def _record(self, stream: IO[bytes]) -> None:
        # A thread of its own: parec stops recording when nobody reads, and samples would be lost.
        with stream:
            while len(piece := stream.read(_CHUNK)) == _CHUNK:
                with self._lock:
                    self._pieces.append(piece)

    def _start(
        self, program: str, *arguments: str, stdin: int | None = None, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [program, *_FORMAT, *arguments],
            env={**os.environ, **self._wire.server},
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
        )


def _started(target: Callable[..., None], *args: Any) -> Thread:
    thread = Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _feed(stream: IO[bytes], data: bytes) -> None:
    """Write all of a program's input. The program reads it at the speed at which it plays."""
    with suppress(BrokenPipeError), stream:  # the user may leave in the middle of a sentence
        stream.write(data)
