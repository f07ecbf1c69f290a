"""The work between a question and the first sound of its answer, and how much of it the endpoint timer hides.

In: turns, each with the trace that the program reported. Out: stages, hidden and remaining work, a table and JSON. The
work is encoder, prefill, the text before the first frame, and that frame. Work before the question is found to be over
is hidden. The user waits for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from rich.table import Table

from benchmarks.talk.asking import AskedTurn
from voxrill.runtime.apps.evaluation.figures import percentile

SHARES = {"median": 0.5, "p90": 0.9, "max": 1.0}

_NEEDED = ("voice_end", "endpoint", "queued", "played")
_WORK = ("encoding", "encoded", "prefilled", "spelled", "first_frame")
_TOLD = ("question_seconds", "answer_seconds", "underruns", "false_starts", "false_start_cpu", "cpu")

_MILLISECONDS = {
    "endpoint": "last voiced block to endpoint",
    "begun": "last voiced block to work begun",
    "encoder": "encoder",
    "prefill": "prefill",
    "text": "text before the first frame",
    "frame": "first frame: step, depthformer, codec",
    "work": "the work: all four",
    "hidden": "of it before the endpoint",
    "left": "of it after the endpoint",
    "queued": "endpoint to first sample queued",
    "held": "held by the jitter buffer",
    "played": "endpoint to first sample played",
    "wait": "last voiced sample to first, recorded",
}


@dataclass(frozen=True)
class FirstSound:
    """One turn, in seconds; `hidden` and `left` add up to `work`.

    question_seconds: seconds of encoded sound; positions: those of prefill; rate: seconds of computing per second of
    the answer; wait: measured in the recording, None if the answer began before the question was over.
    """

    question: str
    question_seconds: float
    positions: int
    endpoint: float
    begun: float
    encoder: float
    prefill: float
    text: float
    frame: float
    work: float
    hidden: float
    left: float
    queued: float
    held: float
    played: float
    wait: float | None
    rate: float
    answer_seconds: float
    underruns: int
    false_starts: int
    false_start_cpu: float
    cpu: float

    @property
    def share(self) -> float:
        """The hidden share of the work, 0 to 1."""
        return self.hidden / self.work


def first_sound(turn: AskedTurn) -> FirstSound | None:
    """The turn's first sound, None if it never came."""
    at: dict[str, Any] = turn.told.get("trace", {})
    if any(at.get(name) is None for name in (*_NEEDED, *_WORK)):
        return None
    times = [at[name] for name in _WORK]
    stages = [after - before for before, after in pairwise(times)]
    work = times[-1] - times[0]
    hidden = min(max(0.0, at["endpoint"] - times[0]), work)
    return FirstSound(
        question=turn.question,
        positions=turn.told["positions"],
        endpoint=at["endpoint"] - at["voice_end"],
        begun=times[0] - at["voice_end"],
        **dict(zip(("encoder", "prefill", "text", "frame"), stages, strict=True)),
        work=work,
        hidden=hidden,
        left=work - hidden,
        queued=at["queued"] - at["endpoint"],
        held=at["played"] - at["queued"],
        played=at["played"] - at["endpoint"],
        wait=turn.wait,
        rate=at["making"] / at["answer_seconds"],
        **{name: at[name] for name in _TOLD},
    )


def figures(sounds: Sequence[FirstSound]) -> dict[str, dict[str, float]]:
    """Percentiles of every time in seconds, of the hidden share, and of the real-time factor."""
    values = {name: [getattr(sound, name) for sound in sounds] for name in (*_MILLISECONDS, "share", "rate")}
    known = {name: [value for value in found if value is not None] for name, found in values.items()}
    return {
        name: {share: round(percentile(found, part), 4) for share, part in SHARES.items()}
        for name, found in known.items()
        if found
    }


def group(name: str, turns: Sequence[AskedTurn]) -> dict[str, Any]:
    """Turns of one kind of question: figures, what went wrong, and every turn."""
    sounds = [sound for sound in map(first_sound, turns) if sound is not None]
    return {
        "questions": name,
        "turns": len(turns),
        "lost": len(turns) - len(sounds),
        "underruns": sum(sound.underruns for sound in sounds),
        "false_starts": sum(sound.false_starts for sound in sounds),
        "false_start_cpu": round(_share([s.false_start_cpu for s in sounds], [s.cpu for s in sounds]), 4),
        "question_seconds": round(_mean([sound.question_seconds for sound in sounds]), 2),
        "positions": round(_mean([sound.positions for sound in sounds])),
        "figures": figures(sounds),
        "each_turn": [{**asdict(sound), "share": sound.share} for sound in sounds],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _share(parts: Sequence[float], wholes: Sequence[float]) -> float:
    return sum(parts) / sum(wholes) if wholes else 0.0


def table(groups: Sequence[dict[str, Any]], title: str) -> Table:
    """A row for each time, in ms: median, 90 % and longest for each kind of question."""
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("")
    for one in groups:
        drawn.add_column(f"{one['questions']}: median / p90 / max", justify="right")
    for name, words in _MILLISECONDS.items():
        drawn.add_row(f"{words}, ms", *(_cell(one, name, lambda value: f"{1000 * value:.0f}") for one in groups))
    drawn.add_row("hidden share of the work, %", *(_cell(one, "share", lambda v: f"{100 * v:.0f}") for one in groups))
    drawn.add_row("computing per second of sound, s", *(_cell(one, "rate", lambda v: f"{v:.2f}") for one in groups))
    for name in ("turns", "lost", "underruns", "false_starts", "positions", "question_seconds"):
        drawn.add_row(name.replace("_", " "), *(str(one[name]) for one in groups))
    drawn.add_row("processor time of false starts, %", *(f"{100 * one['false_start_cpu']:.0f}" for one in groups))
    return drawn


def _cell(one: dict[str, Any], name: str, written: Callable[[float], str]) -> str:
    found = one["figures"].get(name)
    return "-" if found is None else " / ".join(written(found[share]) for share in SHARES)
