"""The tasks: how the model gets an item, and what is right about its answer.

In: items. Out: an `Outcome` for each, and marks. A mark is a number of errors or hits and the number that was possible.
Marks have the name of their figure. Sound of up to half a minute is decoded before the clock starts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from voxrill.runtime.apps.evaluation.items import Item, Outcome
from voxrill.runtime.apps.evaluation.judges import Judge
from voxrill.runtime.apps.evaluation.recordings import file_name
from voxrill.runtime.apps.evaluation.voicebench import SUBSETS
from voxrill.runtime.apps.evaluation.words import Normaliser, word_errors
from voxrill.runtime.apps.transcription import transcribe
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.sound_writer import write_sound
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.events import EndEvent, Result

Mark = tuple[float, float]
"""How many of how many: word errors of words, or 1 of 1."""

WER, SENTENCES, INVENTED = "WER", "sentences right", "words in silence"
RIGHT, SAID_RIGHT, UNREADABLE = "right", "said right", "unreadable"
"""The figures."""


class ModelKeywords(TypedDict, total=False):
    """What a model gets with every item: a system prompt, and options of `AnswerOptions`."""

    system: str | None
    max_new_tokens: int | None
    seed: int


@dataclass
class EvaluationTask(ABC):
    """What a model has to do.

    name: as on the command line; model: answers; items: the questions; normalise: removes differences that do not
    count; options:
    `system`, `seed` and `max_new_tokens` for the model.
    """

    name: str
    model: Engine
    items: Sequence[Item]
    normalise: Normaliser
    options: ModelKeywords

    @abstractmethod
    def answer(self, item: Item) -> Outcome:
        """The model's answer.

        Raises:
            AudioFileError: the item's sound cannot be used.
            ContextFull: it does not fit into the model's context.
        """

    @abstractmethod
    def marks(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> Mapping[str, list[Mark]]:
        """What is right about the outcomes of `items`, all of one group."""


@dataclass
class Hearing(EvaluationTask):
    """asr: writing down speech."""

    def answer(self, item: Item) -> Outcome:
        """The transcript, as `transcribe` makes it."""
        assert item.audio is not None
        cut = item.offset or item.duration is not None
        heard = transcribe(self.model, (sound_of(item), SAMPLE_RATE) if cut else item.audio, **self.options)
        return Outcome(
            id=item.id, text=heard.text, seconds=heard.seconds, first=heard.first_text, audio_seconds=heard.duration
        )

    def marks(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> Mapping[str, list[Mark]]:
        """Word errors, sentences without errors, and sounds without words in which the model heard words."""
        return word_marks(items, outcomes, self.normalise)


@dataclass
class Speaking(EvaluationTask):
    """tts: saying a text, which a judge hears.

    judged: whether there is a judge, here or elsewhere; folder: where the sounds are kept, None for nowhere.
    """

    judge: Judge | None
    judged: bool
    voice: str | None
    folder: Path | None

    def answer(self, item: Item) -> Outcome:
        """What the judge hears; its time does not count."""
        result = self.model.speak(item.prompt, voice=self.voice, **self.options).result
        if self.folder is not None:
            write_sound(self.folder / f"{file_name(item.id)}.wav", result.samples, result.sample_rate)
        heard = self.judge(result.samples, result.sample_rate) if self.judge else ""
        return Outcome(
            id=item.id,
            text=heard,
            seconds=result.seconds,
            first=result.first_audio,
            audio_seconds=result.audio_seconds,
        )

    def marks(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> Mapping[str, list[Mark]]:
        """Word errors, and sentences without errors, in what the judge heard; nothing without a judge."""
        if not self.judged and not any(one.text for one in outcomes):
            return {}
        return word_marks(items, outcomes, self.normalise)


@dataclass
class Chatting(EvaluationTask):
    """chat: answering a question, in text or aloud (output "both"); a judge may hear the spoken answer."""

    output: Output
    judge: Judge | None

    def answer(self, item: Item) -> Outcome:
        """The answer's text, and what the judge hears in it."""
        result = asked(self.model, item, self.output, self.options)
        heard = self.judge(result.samples, result.sample_rate) if self.judge else None
        return _answered(item, result, heard)

    def marks(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> Mapping[str, list[Mark]]:
        """Answers that are right after normalising; and the same for what the judge heard."""
        marks = {RIGHT: [self._mark(item, one.text) for item, one in zip(items, outcomes, strict=True)]}
        if any(one.heard is not None for one in outcomes):
            marks[SAID_RIGHT] = [self._mark(item, one.heard or "") for item, one in zip(items, outcomes, strict=True)]
        return marks

    def _mark(self, item: Item, text: str) -> Mark:
        return float(self.normalise(item.wanted) == self.normalise(text)), 1.0


@dataclass
class VoiceBench(EvaluationTask):
    """voicebench: answering; each subset has its own rule, or none. written: the model gets the prompt in writing."""

    output: Output
    written: bool

    def answer(self, item: Item) -> Outcome:
        """The answer's text."""
        return _answered(item, asked(self.model, item, self.output, self.options, self.written))

    def marks(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> Mapping[str, list[Mark]]:
        """By the rule of their subset."""
        subset = SUBSETS[items[0].group.split("/")[0]]
        if subset.rule is None:
            return {}
        found = [subset.rule(item, one.text, self.normalise) for item, one in zip(items, outcomes, strict=True)]
        marks = {subset.figure: [(float(bool(right)), 1.0) for right in found]}
        if None in found:
            marks[UNREADABLE] = [(float(right is None), 1.0) for right in found]
        return marks


def sound_of(item: Item) -> Floats:
    """The part of an item's sound that counts: (n,) at 16 kHz."""
    assert item.audio is not None
    samples = read_audio(item.audio)
    begin = round(item.offset * SAMPLE_RATE)
    end = None if item.duration is None else begin + round(item.duration * SAMPLE_RATE)
    return samples[begin:end]


def asked(model: Engine, item: Item, output: Output, options: ModelKeywords, written: bool = False) -> Result:
    """The model's answer to an item's sound, or to its prompt if there is no sound or `written` is set."""
    spoken = item.audio is not None and not written
    audio, text = (sound_of(item), None) if spoken else (None, item.prompt)
    *_, end = model.chat(audio=audio, text=text, output=output, sample_rate=SAMPLE_RATE if spoken else None, **options)
    assert isinstance(end, EndEvent)
    return end.result


def word_marks(items: Sequence[Item], outcomes: Sequence[Outcome], normalise: Normaliser) -> dict[str, list[Mark]]:
    """Word errors and right sentences; for sounds without words, whether the model heard some."""
    right, said = [normalise(item.wanted) for item in items], [normalise(one.text) for one in outcomes]
    marks: dict[str, list[Mark]] = {
        WER: [(float(errors), float(words)) for errors, words in word_errors(right, said)],
        SENTENCES: [(float(a == b), 1.0) for a, b in zip(right, said, strict=True)],
    }
    if not all(right):
        marks[INVENTED] = [(float(bool(b)), 1.0) if not a else (0.0, 0.0) for a, b in zip(right, said, strict=True)]
    return marks


def judged_file(judge: Judge) -> Callable[[Path], tuple[str, float]]:
    """A judge of sound files: the words in one, and its length in seconds."""

    def hear(file: Path) -> tuple[str, float]:
        samples = read_audio(file)
        return judge(samples, SAMPLE_RATE), len(samples) / SAMPLE_RATE

    return hear


def _answered(item: Item, result: Result, heard: str | None = None) -> Outcome:
    return Outcome(
        id=item.id,
        text=result.text,
        heard=heard,
        seconds=result.seconds,
        first=result.first_text if result.first_audio is None else result.first_audio,
        audio_seconds=result.audio_seconds or None,
    )
