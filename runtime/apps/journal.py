"""The journal of a transcript: it keeps finished segments until the output is complete. A kill loses none of them.

In: segments. Out: `NAME.journal` beside the output, JSON Lines that are appended and synced one by one. The first line
says what the transcript is of; each other line is a segment. A line that a crash cut short is dropped. The journal of
another sound, bundle or other options is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from voxrill.runtime.apps.one_writer import lock_output
from voxrill.runtime.apps.subtitles import TranscriptFormat
from voxrill.runtime.apps.transcript import SegmentEvent
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.bundle.atomic_folder import unlock
from voxrill.runtime.errors import DataError, UsageError

FORMAT = 1
STARTED = "started"
"""In the first line: when the transcript was begun. It is the one thing in which a later run may differ."""


def journal_of(out: Path) -> Path:
    """The journal's file beside the transcript's."""
    return out.with_name(f"{out.name}.journal")


class Journal:
    """The journal of the transcript `out`, open within a `with` block.

    Args:
        out: the transcript's file.
        header: what the transcript is of: everything that must be equal for its segments to be used again.

    header: as it was when the transcript was begun. found: how many segments it holds.
    """

    def __init__(self, out: Path, header: dict[str, Any]) -> None:
        self.path = journal_of(out)
        self.header = {"format": FORMAT, **header}
        self._out = out
        self.found = 0

    def __enter__(self) -> Self:
        """Open the journal, or begin one.

        Raises:
            DataError: it is no journal.
            UsageError: it is the journal of something else, cannot be written, or another process writes it.
        """
        try:
            self._file = open(self.path, "a+b")
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}", "Give --out another folder") from None
        self._lock: int | None = None
        try:
            self._lock = lock_output(self.path, self._out)
            self._adopt()
        except BaseException:
            self._file.close()
            unlock(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.found:  # nothing is left to go on from
            self.path.unlink(missing_ok=True)
        unlock(self._lock)

    def segments(self) -> Iterator[SegmentEvent]:
        """Every segment in it, the oldest first."""
        with open(self.path, "rb") as lines:
            next(lines)
            for line in lines:
                yield msgspec.json.decode(line, type=SegmentEvent)

    def add(self, segment: SegmentEvent) -> None:
        """Append a segment: it is on the disk when this returns."""
        self._write(segment)
        self.found += 1

    def finish(self, form: TranscriptFormat) -> None:
        """The transcript is complete: write it. The journal is removed when the block ends.

        Raises:
            OSError: it cannot be written; the journal is still there.
        """
        with atomic_write(self._out) as part, open(part, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(form.render(self.segments()))
        self.found = 0

    def _adopt(self) -> None:
        """Take over what an earlier run left, or begin."""
        self._file.seek(0)
        first, *rest = self._file.readlines() or [b""]
        kept = len(first)
        for line in rest:
            if not line.endswith(b"\n"):
                break
            kept += len(line)
            self.found += 1
        if first.endswith(b"\n"):
            self._check(first)
            self._file.truncate(kept)
        else:  # not even its first line is whole
            self._file.truncate(0)
            self._write(self.header)

    def _check(self, line: bytes) -> None:
        found: Any = None
        with suppress(msgspec.MsgspecError):
            found = msgspec.json.decode(line)
        wanted = msgspec.json.decode(msgspec.json.encode(self.header))
        if not isinstance(found, dict):
            raise DataError(f"{self.path} is not a journal of ours", "Move it away, or give another --out")
        other = [name for name in {**wanted, **found} if name != STARTED and wanted.get(name) != found.get(name)]
        if other:
            raise UsageError(
                f"{self.path} is of an unfinished transcript with another {', '.join(sorted(other))}",
                "Finish that one with the command it was begun with, delete the journal, or give another --out",
            )
        self.header = found

    def _write(self, value: Any) -> None:
        self._file.write(msgspec.json.encode(value) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
