"""A conversation: questions in, answers as events out. Each turn knows those before it; the oldest can be forgotten.

In: a loaded model; sound and text. Out: events. Most callers need only `ask`. The live loop also prefills what is known
of the prompt before the question comes (`prepare`), takes sound in while the user speaks (`hear`), withdraws a question
(`retract`), cuts an answer where the user stopped listening (`cut`), and forgets turns (`forget`). The steps of a
prefill do not depend on timing. So the same events give the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from voxrill.runtime.audio.sound_source import AudioSource, as_waveform
from voxrill.runtime.bundle.contract import SPECIAL_TOKENS
from voxrill.runtime.bundle.manifest import Task
from voxrill.runtime.engine.backbone import PREFILL_CHUNK
from voxrill.runtime.engine.context import Array, Context, ContextMark, Floats, Parts, Piece
from voxrill.runtime.engine.generate import Generation, GenerationOptions, Token
from voxrill.runtime.engine.options import AnswerKeywords, answer_options
from voxrill.runtime.engine.running_on import longest_speech
from voxrill.runtime.engine.sampling import Reciting, Sampler
from voxrill.runtime.engine.streamed_sound import StreamedSound
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result, StageEvent, TextEvent

Output = Literal["text", "audio", "both"]

Steps = Generator[Event | StageEvent, None, None]


class _Marks(TypedDict):
    opening: tuple[int, ...]
    speaking: bool
    ends: tuple[int, ...]
    unwritten: tuple[int, ...]


@dataclass(frozen=True)
class _Start:
    """Where a turn begins: the number of pieces and of positions before it."""

    pieces: int
    positions: int


class Conversation:
    """Turns, each of which knows those before it. Made by `Engine.conversation`.

    The system prompt is prefilled with the first question, or by `prepare`: to make a conversation costs nothing.
    `sampler` makes the source of noise of each answer from its seed. `word_for_word`: the model must know every
    word of the system prompt and of typed texts, because they say what exactly is to be done or said.
    """

    def __init__(
        self,
        parts: Parts,
        task: Task,
        system: str | None = None,
        output: Output = "both",
        sampler: Callable[[int | None], Sampler] = Sampler,
        word_for_word: bool = False,
    ) -> None:
        self._parts = parts
        self._task = task
        self._sampler = sampler
        self._word_for_word = word_for_word
        self.output: Output = output
        self._answering: Steps | None = None
        self._turns: list[_Start] = []
        self._open = False
        self._question: ContextMark | None = None
        self._hearing: StreamedSound | None = None
        self.context = Context(parts)
        if system is not None and not word_for_word:
            system = parts.reading.prompt(system, task.system)
        self.system = task.system if system is None else system
        if self.system:
            with self.context.turn("system"):
                self.context.add_text(self.system)
        self._prompt = self.context.mark()

    @property
    def sample_rate(self) -> int:
        """Hz of the answers' sound."""
        return self._parts.codec.spec.sample_rate

    @property
    def turns(self) -> int:
        """Number of turns that are remembered, the one that is being asked included."""
        return len(self._turns)

    def ask(
        self,
        *,
        audio: AudioSource | None = None,
        text: str | None = None,
        output: Output | None = None,
        sample_rate: int | None = None,
        trim: bool | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> Iterator[Event]:
        """One turn: the question goes in, events come out as the answer is made, an `EndEvent` last.

        A caller who closes the iterator, or asks the next question, ends the turn there. What was said so far is
        remembered.

        Args:
            audio: the spoken part, heard before the written one: see `AudioSource`.
            text: the written part.
            output: what this turn is answered with; None for the conversation's own.
            sample_rate: Hz of an array.
            trim: hear only the speech in the sound; None for what suits the model.
            options: see `AnswerOptions`.

        Raises:
            UsageError: neither audio nor text was given, an option is out of range, or another thread uses this
                conversation.
            UnknownText: the model does not know enough words of the text, and has no sentence to say so. Otherwise it
                answers what it understands, or refuses, and a `VoxrillWarning` names the words.
            AudioFileError: the audio cannot be read, or is not usable sound.
            ContextFull: the question does not fit into the model's context.
        """
        answer_options("ask", options)
        output = output or self.output
        waveform = None if audio is None else as_waveform(audio, sample_rate)
        return _only(self.steps(audio=waveform, text=text, output=output, trim=trim, **options), output)

    def steps(
        self,
        *,
        audio: Floats | None = None,
        text: str | None = None,
        output: Output | None = None,
        trim: bool | None = None,
        **options: Unpack[AnswerKeywords],
    ) -> Steps:
        """As `ask`, with all events: text and sound whatever the output is, and the stages before them.

        `audio` (samples,) is at 16 kHz. Without it the question is the sound that was heard (`hear`), if any was.
        """
        wished = answer_options("steps", options)
        if audio is None and text is None and self._heard is None:
            raise UsageError("there is no question", "Give audio, text or both")
        sampler, output = self._sampler, output or self.output
        if text is not None:  # an error in the text is raised now, and not when the answer is iterated
            text = self._understood(text, audio is not None or self._heard is not None)
            if text is None and audio is None and self._heard is None:
                text, sampler = "", partial(self._refusing, output)
        waveform = None if audio is None else self._parts.heard(audio, trim)
        generation = GenerationOptions(
            mode="sequential" if output == "text" else self._task.mode,
            text=wished.text_sampling(self._task.text),
            audio=wished.audio_sampling(self._task.audio),
            max_new_tokens=wished.max_new_tokens or self._task.max_new_tokens,
            max_frames=self._longest_answer(text),
            seed=wished.seed,
            text_only=output == "text",
            **self._marks(output),
            sampler=sampler,
        )
        self._end_answer()
        self._answering = self._answer(waveform, text, generation)
        return self._answering

    def _marks(self, output: Output) -> _Marks:
        """What the family says of the marks in an answer."""
        opening = () if output == "text" else self._task.openings
        return {
            "opening": self._parts.tokenizer.special(opening),
            "speaking": SPECIAL_TOKENS["audio_start"] in opening,
            "ends": self._parts.ends,
            "unwritten": self._parts.unwritten,
        }

    def _understood(self, text: str, with_sound: bool) -> str | None:
        """What the model is asked of a typed text; None for nothing."""
        if not self._word_for_word:
            return self._parts.reading.question(text, with_sound)
        self._parts.tokenizer.encode(text)
        return text

    def _longest_answer(self, text: str | None) -> int | None:
        """Frames that the answer has at most, if it says a given text; otherwise None, for any number."""
        if not self._word_for_word or text is None:
            return None
        codec = self._parts.codec.spec
        return math.ceil(longest_speech(text) * codec.sample_rate / codec.frame_samples)

    def _refusing(self, output: Output, seed: int | None) -> Sampler:
        """Says that the question was not understood, in the model's own words and no others."""
        tokenizer = self._parts.tokenizer
        spoken = "text_end" if self._task.mode == "interleaved" else "audio_start"
        end = tokenizer.ids["im_end" if output == "text" else spoken]
        return Reciting(self._sampler(seed), [*tokenizer.encode(self._parts.reading.refusal), end])

    def prepare(self, most: int = PREFILL_CHUNK) -> bool:
        """Prefill some of what is known before the next question; whether more of it waits.

        Args:
            most: positions of this call; twice that in the call in which the system prompt ends.

        Raises:
            ContextFull: it does not fit.
        """
        if len(self.context.pieces) == self._prompt.pieces:  # only the system prompt: `forget` returns to its end
            if self.context.prefill(most):
                return True
            self._prompt = self.context.mark()
        self._open_turn()
        return self.context.prefill(most)

    @property
    def hears(self) -> bool:
        """Whether `hear` can take sound in: the model's encoder works while the user speaks."""
        return self._parts.encoder.streams

    @property
    def heard_samples(self) -> int:
        """How many samples were heard of the next question."""
        return self._heard.samples if self._heard is not None else 0

    def hear(self, samples: Floats) -> None:
        """Take in some of the next question's sound, (n,) at 16 kHz, while it is spoken.

        Whatever is complete is encoded at once, and prefilled two rows at a time (`StreamedSound`). Only where `hears`
        is true.

        Raises:
            ContextFull: it does not fit; the question is forgotten.
        """
        hearing = self._heard
        if hearing is None:
            self._end_answer()
            self._open_turn()
            self._hearing = hearing = StreamedSound(self.context, self._parts.encoder)
        try:
            hearing.hear(samples)
        except VoxrillError:
            self.unhear()
            raise

    def hear_rest(self, sound: Floats) -> None:
        """Take in what was not heard yet of a question's sound (n,) at 16 kHz, now that all of it is known.

        If something else was heard than its beginning, that is forgotten, and the question is heard anew.

        Raises:
            ContextFull: see `hear`.
        """
        if self._heard is not None and not self._heard.begins(sound):
            self.unhear()
        self.hear(sound[self.heard_samples :])

    def unhear(self) -> None:
        """Forget the sound of a question that was not asked."""
        if self._heard is not None:
            self._heard.forget()
            self._hearing = None

    @property
    def _heard(self) -> StreamedSound | None:
        """The question that is being spoken and was not asked yet."""
        return None if self._hearing is None or self._hearing.ended else self._hearing

    def hear_on(self) -> None:
        """Withdraw the answer to a question that was heard: the user goes on, and so does `hear`."""
        self._end_answer()
        if self._hearing is not None and self._hearing.ended:
            self._hearing.go_on()
            self._open = True

    def remember(
        self,
        answer: str | Sequence[Piece],
        *,
        audio: Floats | None = None,
        text: str | None = None,
        trim: bool | None = None,
    ) -> None:
        """Between turns, add one that took place elsewhere: its question, and its answer as text or as pieces.

        `audio` (samples,) is at 16 kHz.
        """
        reading = self._parts.reading
        self._end_answer()
        self.unhear()
        self._open_turn()
        if audio is not None:
            self.context.add_audio(self._parts.heard(audio, trim))
        if text is not None:
            self.context.add_text(reading.earlier(text))
        self.context.close_turn()
        self.context.open_turn("assistant")
        if isinstance(answer, str):
            self.context.add_text(reading.earlier(answer))
        else:
            for piece in answer:
                self.context.add(piece)
        self._close_turn()

    def prefill_prompt(self) -> None:
        """Prefill the system prompt alone, before the first turn.

        Raises:
            ContextFull: it does not fit.
        """
        while self.context.prefill(PREFILL_CHUNK):
            pass
        self._prompt = self.context.mark()

    def restore_prompt(self, content: Mapping[str, Array]) -> None:
        """Take the backbone's state after the system prompt from elsewhere, before the first turn.

        Raises:
            ContextFull: it does not fit.
        """
        self.context.restore(content)
        self._prompt = self.context.mark()

    def mark(self) -> ContextMark:
        """This place within an answer, for `cut`."""
        return self.context.mark()

    def cut(self, mark: ContextMark, pieces: int | None = None) -> None:
        """End the answer at `mark`, or later, when the context had `pieces` pieces. What came after is forgotten."""
        self._end_answer()
        kept = self.context.pieces[mark.pieces : mark.pieces if pieces is None else pieces]
        self.context.rewind(mark)
        for piece in kept:
            self.context.add(piece)
        self._close_turn()

    def retract(self) -> None:
        """Forget the last question and its answer."""
        self._end_answer()
        self.unhear()
        self._hearing = None
        if self._question is not None:
            self.context.rewind(self._question)
            self._open = True

    def close(self) -> None:
        """Ask nothing more. An answer that is being made ends, so that nothing refers to the conversation any more."""
        self._end_answer()

    def forget(self, positions: int, turns: int | None = None) -> int:
        """Between turns, forget the oldest ones until at most `positions` positions and `turns` turns are left.

        The system prompt stays in the KV cache. The turns that are left wait for prefill: their positions have changed.

        Returns:
            How many turns were forgotten.
        """
        self._end_answer()  # its end mark belongs to the turns that are counted, and must not come after them
        self.unhear()
        starts, whole = self._turns, self.context.positions
        gone = 0 if turns is None else max(0, len(starts) - turns)
        while gone < len(starts) and starts[0].positions + whole - self._end(gone) > positions:
            gone += 1
        if gone:
            pieces = self.context.pieces[starts[gone].pieces :] if gone < len(starts) else []
            self.context.rewind(self._prompt)
            for piece in pieces:
                self.context.add(piece)
            self._turns = [_moved(start, starts[gone], starts[0]) for start in starts[gone:]]
        return gone

    def told(self) -> list[list[Piece]]:
        """The pieces of each turn that is remembered."""
        self._end_answer()
        starts = [start.pieces for start in self._turns]
        ends = [*starts, len(self.context.pieces)][1:]
        turns = [self.context.pieces[start:end] for start, end in zip(starts, ends, strict=True)]
        return turns[:-1] if self._open else turns  # the last one is open: nothing was asked in it yet

    def retell(self, turns: Sequence[Sequence[Piece]]) -> None:
        """Between turns, remember these turns and no others. Their pieces wait for prefill."""
        self._end_answer()
        self._hearing = None
        self.context.rewind(self._prompt)
        self._turns, self._open = [], False
        for pieces in turns:
            self._turns.append(_Start(len(self.context.pieces), self.context.positions))
            for piece in pieces:
                self.context.add(piece)

    def _end(self, gone: int) -> int:
        """The position at which the first `gone` turns end."""
        return self._turns[gone].positions if gone < len(self._turns) else self.context.positions

    def _open_turn(self) -> None:
        if not self._open:
            self._hearing = None
            self._turns.append(_Start(len(self.context.pieces), self.context.positions))
            self.context.open_turn("user")
            self._open, self._question = True, None

    def _close_turn(self) -> None:
        self.context.close_turn()
        self._open = False

    def _end_answer(self) -> None:
        if self._answering is not None:
            try:
                self._answering.close()
            except ValueError:  # Python's word for a generator that is at work: another thread is in it
                raise UsageError(
                    "This conversation is answering in another thread",
                    "Wait for that answer, or make a conversation for each thread",
                ) from None
            self._answering = None

    def _answer(self, waveform: Any, text: str | None, options: GenerationOptions) -> Steps:
        self._parts.times.reset()
        started = time.perf_counter()
        if waveform is not None:
            self.unhear()
        self._open_turn()
        hearing = self._heard
        self._question = before = hearing.start if hearing else self.context.mark()
        asked = True
        try:
            if hearing is not None:
                hearing.end()
                yield StageEvent("encoded", time.perf_counter() - started)
            if waveform is not None:
                self.context.add_audio(waveform)
                yield StageEvent("encoded", time.perf_counter() - started)
            if text is not None:
                self.context.add_text(text)
            self.context.close_turn()
            self.context.open_turn("assistant")
            if options.opening:
                self.context.add_tokens(list(options.opening))
            answer = _AnswerEvents(self._parts, Generation(self.context, options), started)
            while self.context.prefill(PREFILL_CHUNK):
                yield StageEvent("prefilling", time.perf_counter() - started)
            yield StageEvent("prefilled", time.perf_counter() - started)
            yield from answer
        except VoxrillError:
            self.context.rewind(before)
            self._hearing = None
            asked = False  # a question that does not fit is not part of the conversation
            raise
        finally:
            if asked:
                self._close_turn()


def _moved(start: _Start, first: _Start, to: _Start) -> _Start:
    """A turn's start after everything from `to` to `first` was taken out."""
    return _Start(start.pieces - first.pieces + to.pieces, start.positions - first.positions + to.positions)


def _only(steps: Steps, output: Output) -> Iterator[Event]:
    """The events of an answer that were asked for. A caller who closes it ends the answer."""
    try:
        for event in steps:
            if isinstance(event, EndEvent) or (not isinstance(event, StageEvent) and output in ("both", _kind(event))):
                yield event
    finally:
        steps.close()


def _kind(event: Event) -> Output:
    return "text" if isinstance(event, TextEvent) else "audio"


class _AnswerEvents:
    """Makes events of the steps of a generation, and the result of all of them."""

    def __init__(self, parts: Parts, generation: Generation, started: float) -> None:
        self._parts = parts
        self._generation = generation
        self._started = started
        self._text = parts.tokenizer.stream()
        self._sound = parts.codec.stream()
        self._codes: list[Any] = []
        self._samples: list[Any] = []
        self._log_probabilities: list[float] = []
        self._result = Result(sample_rate=parts.codec.spec.sample_rate, prompt_positions=generation.context.positions)

    def __iter__(self) -> Iterator[Event]:
        for step in self._generation:
            if isinstance(step, Token):
                self._log_probabilities.append(step.log_probability)
                yield self._token(step.id)
            elif not step.ends:
                yield from self._frame(step.codes)
        yield from self._audio(self._sound.flush(), None)
        yield EndEvent(self._generation.finish_reason, self._finished(), self._now())

    def _now(self) -> float:
        return time.perf_counter() - self._started

    def _token(self, token: int) -> TextEvent:
        result = self._result
        piece = self._text.push(token)
        result.tokens.append(token)
        if piece and result.first_text is None:
            result.first_text = self._now()
        return TextEvent(piece, token, self._now())

    def _frame(self, codes: Any) -> Iterator[AudioEvent]:
        if not self._parts.codec.decodes(codes):
            self._result.skipped_frames += 1
            return
        self._codes.append(codes)
        yield from self._audio(self._sound.push(codes[:, None]), codes)

    def _audio(self, samples: Any, codes: Any) -> Iterator[AudioEvent]:
        if not len(samples):
            return
        if self._result.first_audio is None:
            self._result.first_audio = self._now()
        self._samples.append(samples)
        yield AudioEvent(samples, self._parts.codec.spec.sample_rate, codes, self._now())

    def _confidence(self) -> float:
        if not self._log_probabilities:
            return 0.0
        end = self._generation.end_log_probability
        whole = self._log_probabilities if end is None else [*self._log_probabilities, end]
        return math.exp(sum(whole) / len(whole))

    def _finished(self) -> Result:
        books = self._parts.spec.codes.codebooks
        return replace(
            self._result,
            text=self._parts.tokenizer.decode(self._result.tokens),
            codes=np.stack(self._codes, 1) if self._codes else np.zeros((books, 0), np.int64),
            samples=np.concatenate(self._samples) if self._samples else np.zeros(0, np.float32),
            finish_reason=self._generation.finish_reason,
            confidence=self._confidence(),
            seconds=self._now(),
            stages=self._parts.times.milliseconds(),
        )
