"""Speaking for minutes without a pause: does a machine keep its speed? Samples of rate, heat, clock and energy.

In: a model and a time. Out: a sample about every second. The work is that of an answer, again and again: prefill of the
prompt, then a fixed number of frames, which are decoded to sound. So a model with random weights gives the same
figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from voxrill.devices.energy import Meter
from voxrill.devices.heat import Sample, clock, temperature
from voxrill.devices.stages import FRAMES
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.sampling import Sampler

ANSWER_FRAMES = 25
"""Two seconds of sound: slow devices still give samples, and the context stays short."""

SAMPLE_SECONDS = 1.0

Clock = Callable[[], float]


def sustain(
    model: Engine, seconds: float, now: Clock = time.perf_counter, meter: Meter | None = None
) -> Iterator[Sample]:
    """Speak until `seconds` have passed. A sample's rate is the seconds of sound that were made in a second."""
    begun = now()
    used = meter.joules() if meter else None
    while (start := now()) < begun + seconds:
        answers = 0
        while not answers or now() < start + SAMPLE_SECONDS:  # at least one answer, however slow the device is
            speak(model)
            answers += 1
        made = answers * ANSWER_FRAMES / FRAMES
        before, used = used, meter.joules() if meter else None
        joules = None if before is None or used is None else (used - before) / made
        yield Sample(now() - begun, made / (now() - start), temperature(), clock(), joules)


def speak(model: Engine) -> None:
    """Make the sound of one answer, and discard it."""
    context = model.conversation().context
    hidden = context.advance()
    sampling, sampler = model.manifest.tasks.chat.audio, Sampler(0)
    stream = model.codec.stream()
    for _ in range(ANSWER_FRAMES):
        codes = context.frame(hidden, sampling, sampler)
        frame = np.minimum(codes, context.end_of_audio - 1)[:, None]  # never the end: every answer has the same length
        stream.push(frame)
        context.add_frames(frame)
        hidden = context.advance()
