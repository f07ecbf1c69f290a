"""Will it run? How long a model takes on a machine for each task, and the verdict: real time, buffered, or no.

In: a model and a machine, as plain numbers. Out: plans. The times come from `stages.py`, which derives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voxrill.devices.memory import gigabytes
from voxrill.devices.stages import FRAMES, PROMPT, QUESTION, Machine, ModelShape, StageSeconds

Task = Literal["transcribe", "speak", "talk"]
TASKS: tuple[Task, ...] = ("transcribe", "speak", "talk")

SAID = 60
"""Positions of a text to say aloud, with its system prompt."""
SPOKEN_TOKENS = 4.0
"""Tokens of text in a second of speech."""
ANSWER = 10.0
MARGIN = 1.1
"""Real time is promised only with this much to spare: sound that stutters is worse than a warning."""
SMALL = 100e6
SMALL_MARGIN = 12.0
"""In a decoder with fewer weights than this, small operators take longer than products. A prediction is then a lower
bound. The built-in model, of 2e6 weights, took 1.2 to 11 times as long (`benchmarks.run --quick`, one sample for each
stage, 1 and 2 threads)."""
SLOWEST = 3.0
"""Seconds of work for a second of sound; where a machine needs more, waiting makes no sense."""

LIVE = 5.0
"""Seconds of waiting before 10 s of sound beyond which nobody talks with a machine."""

Verdict = Literal["real time", "buffered", "not on this device"]


@dataclass(frozen=True)
class Plan:
    """One task at one precision: predicted seconds, and whether they are short enough.

    step: of the decoder, with text head; real_time_factor: seconds of work for a second of sound; first: seconds to the
    first sound, or for transcribe to the first word, after a question of 4 s; delay: seconds to wait before playing, so
    that 10 s of sound do not stutter; memory: bytes; reason: why not.
    """

    task: Task
    precision: str
    threads: int
    step: float
    real_time_factor: float
    first: float
    memory: float
    verdict: Verdict
    delay: float = 0.0
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether the wait is short enough to listen while the sound is made."""
        return self.verdict != "not on this device" and self.delay <= LIVE


def plan(task: Task, model: ModelShape, machine: Machine, threads: int) -> Plan:
    """Predict one task."""
    stages = StageSeconds(model, machine, threads)
    model = stages.model  # as this machine holds it
    step = stages.step(head=True)
    if task == "talk":
        factor, first = stages.speech(), stages.first_audio()
    elif task == "speak":
        factor, first = FRAMES * stages.sound(), stages.prefill(SAID) + stages.sound()
    else:
        first = stages.encoder(QUESTION) + stages.prefill(PROMPT + FRAMES * QUESTION)
        factor = first / QUESTION + SPOKEN_TOKENS * step
    verdict, delay, reason = judge(factor, model.memory, machine.memory, margin(model))
    return Plan(task, model.precision, threads, step, factor, first, model.memory, verdict, delay, reason)


def margin(model: ModelShape) -> float:
    """How many times longer than predicted a model may take, to be safe."""
    return SMALL_MARGIN if model.decoder.count < SMALL else MARGIN


def judge(factor: float, needed: float, memory: float, spare: float = MARGIN) -> tuple[Verdict, float, str]:
    """The verdict, the delay that buffering takes, and the reason for a no."""
    if needed > memory:
        return "not on this device", 0.0, f"needs {gigabytes(needed)} of memory, {gigabytes(memory)} are free"
    # Sound plays as fast as it is made only if a second of it takes less than a second, with the margin.
    if factor * spare <= 1:
        return "real time", 0.0, ""
    if factor <= SLOWEST:
        # What is missing at the end of the answer has to be there before it begins.
        return "buffered", (factor * spare - 1) * ANSWER, ""
    return "not on this device", 0.0, f"takes {factor:.1f} times as long as the sound lasts"


def best(plans: list[Plan]) -> Plan | None:
    """The plan to take, out of `plans` in the order of their bits, most first.

    It is the first that runs in real time; else the fastest that is buffered; None where none will do.
    """
    for entry in plans:
        if entry.verdict == "real time":
            return entry
    buffered = [entry for entry in plans if entry.verdict == "buffered"]
    return min(buffered, key=lambda entry: entry.real_time_factor, default=None)
