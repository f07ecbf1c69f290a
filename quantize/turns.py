"""Real turns, recorded: what the graphs are given when a model hears a question and answers it.

In: a loaded model and a sound. Out: a `Turn`. Greedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.generate import Frame, Generation, Options, Token
from voxrill.runtime.manifest import Sampling
from voxrill.runtime.model import Model

Floats = NDArray[np.float32]

GREEDY = Sampling()


@dataclass
class Turn:
    """One turn as the first model lived it: rows (n, hidden) of prompt and answer, and the answer's steps."""

    rows: Floats
    prompt: int
    steps: list[Token | Frame]

    def answered(self, hidden: Floats) -> Iterator[tuple[Token | Frame, Floats]]:
        """Each step of the answer with the hidden state it came from; hidden (n, hidden) of all rows."""
        yield from zip(self.steps, hidden[self.prompt - 1 :], strict=False)


def record(model: Model, sound: Floats) -> Turn:
    """A spoken question and its answer, as embeddings and steps."""
    task = model.manifest.tasks.chat
    context = model.conversation().context
    with context.turn("user"):
        context.add_audio(sound)
    context.open_turn("assistant")
    prompt = context.waiting
    steps = list(Generation(context, Options(task.mode, GREEDY, GREEDY, task.max_new_tokens)))
    parts = model.parts
    answer = [
        parts.embed_tokens([step.id]) if isinstance(step, Token) else parts.embed_frames(step.codes[:, None])
        for step in steps
    ]
    return Turn(np.concatenate([prompt, *answer]), len(prompt), steps)
