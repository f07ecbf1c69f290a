"""Voice control: a spoken command in, the call it means out, always one of the grammar's.

The model transcribes what it hears, but can write only the grammar's sentences (constrained decoding). The confidence
is the probability with which it would have written that sentence without the constraint. Some sentence is always the
likeliest, but speech that is no command gives it a confidence near 0. A command is accepted if its confidence is above
that of the best other call by the threshold, so that "twenty" is not done where "thirty" was nearly as likely.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxrill.runtime.apps.constrained import PrefilledPrompt, likeliest
from voxrill.runtime.apps.grammar import Call, Grammar, spoken
from voxrill.runtime.apps.hooks import find_hooks
from voxrill.runtime.apps.written import Written
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.sound_source import AudioSource
from voxrill.runtime.engine.context import Floats
from voxrill.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

THRESHOLD = 0.6
"""What the confidence of a call must have above that of the best other call, to be accepted.

Measured with the built-in model, the example's commands, and voices that it was trained on (pebble/commanding.py): of
166 commands 99.4 % are carried out rightly, also with 0.5; with 0.7 it is 97.6 %. Of 434 clips that are no command
(half of them differ from one in a single word) 9.8 % are carried out, with 0.5 it is 11.0 %. Other models need another
threshold: `--json` shows the confidences."""

SHORT = 1.5
"""Seconds of a short command. Half of what its threshold lacks to 1 is added to it: most of the talk of people that was
taken for a command was a word or two of 1 to 1.5 seconds."""

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
        found = likeliest(self._tree, self._prompt.ask(waveform), least, self._differ)
        sentence, confidence, rival = (
            self._sentences[found.number],
            math.exp(found.log_probability),
            math.exp(found.rival),
        )
        return Understood(
            call=sentence.call,
            words=sentence.words,
            confidence=confidence,
            rival=rival,
            # Where nobody spoke, the waveform is digital silence, which some sentence still fits best.
            accepted=confidence - rival >= self._least(waveform) and bool(waveform.any()),
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu,
        )

    def _differ(self, one: int, other: int) -> bool:
        return self._sentences[one].call != self._sentences[other].call

    def _least(self, waveform: Floats) -> float:
        """What a command of this length must have: a short one is more easily mistaken for another word."""
        short = len(waveform) < SHORT * SAMPLE_RATE and self.threshold > 0
        return (1 + self.threshold) / 2 if short else self.threshold

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
