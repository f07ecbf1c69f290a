"""A closed-world model's own word on whether a turn is over: whether it is sure of the sentence that it heard.

In: the sound of a turn up to a pause. Out: the end of the turn, or what another judge says. Such a model knows few
sentences. It is sure of a whole one, and unsure of a part of one and of anything else (`python -m benchmarks.turns`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from voxrill.runtime.apps.constrained import PrefilledPrompt
from voxrill.runtime.audio.end_of_turn import AUTO, EndOfTurn, EndOfTurnWish, FinishedModel, PauseJudge, TimelyModel
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.errors import ContextFull

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

SURE = 0.7
"""Probability of the transcript, among all that the model could write, from which a turn is a whole sentence.

Of 26 held-out commands 25 reach it at their end (21 reach 0.8, all reach 0.5). They were also cut at 104 places before:
28 parts reach it, and 24 of those are whole commands ("play some jazz" of "play some jazz in the kitchen"). Of 42 cuts
of other sentences none does."""

LONGEST = 8.0
"""Seconds of sound that may be one of its sentences. Longer turns are not transcribed at every pause."""


class OwnEnd:
    """Asks a model itself. Any thread may call it, while others use the model.

    Args:
        model: a model of a closed world.
        otherwise: judges turns that are no whole sentence of that world; None for the usual silence.
        tell: takes the sentence that the model is given up.
    """

    def __init__(
        self,
        model: Engine,
        otherwise: PauseJudge | None = None,
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._otherwise = otherwise
        self._model = TimelyModel(self.probability, tell)
        self._end = model.parts.tokenizer.closing[0]
        self._prompt = PrefilledPrompt(model, model.manifest.tasks.transcribe.system)
        self._prompt.prefill_all()
        self._asking = Lock()  # the prompt's context is shared by the turns of all streams

    def __call__(self, sound: Floats, options: EndpointOptions) -> float | None:
        """See `PauseJudge`."""
        probability = self._model(sound, options) if len(sound) <= LONGEST * RATE else None
        if probability is not None and probability >= SURE:
            return 0.0
        return self._otherwise(sound, options) if self._otherwise is not None else None

    def probability(self, sound: Floats) -> float:
        """That of the likeliest transcript of a sound (n,) at 16 kHz; 0 where that is empty, or below `SURE`."""
        with self._asking:
            return self._probability(sound)

    def _probability(self, sound: Floats) -> float:
        tokens: list[int] = []
        likely = 0.0
        try:
            text = self._prompt.ask(sound)
            while likely > math.log(SURE):
                (row,) = text.after(tokens, [])
                token = int(row.argmax())
                likely += float(row[token])
                if token == self._end:
                    return math.exp(likely) if tokens else 0.0
                tokens.append(token)
        except ContextFull:  # no sentence is so long
            pass
        return 0.0


def pause_judge(
    model: Engine, wish: EndOfTurnWish | None, ends: FinishedModel | None, tell: Callable[[str], None]
) -> PauseJudge | None:
    """What judges pauses.

    Args:
        model: what hears the turns. If it knows a closed world, and the caller left the choice, it is asked first.
        wish: what the caller wished.
        ends: the model that was found for the wish.
        tell: takes the sentence that a model is given up.
    """
    judge = None if ends is None else EndOfTurn(TimelyModel(ends, tell))
    closed = bool(model.manifest.taught.refusal)
    return OwnEnd(model, judge, tell) if closed and wish in (None, AUTO) else judge
