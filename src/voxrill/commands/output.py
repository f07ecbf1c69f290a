"""What commands print: data on stdout (text, JSON, tables, raw sound), everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxrill.commands.quiet import is_quiet
from voxrill.runtime.picture import check_picture, figure_class
from voxrill.runtime.printable import printable, printable_text, safe_json

if TYPE_CHECKING:
    from voxrill.runtime.bundle import bundle as bundles
    from voxrill.runtime.events import AudioEvent


_LOUD = ("yellow", "red")
"""Styles of warnings and errors, which --quiet does not hide."""


class SafeConsole(Console):
    """A console that shows every text as it is: no escape code in it acts, no [bracket] or :colon: is markup.

    With --quiet, the one for stderr shows warnings and errors only, and no bars.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether bars and live views may be drawn."""
        return super().is_terminal and not self._hushed

    @property
    def _hushed(self) -> bool:
        return self.stderr and is_quiet()

    def print(self, *objects: Any, style: Any = None, **options: Any) -> None:
        """Print, unless it is a note and --quiet was given."""
        if not self._hushed or style in _LOUD:
            super().print(*objects, style=style, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """What rich makes of each string that is printed, by itself or in a table."""
        return super().render_str(printable_text(text), **options)


err = SafeConsole(stderr=True)
out = SafeConsole()

STDOUT = "-"
"""As an output file: stdout. Sound goes there as raw 16-bit little-endian mono samples, without a header."""


@contextmanager
def sound_sink(out: str | None, sample_rate: int) -> Iterator[Callable[[AudioEvent], None]]:
    """Where sound goes as it is made: a sound file, stdout, or nowhere."""
    if out is None:
        yield lambda _event: None
    elif out == STDOUT:
        err.print(f"raw samples: 16-bit little-endian, mono, {sample_rate} Hz", style="dim")
        yield _write_raw
    else:
        from voxrill.runtime.audio.sound_writer import SoundWriter

        with SoundWriter(out, sample_rate) as writer:
            yield lambda event: writer.write(event.samples)


def _write_raw(event: AudioEvent) -> None:
    from voxrill.runtime.audio.pcm import pcm16

    sys.stdout.buffer.write(pcm16(event.samples).tobytes())
    sys.stdout.buffer.flush()


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    sys.stdout.buffer.write(safe_json(msgspec.json.encode(value)) + b"\n")
    sys.stdout.buffer.flush()


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns on stdout; the first row holds their heads."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def new_table(title: str, *columns: str) -> Table:
    """A table for the terminal. Without names for its columns it has no head."""
    table = Table(title=title, title_justify="left", show_header=any(columns), title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def size(count: int) -> str:
    """A number of bytes, with a unit."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


@contextmanager
def file_progress(verb: str, total: int) -> Iterator[bundles.Progress]:
    """A progress bar on stderr over the bytes of files."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(verb, total=total)

        def advance(file: str, done: int) -> None:
            bar.update(task, advance=done, description=printable(f"{verb} {file}"))

        yield advance


def check_plot(path: Path) -> None:
    """Refuse a plot that could not be drawn, before the work that it is to show.

    Raises:
        MissingDependency: there is nothing to draw it with.
        UsageError: no picture can be written at `path`.
    """
    check_picture(path)
    figure_class("demo")
