"""What the user of a talk sees: a line with the state and the microphone's level, and above it what was said.

In: the talk's events, from any thread. Out: on a terminal a live view, otherwise plain lines: the model's answers on
stdout, everything else on stderr.
"""

from __future__ import annotations

import math
from threading import Lock
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from voxrill.runtime.talk.events import (
    AssistantSaid,
    Notice,
    StateChanged,
    TalkEvent,
    ToolCalled,
    TurnEnded,
    UserHeard,
    UserSaid,
    UserSpeaking,
    View,
)
from voxrill.runtime.talk.trace import STAGES, TurnTrace, stages

SPOKEN = "(spoken)"
"""Stands for a spoken question whose transcript did not come."""

METER = 24
"""Characters of the level meter."""

LOUDEST, QUIETEST = 0.0, -60.0
"""dB of full scale at the meter's ends."""

_COLOURS = {"asleep": "dim", "listening": "green", "thinking": "yellow", "speaking": "cyan"}


def make_view(console: Console, out: Console) -> View:
    """The view for these streams: `console` is stderr, `out` stdout."""
    return LiveView(console) if console.is_terminal else PlainView(console, out)


class PlainView:
    """Plain lines: the answers on `out`, the rest on `console`."""

    def __init__(self, console: Console, out: Console) -> None:
        self._console, self._out = console, out
        self._answer = ""
        self._asked: str | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_answer()

    def show(self, event: TalkEvent) -> None:
        """Write a line for what is complete."""
        with self._lock:
            if isinstance(event, UserSaid | UserHeard):
                self._asked = event.text
                self._tell_question(event.text)
            elif isinstance(event, AssistantSaid):
                self._answer += event.piece
            elif isinstance(event, TurnEnded):
                self._tell_question(SPOKEN)
                self._end_answer()
                self._console.print(summary(event.trace), soft_wrap=True)
            elif isinstance(event, Notice):
                self._console.print(event.text, soft_wrap=True)
            elif isinstance(event, ToolCalled):
                self._console.print(f"called: {event.name}", soft_wrap=True)

    def level(self, dbfs: float) -> None:
        """Nothing: lines have no meter."""

    def _tell_question(self, text: str) -> None:
        """Write the question that was asked, once its text is known."""
        if self._asked is not None and text:
            self._console.print(f"you: {text}", soft_wrap=True)
            self._asked = None

    def _end_answer(self) -> None:
        if self._answer:
            self._out.print(self._answer.strip(), soft_wrap=True)
        self._answer = ""


class LiveView:
    """A terminal's view: what was said scrolls up, and the last line is updated in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = Lock()
        self._state = "listening"
        self._level = -math.inf
        self._speaking = 0.0
        self._answer = ""
        self._spoken = False
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=10, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: TalkEvent) -> None:
        """Show an event at the next refresh."""
        with self._lock:
            for line in self._take(event):
                self._console.print(line, soft_wrap=True)

    def level(self, dbfs: float) -> None:
        """Move the meter at the next refresh."""
        self._level = dbfs

    def _take(self, event: TalkEvent) -> list[Text]:
        """The lines that are final with this event."""
        lines = []
        if isinstance(event, StateChanged):
            self._state, self._speaking = event.state, 0.0
        elif isinstance(event, UserSpeaking):
            self._speaking = event.seconds
        elif isinstance(event, UserSaid | UserHeard):
            self._spoken = not event.text
            lines = [] if self._spoken else [_line("you", event.text, "bold")]
        elif isinstance(event, AssistantSaid):
            self._answer += event.piece
        elif isinstance(event, Notice):
            lines = [Text(event.text, style="yellow")]
        elif isinstance(event, ToolCalled):
            lines = [_line("called", event.name, "bold")]
        else:
            lines = [_line("you", SPOKEN, "bold")] if self._spoken else []
            lines += [_line("model", self._answer.strip(), "bold cyan")] if self._answer else []
            lines.append(Text(f"  {summary(event.trace)}", style="dim"))
            self._answer, self._spoken = "", False
        return lines

    def _render(self) -> Group:
        status = Text("● ", style=_COLOURS[self._state])
        status.append(self._state.ljust(10))
        status.append(meter(self._level))
        if self._speaking:
            status.append(f"  you, {self._speaking:.0f} s", style="dim")
        answer = [_line("model", self._answer.strip(), "bold cyan")] if self._answer.strip() else []
        return Group(*answer, status)


def _line(who: str, said: str, style: str) -> Text:
    return Text.assemble((f"{who}: ", style), said)


def meter(dbfs: float) -> str:
    """The level meter: its bar is as long as `dbfs` is above the quietest level."""
    share = (max(dbfs, QUIETEST) - QUIETEST) / (LOUDEST - QUIETEST)
    full = round(METER * min(share, 1.0))
    return "█" * full + "·" * (METER - full)


def summary(trace: TurnTrace) -> str:
    """A turn in one line: how long the answer took, and what went wrong."""
    if trace.waited is not None:
        parts = [f"answered after {1000 * trace.waited:.0f} ms"]
    elif trace.queued is not None and trace.endpoint is not None:
        parts = [f"answered {1000 * (trace.queued - trace.endpoint):.0f} ms after the question"]
    else:
        parts = ["no sound"]
    if trace.barge_in is not None:
        parts.append(f"interrupted after {trace.barge_in:.1f} s")
    if trace.underruns:
        parts.append(f"{trace.underruns} gap{'s' * (trace.underruns > 1)}")
    return ", ".join(parts)


def trace_table(traces: list[TurnTrace]) -> Table:
    """A table of every turn's stages in milliseconds, narrow enough for 80 columns."""
    shown = Table(title="milliseconds of each turn", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("turn", *(name for name, _, _ in STAGES), "waited", "dry", "early", "false"):
        shown.add_column(column, justify="right")
    for trace in traces:
        times = [*stages(trace).values(), trace.waited]
        milliseconds = ["" if time is None else f"{1000 * time:.0f}" for time in times]
        early = "yes" if trace.speculated else "no"
        shown.add_row(str(trace.number), *milliseconds, str(trace.underruns), early, str(trace.false_starts))
    return shown
