"""Recorded turns: what graphs get when a model hears a sound and answers it.

In: a loaded model and a sound. Out: a `CapturedTurn`. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.manifest import Sampling, Task
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Token

Floats = NDArray[np.float32]

GREEDY = Sampling()


@dataclass(frozen=True)
class CapturedTurn:
    """One recorded turn.

    sound: what was heard; rows (n, hidden): prompt and answer; heard: which rows belong to the sound; prompt: how many
    rows at the beginning are the prompt; steps: the answer.
    """

    sound: Floats
    rows: Floats
    heard: slice
    prompt: int
    steps: list[Token | Frame]

    @property
    def written(self) -> NDArray[np.bool_]:
        """Which rows are embeddings of text: neither heard nor spoken."""
        found = np.ones(len(self.rows), bool)
        found[self.heard] = False
        found[self.prompt :] = [isinstance(step, Token) for step in self.steps]
        return found

    def answered(self, hidden: Floats) -> Iterator[tuple[Token | Frame, Floats]]:
        """Each step of the answer with the hidden state before it; `hidden` (n, hidden) is that of all rows."""
        yield from zip(self.steps, hidden[self.prompt - 1 :], strict=False)


def record(model: Engine, sound: Floats, task: Task) -> CapturedTurn:
    """Record a turn: a sound (samples,) at 16 kHz and the model's answer."""
    context, parts = model.conversation(system=task.system).context, model.parts
    with context.turn("user"):
        start = context.positions
        context.add_audio(sound)
        heard = slice(start, context.positions)
    context.open_turn("assistant")
    prompt = context.waiting
    steps = list(Generation(context, GenerationOptions(task.mode, GREEDY, GREEDY, task.max_new_tokens)))
    answer = [
        parts.embed_tokens([step.id]) if isinstance(step, Token) else parts.embed_frames(step.codes[:, None])
        for step in steps
    ]
    return CapturedTurn(sound, np.concatenate([prompt, *answer]), heard, len(prompt), steps)
