"""The live view of a transcription: stable text scrolls up, the last lines show tentative text and the state.

In: events, the microphone's level, how much was heard. Out: a live view on stderr if that is a terminal. Otherwise,
for a long sound that is written to a file, a line for each tenth of it. Segments are data: they go to stdout or a file,
and not through here.
"""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from voxrill.runtime.apps.subtitles import clock
from voxrill.runtime.apps.transcript import SegmentEvent, TranscriptEvent
from voxrill.runtime.progress import Lines, remaining
from voxrill.runtime.talk.view import meter

LONG = 60.0
"""Seconds of a sound from which its progress is written without a terminal."""


class TranscriptView:
    """The view, within a `with` block.

    Args:
        console: stderr.
        total: seconds of a file; None for a microphone.
        text: whether stable text is shown here; True where it goes to a file, and so not to the terminal.
        shown: whether there is a view at all. Without a terminal there is none anyway.
    """

    def __init__(self, console: Console, total: float | None, text: bool, shown: bool = True) -> None:
        self._console = console
        self._total, self._text = total, text
        self._tentative = ""
        self._level = -math.inf
        self._heard = 0.0
        self._started = time.perf_counter()
        self._lines = Lines("transcribing", lambda line: console.print(line, style="dim", soft_wrap=True))
        self._in_lines = text and not console.is_terminal and total is not None and total >= LONG
        # If stdout is a terminal too, rich prints its text above the view. If it is a file, rich must not touch it.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._shown = shown and console.is_terminal

    def __enter__(self) -> Self:
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._live.stop()

    def show(self, event: TranscriptEvent) -> None:
        """Show an event: tentative text replaces the tentative text before, stable text removes it."""
        stable = isinstance(event, SegmentEvent)
        self._tentative = "" if stable else event.text
        if isinstance(event, SegmentEvent) and event.loop:
            self._console.print(
                f"At {clock(event.start)} the model repeated itself without end; the text was cut", style="yellow"
            )
        if stable and self._shown and self._text:
            self._console.print(Text(event.text), soft_wrap=True)
        if self._shown:
            self._live.refresh()  # its own next refresh may be 100 ms away

    def level(self, dbfs: float) -> None:
        """Set the meter, which the next refresh shows. May be called from any thread."""
        self._level = dbfs

    def heard(self, seconds: float) -> None:
        """Set how many seconds of the sound were transcribed."""
        self._heard = seconds
        if self._in_lines and self._total is not None:
            self._lines.step("", min(seconds, self._total), self._total, self._progress(self._total))

    def _progress(self, total: float) -> str:
        return f"{clock(self._heard)[:8]} of {clock(total)[:8]}"

    def _render(self) -> RenderableType:
        tentative = [Text(self._tentative, style="dim italic")] if self._tentative else []
        return Group(*tentative, self._status())

    def _status(self) -> RenderableType:
        if self._total is None:
            return Text.assemble(("● ", "green"), "listening ", meter(self._level), "  Ctrl-C ends it")
        bar = Table.grid(padding=(0, 1))
        left = remaining(time.perf_counter() - self._started, self._heard, self._total)
        bar.add_row(
            ProgressBar(max(self._total, self._heard), self._heard, width=40), self._progress(self._total), left
        )
        return bar
