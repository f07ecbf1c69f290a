"""A talk as one folder: what the microphone heard, what was decided, and what was answered.

In: the blocks heard, the signals, the turns. Out: `microphone.wav` (float32, 16 kHz) and `events.jsonl`, whose first
line says what made it. Both are written as the talk goes on, so that a crash leaves all but the last moment. If the
disk is full, the recording ends, and the talk goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import msgspec
import numpy as np
import onnxruntime

from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.audio.sound_writer import WAV_HEADER_BYTES, wav_header
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import UsageError
from voxrill.runtime.talk.events import Notice
from voxrill.runtime.talk.listener import Ended, Paused, Signal, WakeChange
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import ResponderOptions
from voxrill.runtime.version import VERSION

FORMAT = 1
MICROPHONE, EVENTS = "microphone.wav", "events.jsonl"

_LARGEST = 0xFFFFFFFF - WAV_HEADER_BYTES
"""Bytes of sound that a WAV header can state. A longer file keeps the header that says: to the end."""


def build(model: Engine) -> dict[str, Any]:
    """Everything that the codes depend on, to the bit: versions, weights, threads, execution providers."""
    return {
        "voxrill": VERSION,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "bundle": model.bundle.sha256,
        "model": model.manifest.name,
        "threads": model.threads,
        "providers": [f"{name}={graph.provider.name}" for name, graph in model.graphs.items() if not graph.on_cpu],
    }


def describe(model: Engine, conversation: Conversation, options: ResponderOptions) -> dict[str, Any]:
    """The first line of a recording: what a replay compares, and what it needs to know."""
    known = {"system": conversation.system, "output": conversation.output, "options": asdict(options)}
    return {"format": FORMAT, **build(model), **known}


class Recorder:
    """Writes a talk into `directory` as it goes on. `hear` and `signal` may be called from another thread than `keep`.

    Args:
        directory: created if it is not there; must be empty.
        header: see `describe`.
        show: takes a notice when the recording cannot go on.

    Raises:
        UsageError: the folder cannot be made, or is not empty.
    """

    def __init__(self, directory: Path, header: dict[str, Any], show: Callable[[Notice], None]) -> None:
        self._show = show
        self._lock = Lock()
        self._whole = True
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise UsageError(f"{directory} is not empty", "Give --record a new folder for every talk")
            self._sound = (directory / MICROPHONE).open("wb")
            self._events = (directory / EVENTS).open("wb")
        except OSError as error:
            raise UsageError(f"cannot record into {directory}: {error.strerror}", "Give another folder") from None
        self._write(self._sound, wav_header(RATE, None, floats=True))
        self._line(header)

    def hear(self, heard: Iterable[Floats]) -> None:
        """Write blocks of samples, in the order in which they were heard."""
        for samples in heard:
            self._write(self._sound, samples.astype("<f4").tobytes())

    def signal(self, signal: Signal | WakeChange) -> None:
        """Write what was decided."""
        where = {}
        if isinstance(signal, Paused | Ended):
            where = {"start": signal.utterance.start, "end": signal.utterance.end}
        elif isinstance(signal, WakeChange):
            where = {"end": signal.end}
        self._line({"signal": type(signal).__name__, **where})

    def keep(self, turn: TalkTurn) -> None:
        """Write a turn that is over."""
        self._line(
            {
                "turn": turn.number,
                "start": turn.utterance.start if turn.utterance else None,
                "end": turn.utterance.end if turn.utterance else None,
                "typed": turn.typed,
                "seed": turn.seed,
                "text": turn.answer.text,
                "tokens": turn.answer.tokens,
                "codes": turn.answer.codes,
                "heard": turn.heard,
                "forgotten": turn.forgotten,
                "error": str(turn.error) if turn.error else None,
                "trace": asdict(turn.trace),
            }
        )

    def close(self) -> None:
        """End the recording. What another thread writes after this is left out."""
        size = self._sound.tell() - WAV_HEADER_BYTES if self._whole else 0
        if 0 < size < _LARGEST:
            self._sound.seek(0)
            self._write(self._sound, wav_header(RATE, size, floats=True))
        with self._lock:
            for file in (self._sound, self._events):
                try:
                    file.close()
                except OSError as error:
                    self._stop(error)
            self._whole = False

    def _line(self, value: dict[str, Any]) -> None:
        self._write(self._events, msgspec.json.encode(value) + b"\n")

    def _write(self, file: BinaryIO, data: bytes) -> None:
        with self._lock:
            if not self._whole:
                return
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                self._stop(error)

    def _stop(self, error: OSError) -> None:
        if self._whole:
            self._whole = False
            self._show(Notice(f"The recording ends here ({error.strerror}); the talk goes on"))
