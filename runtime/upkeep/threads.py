"""How many threads are best here: short, interleaved measurements of what an answer is made of.

In: a bundle. Out: milliseconds of a prefill, a decode step and an audio frame for each number of threads, and the
best number. Each round measures every number once, so that other programs disturb all alike; medians count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from statistics import median
from typing import TypeVar

import numpy as np

from voxrill.devices.processor import cores
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.tuned import PLAIN, TunedForm
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.sampling import Sampler

CANDIDATES = (1, 2, 3, 4, 6, 8)
PREFILL = 32
"""Positions of the prefill that is timed."""

PREFILLS, STEPS, FRAMES = 4, 36, 24
"""A spoken question of 4 s and two seconds of interleaved answer: what the best number of threads is best for."""

TURNS = 4
"""Times every number of threads has its turn; the first warms up."""

_REPEATS = 3
_WORTH = 0.97
"""More threads must save 3 % to be worth their power."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Timings = dict[int, dict[str, float]]


def candidates() -> list[int]:
    """Numbers of threads that are tried on this machine."""
    return [count for count in CANDIDATES if count <= cores()] or [1]


def sweep(bundle: Bundle, tuned: TunedForm, progress: Callable[[str], None]) -> Timings:
    """Milliseconds by number of threads and stage; `progress` is told of each of `TURNS`."""
    models = {count: Engine(bundle, count, tuned) for count in candidates()}
    return _in_turn(models, lambda: progress("timing numbers of threads"))


def mapped_and_copied(
    bundle: Bundle, tuned: TunedForm, count: int, progress: Callable[[str], None]
) -> tuple[float, float]:
    """Milliseconds of an answer with mapped weights, and with weights copied onto huge pages, measured in turn."""
    models = {name: Engine(bundle, count, form) for name, form in (("mapped", tuned), ("copied", PLAIN))}
    for model in models.values():
        model.huge_pages.wait()
    found = _in_turn(models, lambda: progress("timing mapped weights"))
    return _total(found["mapped"]), _total(found["copied"])


def _in_turn(models: Mapping[K, Engine], progress: Callable[[], None]) -> dict[K, dict[str, float]]:
    """Median milliseconds by model and stage."""
    samples: dict[K, list[dict[str, float]]] = {name: [] for name in models}
    for turn in range(TURNS):
        progress()
        for name, model in models.items():
            taken = _answer(model)
            if turn:
                samples[name].append(taken)
    return {
        name: {stage: round(median(taken[stage] for taken in found), 3) for stage in found[0]}
        for name, found in samples.items()
    }


def best(timings: Timings) -> int:
    """The number of threads that answers first. Of numbers that are nearly equal, the smallest."""
    chosen, *others = sorted(timings)
    for count in others:
        if _total(timings[count]) < _WORTH * _total(timings[chosen]):
            chosen = count
    return chosen


def _total(stages: dict[str, float]) -> float:
    return PREFILLS * stages["prefill"] + STEPS * stages["step"] + FRAMES * stages["frame"]


def _answer(model: Engine) -> dict[str, float]:
    """One prefill, and the medians of a few steps and frames after it, in milliseconds."""
    context = model.conversation(system="").context
    context.add_tokens([0] * PREFILL)
    hidden, prefill = _timed(context.advance)
    sampling, sampler = model.manifest.tasks.chat.audio, Sampler(0)
    steps, frames = [], []
    for _ in range(_REPEATS):
        codes, taken = _timed(partial(context.frame, hidden, sampling, sampler))
        frames.append(taken)
        context.add_frames(np.minimum(codes, context.end_of_audio - 1)[:, None])
        hidden, taken = _timed(context.advance)
        steps.append(taken)
    return {"prefill": prefill, "step": median(steps), "frame": median(frames)}


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - start)
