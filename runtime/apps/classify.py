"""Classification: a sound and some labels in, a probability for each label out. No free text is parsed.

Each label is scored by the likelihood of its tokens after one prompt, which is prefilled once for all of them. The
scores are divided by a prior: the model's answer to the prompt with no sound in it (contextual calibration, Zhao et al.
2021). Silence would be a wrong prior, because Pebble was taught an answer to silence: dividing by that one took the
styles that it names rightly from 91 % to 71 %, dividing by its answer to no sound left 91 %. That answer says little of
labels that it hardly ever gives, so half of the prior is uniform: then 92 % are right. Of the intents 99 % are right
without calibration and with this one, and 97 % with a prior that is not half uniform (90 and 105 clips of voices that
Pebble was trained on, on which this was chosen).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.apps.constrained import PrefilledPrompt, log_probabilities
from voxrill.runtime.apps.token_tree import TokenTree
from voxrill.runtime.audio.sound_source import AudioSource
from voxrill.runtime.errors import UsageError

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

TASK = "intent"
"""What labels name unless a task is given."""

UNIFORM = 0.5
"""The share of a uniform distribution in the prior."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Classification:
    """The labels of a sound, with probabilities.

    probabilities: of each label, calibrated, the likeliest first; they add up to 1. uncalibrated: the same without the
    prior. mass: the probability that the model answers with any of the labels; low where no label fits.
    """

    probabilities: dict[str, float]
    uncalibrated: dict[str, float]
    mass: float

    @property
    def label(self) -> str:
        """The likeliest label."""
        return next(iter(self.probabilities))


class Classifier:
    """Finds out which of some labels fits a sound. `classify` may be called any number of times.

    Args:
        model: what listens.
        labels: at least two; None for those that the model was taught for the task, if it was.
        task: what the labels name: intent, emotion, style, language ...
        system: a prompt of your own instead of the one that asks for the task.

    Raises:
        UsageError: there are too few labels, or two are the same.
        UnknownText: the model does not know their words, or the prompt's.
    """

    def __init__(
        self, model: Engine, labels: Sequence[str] | None = None, task: str = TASK, system: str | None = None
    ) -> None:
        taught = model.manifest.taught.labels
        self.labels = _checked(taught.get(task, ()) if labels is None else labels, task, taught)
        if system is None:
            system = f"Name the {task}."
            if task not in taught:
                system += f" Answer with one of: {', '.join(self.labels)}."
        self._parts = model.parts
        tokenizer = model.parts.tokenizer
        tokens = [tokenizer.encode(label) for label in self.labels]
        for place, label in enumerate(self.labels):
            if tokens.index(tokens[place]) < place:
                same = self.labels[tokens.index(tokens[place])]
                raise UsageError(f"{label!r} and {same!r} are the same label to this model", "Leave one out")
        self._tree = TokenTree(tokens, tokenizer.ids["im_end"])
        self._prompt = PrefilledPrompt(model, system)
        own = _normalised(log_probabilities(self._tree, self._prompt.ask()))
        self._log_prior = np.log((1 - UNIFORM) * own + UNIFORM / len(own))

    def classify(self, audio: AudioSource, trim: bool | None = None, sample_rate: int | None = None) -> Classification:
        """The probability of every label.

        Args:
            audio: see `AudioSource`.
            trim: hear only the speech in it; None for what suits the model.
            sample_rate: Hz of an array.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
            ContextFull: it is too long for the model.
        """
        scores = log_probabilities(self._tree, self._prompt.ask(self._parts.waveform(audio, trim, sample_rate)))
        calibrated = _normalised(scores - self._log_prior)
        return Classification(
            self._named(calibrated), self._named(_normalised(scores)), float(np.exp(scores).sum().clip(max=1.0))
        )

    def _named(self, probabilities: Doubles) -> dict[str, float]:
        order = np.argsort(-probabilities, kind="stable")
        return {self.labels[place]: float(probabilities[place]) for place in order}


def _checked(labels: Sequence[str], task: str, taught: Iterable[str]) -> tuple[str, ...]:
    found = tuple(label.strip() for label in labels)
    if len(found) < 2 or not all(found):
        known = ", ".join(taught)
        raise UsageError(
            f"there are no labels to tell apart for the task {task!r}",
            "Give at least two: --labels happy,angry,neutral"
            + (f"; this model knows those of: {known}" if known else ""),
        )
    return found


def _normalised(log_scores: Doubles) -> Doubles:
    scores = np.exp(log_scores - log_scores.max())
    result: Doubles = scores / scores.sum()
    return result
