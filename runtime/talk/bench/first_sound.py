"""What lies between a question and the first sound of its answer, and how much of it the endpoint timer hides. Pure.

In: turns, each with the trace that the program told. Out: stages, what was hidden and what remained, a table and JSON.
The work is encoder, prefill, the text before the first frame, and that frame; what of it was done when the question was
decided to be over is hidden, the rest is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from rich.table import Table

from voxrill.runtime.talk.bench.asking import Asked
from voxrill.runtime.talk.bench.measuring import percentile
from voxrill.runtime.talk.trace import TurnTrace

SHARES = {"median": 0.5, "p90": 0.9, "max": 1.0}

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

    question_seconds: of sound that was encoded; positions: taken in by prefill; rate: seconds of computing per second
    of the answer; wait: read off the recording, None if the answer began before the question was over.
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
        """Of the work, how much was hidden: 0 to 1."""
        return self.hidden / self.work


def first_sound(turn: Asked) -> FirstSound | None:
    """The turn's first sound, None if it never came."""
    trace = msgspec.convert(turn.told.get("trace", {"number": 0}), TurnTrace)
    if None in (trace.voice_end, trace.endpoint, trace.first_frame, trace.played):
        return None
    times = [getattr(trace, name) for name in ("encoding", "encoded", "prefilled", "spelled", "first_frame")]
    work, hidden = times[-1] - times[0], min(max(0.0, trace.endpoint - times[0]), times[-1] - times[0])
    return FirstSound(
        question=turn.question,
        question_seconds=trace.question_seconds,
        positions=turn.told["positions"],
        endpoint=trace.endpoint - trace.voice_end,
        begun=times[0] - trace.voice_end,
        **dict(zip(("encoder", "prefill", "text", "frame"), _between(times), strict=True)),
        work=work,
        hidden=hidden,
        left=work - hidden,
        queued=trace.queued - trace.endpoint,
        held=trace.played - trace.queued,
        played=trace.played - trace.endpoint,
        wait=turn.wait,
        rate=trace.making / trace.answer_seconds,
        answer_seconds=trace.answer_seconds,
        underruns=trace.underruns,
        false_starts=trace.false_starts,
        false_start_cpu=trace.false_start_cpu,
        cpu=trace.cpu,
    )
