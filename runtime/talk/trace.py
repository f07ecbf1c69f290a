"""What takes how long in a turn, from the user's last sound to the first sound of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxrill.runtime.audio.protocols import Player
from voxrill.runtime.events import AudioEvent, Event, StageEvent, TextEvent
from voxrill.runtime.version import MAKER


@dataclass(frozen=True)
class TurnTrace:
    """One turn. Times are `time.perf_counter()` seconds, None for what did not happen.

    woke: the wake word was heard; voice_end: the user's last voiced sample was captured; paused: the short silence was
    noticed; endpoint: the turn was decided to be over; encoding: the answer was begun; encoded, prefilled, first_token,
    first_frame: each was done; spelled: the last text token before the first frame was done; queued: the first sample
    went to the player; played: it left for the device; ended: the turn was over.

    making: seconds that the answer's text tokens and frames took. underruns: gaps in its sound, because the player had
    nothing to play. speculated: the answer was begun before the endpoint. false_starts: answers that were begun and
    withdrawn in this turn, and false_start_cpu: the processor seconds that they took, out of `cpu`. barge_in: seconds
    of the answer that were played before the user interrupted it, None if the user did not.
    """

    number: int
    woke: float | None = None
    voice_end: float | None = None
    paused: float | None = None
    endpoint: float | None = None
    encoding: float | None = None
    encoded: float | None = None
    prefilled: float | None = None
    first_token: float | None = None
    spelled: float | None = None
    first_frame: float | None = None
    queued: float | None = None
    played: float | None = None
    ended: float | None = None
    making: float = 0.0
    underruns: int = 0
    speculated: bool = False
    false_starts: int = 0
    false_start_cpu: float = 0.0
    cpu: float = 0.0
    question_seconds: float = 0.0
    answer_seconds: float = 0.0
    barge_in: float | None = None

    @property
    def waited(self) -> float | None:
        """Seconds from the user's last voiced sample to the first sample of the answer that was played."""
        return None if self.played is None or self.voice_end is None else self.played - self.voice_end


_FIRSTS: dict[type[Any], str] = {TextEvent: "first_token", AudioEvent: "first_frame"}


class Tracer:
    """Collects the trace of one turn.

    Args:
        number: of the turn.
        cpu: seconds that this process has computed.
    """

    def __init__(self, number: int, cpu: Callable[[], float]) -> None:
        self._number = number
        self._cpu = cpu
        self._began_cpu = cpu()
        self._attempt_cpu = self._began_cpu
        self._false_starts = 0
        self._false_start_cpu = 0.0
        self._known: dict[str, Any] = {}
        self.making = 0.0
        """Seconds spent on text tokens and frames."""

    def begin(
        self, voice_end: float | None, paused: float | None, question_seconds: float, woke: float | None = None
    ) -> None:
        """An answer is begun, perhaps before the turn is over."""
        self._known = {"woke": woke, "voice_end": voice_end, "paused": paused, "question_seconds": question_seconds}
        self._attempt_cpu = self._cpu()
        self.making = 0.0

    def false_start(self) -> None:
        """It was begun too early, and is withdrawn."""
        self._false_starts += 1
        self._false_start_cpu += self._cpu() - self._attempt_cpu

    def endpoint(self, at: float) -> None:
        """The turn was decided to be over."""
        self._known["endpoint"] = at
        self._known["speculated"] = "encoding" in self._known

    def made(self, event: Event | StageEvent, started: float, ended: float) -> None:
        """A part of the answer was made between two times."""
        self._known.setdefault("encoding", started)
        if isinstance(event, StageEvent) and event.stage != "encoded":
            self._known.setdefault("encoded", started)  # a typed question is not encoded
        if isinstance(event, StageEvent):
            if event.stage != "prefilling":
                self._known[event.stage] = ended
            return
        self.making += ended - started
        if isinstance(event, TextEvent) and "first_frame" not in self._known:  # the last one before it is kept
            self._known["spelled"] = ended
        first = _FIRSTS.get(type(event))
        if first:
            self._known.setdefault(first, ended)

    def ended(self, at: float, player: Player | None, answer_seconds: float, barge_in: float | None) -> TurnTrace:
        """The turn is over; `player` is the one that played the answer, None if it was never played."""
        if player is not None:
            self._known["queued"] = player.first_queued()
            self._known["played"] = player.first_played()
            self._known["underruns"] = player.underruns()
        return TurnTrace(
            number=self._number,
            ended=at,
            making=self.making,
            false_starts=self._false_starts,
            false_start_cpu=self._false_start_cpu,
            cpu=self._cpu() - self._began_cpu,
            answer_seconds=answer_seconds,
            barge_in=barge_in,
            **self._known,
        )


_OWN_TRACK = ("endpoint", "queued", "played")
"""Stages that run beside the others, and so have a row of their own."""

STAGES = (
    ("endpoint", "voice_end", "endpoint"),
    ("encoder", "encoding", "encoded"),
    ("prefill", "encoded", "prefilled"),
    ("text", "prefilled", "spelled"),
    ("frame", "spelled", "first_frame"),
    ("queued", "endpoint", "queued"),
    ("played", "queued", "played"),
)
"""The stages of a turn: name, the time at which each begins, the time at which it is done."""


def stages(trace: TurnTrace) -> dict[str, float | None]:
    """Seconds of each stage of a turn, None for those that did not happen."""
    found = {}
    for name, begin, end in STAGES:
        begins, ends = getattr(trace, begin), getattr(trace, end)
        found[name] = None if begins is None or ends is None else ends - begins
    return found


def chrome_trace(traces: list[TurnTrace]) -> dict[str, Any]:
    """The turns in the format of a browser's tracing page (chrome://tracing, ui.perfetto.dev), in microseconds."""
    events = []
    for trace in traces:
        for name, begin, end in (("question", "woke", "voice_end"), *STAGES, ("turn", "voice_end", "ended")):
            begins, ends = getattr(trace, begin), getattr(trace, end)
            if begins is not None and ends is not None:
                track = {"pid": 1, "tid": 2 if name in _OWN_TRACK else 1, "args": {"turn": trace.number}}
                events.append({"name": name, "ph": "X", "ts": 1e6 * begins, "dur": 1e6 * (ends - begins), **track})
    return {"otherData": {"generator": MAKER}, "displayTimeUnit": "ms", "traceEvents": events}
