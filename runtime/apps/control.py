"""Voice control: a spoken command in, the call it means out, always one of the grammar's.

The model transcribes what it hears, but can write only the grammar's sentences (constrained decoding). The confidence
is the probability with which it would have written that sentence without the constraint. Some sentence is always the
likeliest, but speech that is no command gives it a confidence near 0. A command is accepted if its confidence is above
that of the best other call by the threshold, so that "twenty" is not done where "thirty" was nearly as likely.

Courtesy ("could you please turn on the lamp") is not in the grammar's sentences. Where none of them is likely enough,
the model writes freely, and a sentence with courtesy around it counts as that sentence.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxrill.runtime.apps.constrained import Continuations, PrefilledPrompt, likeliest, written_freely
from voxrill.runtime.apps.grammar import Call, CommandSentence, Grammar, plain, spoken
from voxrill.runtime.apps.hooks import find_hooks
from voxrill.runtime.apps.written import Written
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.segments import speech_in
from voxrill.runtime.audio.sound_source import AudioSource
from voxrill.runtime.engine.context import Floats
from voxrill.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

THRESHOLD = 0.45
"""What the confidence of a call must have above that of the best other call, to be accepted.

Chosen with the built-in model, the example's commands, and voices and people that no figure is reported on
(pebble/strangers.py --choose). With 0.35 nothing that people said was carried out; it is higher to be safe. Other
models need another threshold: `--json` shows the confidences."""

SHORT = 1.5
"""Seconds of a short command. Half of what its threshold lacks to 1 is added to it: most of the talk of people that was
taken for a command was a word or two of 1 to 1.5 seconds."""

SLOW = 0.09
"""Seconds for each letter of a command, and six more, above which a sound has time for other words. Three quarters of
what its threshold lacks to 1 is added to it. Two commands in one breath were taken for a single one 23 times of 153,
with voices that no figure is reported on: with this, 2 were left, and none of 92 single commands was lost."""
_BREATH = 6
"""Letters whose time the beginning and the end of a sound take."""

CONTESTED = 8
"""A call is asked back if its rival, such as another number, has more than an eighth of its probability."""

_COURTESY = 8
"""Tokens that courtesy may take."""
_UNLIKELY = math.log(0.1)
"""What the model itself would hardly write is not looked at."""

ASK_BACK = "Please say that again."


@dataclass(frozen=True)
class Understood:
    """How a spoken command was understood.

    call: what it means, if it is a command at all. words: the sentence that was heard. confidence: the probability of
    that sentence among everything that the model could write. rival: the same of the likeliest sentence with another
    call, 0 if it is below a hundredth. accepted: whether the one is sure enough against the other to carry it out.
    seconds, cpu_seconds: the time that it took, and the processor's.
    """

    call: Call
    words: str
    confidence: float
    rival: float
    accepted: bool
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class _Heard:
    """A sentence, its probability, and that of the best one that means something else. said: it with courtesy."""

    sentence: CommandSentence
    confidence: float
    rival: float
    said: str

    @property
    def lead(self) -> float:
        """How much likelier it is than its rival."""
        return self.confidence - self.rival


def leads(confidence: float, rival: float, least: float) -> bool:
    """Whether a call is carried out: it is likelier than its rival by `least`, and `CONTESTED` times as likely."""
    return confidence - rival >= least and confidence >= CONTESTED * rival


def _time_for(words: str) -> float:
    """Seconds in which words are surely said. A sign of Chinese or Japanese has three bytes, and takes its time."""
    return SLOW * (len(words.encode()) + _BREATH)


def least_lead(threshold: float, seconds: float, words: str) -> float:
    """By how much a call must lead: a short one is easily mistaken for another word, and a long sound may say more.

    Args:
        threshold: what an ordinary command needs; 0 takes every one.
        seconds: length of the speech in the sound.
        words: what was said, with courtesy.
    """
    lacking = 1 - threshold if threshold else 0.0
    if seconds > _time_for(words):
        return threshold + 0.75 * lacking
    return threshold + 0.5 * lacking if seconds < SHORT else threshold


class Control:
    """Listens for a grammar's commands. Made by `Model.control`.

    Args:
        model: what listens.
        grammar: the commands.
        threshold: by how much a call must lead to be accepted; None for the grammar's own, or else `THRESHOLD`.

    `written` is every sentence that can be written, as tokens.

    Raises:
        UsageError: the threshold is no probability.
        UnknownText: the model cannot write or say something in the grammar.
        DataError: two commands are the same to the model, or one names what cannot be run.
    """

    def __init__(self, model: Engine, grammar: Grammar, threshold: float | None = None) -> None:
        if threshold is None:
            threshold = THRESHOLD if grammar.threshold is None else grammar.threshold
        if not 0 <= threshold <= 1:
            raise UsageError(f"the threshold is {threshold}", "Give a number from 0 to 1")
        self.grammar = grammar
        self.threshold = threshold
        self.ask_back = grammar.ask_back or model.manifest.taught.refusal or ASK_BACK
        self._hooks = find_hooks(grammar)
        self._parts = model.parts
        tokenizer = model.parts.tokenizer
        try:
            written = Written(grammar.sentences, tokenizer)
        except UsageError as error:  # two commands of the file are the same tokens
            raise DataError(error.message, error.remedy) from None
        self._sentences = written.sentences
        self.written = written.tokens
        self._tree = written.tree
        self._by_words = {plain(sentence.words): sentence for sentence in self._sentences}
        self._tokenizer, self._end = tokenizer, tokenizer.ids["im_end"]
        self._most = max(map(len, self.written)) + _COURTESY
        self._prompt = PrefilledPrompt(model, model.manifest.tasks.transcribe.system)
        self._prompt.prefill_all()
        for text in {self.ask_back, *(self.confirmation(sentence.call) for sentence in self._sentences)}:
            tokenizer.encode(text)

    @property
    def hears(self) -> bool:
        """Whether `hear_more` can take sound in: the model's encoder works while the user speaks."""
        return self._prompt.hears

    @property
    def heard_samples(self) -> int:
        """How many samples were heard of the command that is being spoken."""
        return self._prompt.heard_samples

    def hear_more(self, samples: Floats) -> None:
        """Take in some of a command, (n,) at 16 kHz, while it is spoken; `hear` then takes all of it.

        Only where `hears` is true.

        Raises:
            ContextFull: it is too long for the model.
        """
        self._prompt.hear(samples)

    def unhear(self) -> None:
        """Another command begins: forget what was heard."""
        self._prompt.unhear()

    def hear(self, audio: AudioSource, trim: bool | None = None, sample_rate: int | None = None) -> Understood:
        """The call that a spoken command means; nothing is run. Silence is never accepted as a command.

        Args:
            audio: see `AudioSource`.
            trim: hear only the speech in it; None for what suits the model.
            sample_rate: Hz of an array.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
            ContextFull: it is too long for the model.
        """
        waveform = self._parts.waveform(audio, trim, sample_rate)
        started, cpu = time.perf_counter(), time.process_time()
        least = math.log(self.threshold) if self.threshold else -math.inf  # no search for what is refused anyway
        text = self._prompt.ask(waveform)
        found = likeliest(self._tree, text, least, self._differ)
        sentence = self._sentences[found.number]
        best = _Heard(sentence, math.exp(found.log_probability), math.exp(found.rival), sentence.words)
        accepted = self._accepts(best, waveform)
        polite = None if accepted else self._politely(text)
        if polite and polite.lead > best.lead:
            best, accepted = polite, self._accepts(polite, waveform)
        return Understood(
            call=best.sentence.call,
            words=best.sentence.words,
            confidence=best.confidence,
            rival=best.rival,
            # Where nobody spoke, the waveform is digital silence, which some sentence still fits best.
            accepted=accepted and bool(waveform.any()),
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu,
        )

    def _politely(self, text: Continuations) -> _Heard | None:
        """The sentence that the model writes with courtesy around it.

        The confidence is that of the words after "could you", because "can you" means the same.
        """
        free = written_freely(text, self._end, _UNLIKELY, self._most)
        if free is None:
            return None
        words = [self._tokenizer.decode(free.tokens[:count]) for count in range(len(free.tokens))]
        begin = max((count for count, lead in enumerate(words) if self.grammar.is_courtesy(lead)), default=0)
        sentence = self._by_words.get(self.grammar.without_courtesy(self._tokenizer.decode(free.tokens[begin:])))
        if sentence is None:
            return None
        said = self._tokenizer.decode(free.tokens)
        return _Heard(sentence, math.exp(free.log_probability(begin)), math.exp(free.rival(begin)), said)

    def _differ(self, one: int, other: int) -> bool:
        return self._sentences[one].call != self._sentences[other].call

    def _accepts(self, best: _Heard, waveform: Floats) -> bool:
        seconds = len(waveform) / SAMPLE_RATE
        if seconds > _time_for(best.said):  # with silence around the words; to find it costs as much as to hear them
            seconds = len(speech_in(waveform)) / SAMPLE_RATE
        return leads(best.confidence, best.rival, least_lead(self.threshold, seconds, best.said))

    def run(self, call: Call) -> str:
        """Run the call's hook, if it has one. Returns the end of what its program wrote.

        Raises:
            HookError: it failed; the message says how.
        """
        hook = self._hooks.get(call.command)
        return "" if hook is None else hook(call)

    def answer(self, understood: Understood) -> str:
        """What is answered: that the call is done, or to say the command again; empty if nothing is to be said."""
        return self.confirmation(understood.call) if understood.accepted else self.ask_back

    def confirmation(self, call: Call) -> str:
        """What is said when the call is done; empty if nothing is to be said."""
        return spoken(self.grammar.commands[call.command].confirm, call.slots)
