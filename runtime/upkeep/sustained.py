"""Speaking without a pause for minutes, to see whether a machine keeps its speed: samples of rate, heat and clock.

In: a model and minutes. Out: a sample about every second. The work is that of an answer, again and again: the prompt is
taken in, then frames are made and decoded, whatever the model would say (so random weights do as well).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from voxrill.devices.heat import Sample, clock, temperature
from voxrill.devices.stages import FRAMES
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.sampling import Sampler

ANSWER_FRAMES = 25
"""Two seconds of sound: short enough that slow devices give samples, and that the context never grows."""

SAMPLE_SECONDS = 1.0

Clock = Callable[[], float]


def sustain(model: Engine, seconds: float, now: Clock = time.perf_counter) -> Iterator[Sample]:
    """Speak until `seconds` have passed; a sample's rate is seconds of sound made in a second."""
    begun = now()
    while (start := now()) < begun + seconds:
        answers = 0
        while not answers or now() < start + SAMPLE_SECONDS:
            speak(model)
            answers += 1
        made = answers * ANSWER_FRAMES / FRAMES
        yield Sample(now() - begun, made / (now() - start), temperature(), clock())


def speak(model: Engine) -> None:
    """Make the sound of one answer, and throw it away."""
    context = model.conversation().context
    hidden = context.advance()
    sampling, sampler = model.manifest.tasks.chat.audio, Sampler(0)
    stream = model.codec.stream()
    for _ in range(ANSWER_FRAMES):
        codes = context.frame(hidden, sampling, sampler)
        frame = np.minimum(codes, context.end_of_audio - 1)[:, None]
        stream.push(frame)
        context.add_frames(frame)
        hidden = context.advance()
