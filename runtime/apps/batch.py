"""Many sounds to one JSON Lines file, a record for each sound, by several models side by side; it can be resumed.

In: files. Out: records, in the order in which they are finished. A record names its sound's hash and what made it. So a
later run skips sounds that are finished, repeats those that changed or failed, and refuses a file that was made with
another bundle or other options.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import Queue
from threading import Event as Flag
from types import TracebackType
from typing import Any, Self

import msgspec

from voxrill.runtime.apps.one_writer import lock_output
from voxrill.runtime.apps.transcript import SegmentEvent, joined_text
from voxrill.runtime.apps.transcription import transcribe_stream
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, open_sound
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.bundle.atomic_folder import unlock
from voxrill.runtime.bundle.bundle import Bundle, hash_file
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import DataError, UsageError, VoxrillError
from voxrill.runtime.input_file import lines_of
from voxrill.runtime.printable import as_unicode
from voxrill.runtime.version import VERSION

LONGEST_RECORD = 64 << 20
"""Bytes of a record at most: a sound of many days, with all its segments."""

Record = dict[str, Any]
"""file, sha256, made_with, and either seconds, text, segments and, where something is amiss, notices; or error."""


def made_with(bundle: Bundle, wished: Mapping[str, Any]) -> Record:
    """What a transcript depends on, beside the sound: version, bundle and options."""
    return {"voxrill": VERSION, "bundle": bundle.sha256, "options": dict(wished)}


def short_hash(made: Record) -> str:
    """The hash of `made_with`, in 16 characters."""
    return hashlib.sha256(msgspec.json.encode(made, order="deterministic")).hexdigest()[:16]


class ResultsFile:
    """The JSON Lines file of a batch, open within a `with` block.

    Args:
        out: the file.
        made: see `short_hash`.
        what: what the file is called in errors.
        anew: whatever the file holds is replaced.
    """

    def __init__(self, out: Path, made: str, what: str = "list of transcripts", *, anew: bool = False) -> None:
        self._out, self._made, self._what, self._anew = out, made, what, anew
        self._done: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Take over the records of an earlier run. Failures are dropped, and so is a line that a crash cut short.

        Raises:
            DataError: it holds something else.
            UsageError: its records were made otherwise, or another process writes it.
        """
        unlock(lock_output(self._out, self._out))  # the file that another process writes must not be replaced
        if self._out.is_file():  # a pipe or a device has no records
            with atomic_write(self._out) as part, open(part, "wb") as file:
                if not self._anew:
                    file.writelines(self._kept())
        self._file = open(self._out, "ab")
        try:
            self._lock = lock_output(self._out, self._out)
        except UsageError:
            self._file.close()
            raise
        self._on_disk = self._out.is_file()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        unlock(self._lock)

    def has(self, path: Path | str, sha256: str) -> bool:
        """Whether this sound is finished, and has not changed since."""
        return self._done.get(as_unicode(path)) == sha256

    def add(self, record: Record) -> None:
        """Append a record: it is on the disk when this returns."""
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        if self._on_disk:
            os.fsync(self._file.fileno())

    def _kept(self) -> Iterator[bytes]:
        for _, line in lines_of(self._out, LONGEST_RECORD):
            if line.endswith(b"\n") and "error" not in (record := self._record(line)):
                self._done[record["file"]] = record["sha256"]
                yield line

    def _record(self, line: bytes) -> Record:
        try:
            record = msgspec.json.decode(line)
            named = all(isinstance(record[name], str) for name in ("file", "sha256", "made_with"))
        except (ValueError, KeyError, TypeError, RecursionError):
            named = False
        if not named:
            raise DataError(f"{self._out} is not a {self._what}", "Give --out another file")
        if record["made_with"] != self._made:
            raise UsageError(
                f"{self._out} was made by another Voxrill, bundle or options", "Give --out another file, or delete it"
            )
        found: Record = record
        return found


def record_of(
    model: Engine, path: Path, sha256: str, made: str, wished: Mapping[str, Any], stop: Flag
) -> Record | None:
    """The record of one sound; None if it was stopped."""
    record: Record = {"file": as_unicode(path), "sha256": sha256, "made_with": made}
    heard = 0

    def counted(pieces: Iterator[Floats]) -> Iterator[Floats]:
        nonlocal heard
        for piece in pieces:
            heard += len(piece)
            yield piece

    segments: list[SegmentEvent] = []
    try:
        with open_sound(path) as sound:
            record["sha256"] = sound.sha256()  # of what is heard: the file may have changed since it was looked at
            for event in transcribe_stream(model, counted(sound.pieces()), SAMPLE_RATE, tentative=False, **wished):
                assert isinstance(event, SegmentEvent)
                segments.append(event)
                if stop.is_set():
                    return None
    except VoxrillError as error:
        return {**record, "error": str(error)}
    return {
        **record,
        "seconds": round(heard / SAMPLE_RATE, 3),
        "text": joined_text(segments),
        "segments": [segment.as_json() for segment in segments],
        **({"notices": sound.notices} if sound.notices else {}),
    }


def transcribe_batch(
    models: Sequence[Engine], files: Iterable[tuple[Path, str]], made: str, wished: Mapping[str, Any]
) -> Generator[Record, None, None]:
    """Transcribe `files` (each with its hash); yield records as they are finished.

    There are as many at a time as there are models. When the generator is closed early, each of them ends at its next
    segment.
    """
    free: Queue[Engine] = Queue()
    for model in models:
        free.put(model)
    stop = Flag()

    def work(path: Path, sha256: str) -> Record | None:
        if stop.is_set():
            return None
        model = free.get()
        try:
            return record_of(model, path, sha256, made, wished, stop)
        finally:
            free.put(model)

    with ThreadPoolExecutor(len(models)) as pool:
        waiting: set[Future[Record | None]] = {pool.submit(work, *file) for file in files}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (record for one in finished if (record := one.result()) is not None)
        finally:
            stop.set()


def hashed(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with its SHA-256. The hash is empty if the file cannot be read: transcribing it will say why."""
    for path in files:
        try:
            yield path, hash_file(path)
        except OSError:
            yield path, ""
