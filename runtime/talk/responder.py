"""Answering: what the user does in, sound and events out. The only part of the live loop that touches the model.

The work is done in small steps, and signals are taken between any two of them. At a pause the answer is begun early,
because the turn may be over. If the user goes on, that answer is withdrawn unheard. At the end of the turn it is
released. If the user interrupts, it is cut off at the place up to which it was heard. Nothing here waits, sleeps or
knows of threads, so that a test can go through it step by step.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from voxrill.runtime.audio.protocols import RATE, Floats, Player
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.errors import ContextFull, UnknownText, UsageError, VoxrillError
from voxrill.runtime.talk.answer import TalkAnswer
from voxrill.runtime.talk.events import (
    AnswerFailed,
    AssistantSaid,
    Notice,
    StateChanged,
    TalkEvent,
    ToolCalled,
    TurnEnded,
    UserSaid,
)
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import (
    Began,
    Closed,
    Ended,
    Heard,
    Interrupted,
    Paused,
    Recited,
    Resumed,
    Signal,
    Typed,
    Utterance,
)
from voxrill.runtime.talk.live_loop import SignalHandler
from voxrill.runtime.talk.reply import Pace, Reply, TalkTurn
from voxrill.runtime.talk.tools import FoundCall, TalkTools
from voxrill.runtime.talk.trace import Tracer
from voxrill.runtime.talk.transcribing import Transcribe

WARM_UP = 20
"""Text tokens and frames of the warm-up answer: enough for both kinds, in the pattern of either family."""


@dataclass(frozen=True)
class ResponderOptions:
    """How to answer.

    speculate: begin answers at a pause. ahead: frames of sound that are made before the turn is over, at most. budget:
    positions of system prompt and turns that are remembered. turns: turns that are remembered at most, None for any
    number. seed: of the first turn; later turns count up from it. max_new_tokens: see `Conversation.ask`.
    """

    speculate: bool = True
    ahead: int = 4
    budget: int = 4096
    turns: int | None = None
    seed: int = 0
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class _Called:
    """A turn that calls a tool, which is run when the turn is certainly over."""

    call: FoundCall
    utterance: Utterance | None
    typed: str | None


class Responder(SignalHandler):
    """Answers questions.

    Args:
        conversation: the turns so far; nothing else may use it.
        player: plays answers; sound goes to it through `floor` only.
        floor: knows whether an answer may still be heard.
        show: takes what the user should see.
        keep: takes every turn that is over.
        options: how to answer.
        clock, cpu: seconds that pass, and seconds that this process computes.
        transcribe: writes down spoken questions while their answers are played; None for no transcripts.
        tools: find what a turn calls instead of being answered; None for none.
        recite: makes a conversation that says what it is told. Tools and `Recited` need it.
    """

    def __init__(
        self,
        conversation: Conversation,
        player: Player,
        floor: Floor,
        show: Callable[[TalkEvent], None] = lambda _event: None,
        keep: Callable[[TalkTurn], None] = lambda _turn: None,
        options: ResponderOptions = ResponderOptions(),
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
        transcribe: Transcribe | None = None,
        tools: TalkTools | None = None,
        recite: Callable[[], Conversation] | None = None,
    ) -> None:
        super().__init__()
        self._closed: Closed | None = None
        self._conversation = conversation
        self._sample_rate = conversation.sample_rate
        self._player = player
        self._floor = floor
        self._show = show
        self._keep = keep
        self._options = options
        self._clock = clock
        self._cpu = cpu
        self._transcribe = transcribe
        self._tools = tools
        self._recite = recite
        self._called: _Called | None = None
        self._reply: Reply | None = None
        self._turn = 0
        self._tracer: Tracer | None = None
        self._unprepared = True
        self._deaf = False  # what the user is saying does not fit into the context
        self._pace = Pace()

    def warm_up(self) -> None:
        """Answer a tone, unheard. First runs are slow, and the player must be told how fast this machine is.

        A model that says nothing to a tone is greeted: the pace is that of sound.
        """
        while self._prepare():
            pass
        with suppress(VoxrillError):  # the first question will fail with the same error, and the user is told then
            if not self._warm_up(tone(), None) and self._conversation.output != "text":
                self._warm_up(None, "hello")

    def _warm_up(self, audio: Floats | None, text: str | None) -> bool:
        """Answer a question, unheard; whether there was sound."""
        tracer = Tracer(0, self._cpu)
        try:
            with warnings.catch_warnings(action="ignore"):  # of words that the model does not know
                answer = TalkAnswer(self._conversation, audio, text, self._options.seed, WARM_UP)
                while answer.finish_reason is None:
                    started = self._clock()
                    tracer.made(answer.step(), started, self._clock())
        finally:
            self._conversation.retract()
        self._pace.measure(tracer.making, answer.samples / self._sample_rate)
        return answer.samples > 0

    @property
    def closed(self) -> Closed | None:
        """The signal that ended the talk, once the answer that it waits for was played."""
        ready = self._closed is not None and (self._reply is None or not self._closed.finish)
        return self._closed if ready else None

    @property
    def awaits_player(self) -> bool:
        """Whether something may happen without a signal: an answer is played to its end."""
        return self._reply is not None

    @property
    def hears(self) -> bool:
        """Whether the model's encoder works while the user speaks."""
        return self._conversation.hears

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do before the next signal: the conversation will not be touched."""
        return self._reply is None and not self._unprepared and self.inbox.empty()

    @property
    def replying(self) -> bool:
        """Whether an answer is being made, or played, or waits for the end of its question."""
        return self._reply is not None or self._called is not None

    def close(self) -> None:
        """The talk is over: cut an answer that is being played, and keep its turn."""
        heard = self._floor.interrupt()
        if heard is not None:
            self._interrupted(heard)
        self._settle()
        self._withdraw()

    def take(self, signal: Signal) -> None:
        """Take a signal."""
        if isinstance(signal, Began):
            self._settle()
            self._deaf = False
            if signal.anew:
                self._conversation.unhear()
        elif isinstance(signal, Heard):
            self._hear(signal)
        elif isinstance(signal, Paused):
            if self._options.speculate:
                self._begin(signal.utterance, None, signal.at)
        elif isinstance(signal, Resumed):
            self._withdraw()
        elif isinstance(signal, Ended):
            self._end_question(signal)
        elif isinstance(signal, Interrupted):
            self._interrupted(signal.heard)
        elif isinstance(signal, Typed):
            self._typed(signal)
        elif isinstance(signal, Recited):
            self._recited(signal)
        else:
            self._closed = signal

    def _work(self) -> bool:
        reply = self._reply
        if reply is None:
            return self._prepare()
        if reply.ticket is not None:
            reply.deliver(reply.ticket, self._floor, self._player, self._pace, self._show)
        if reply.made:
            if reply.ticket is None:
                return False
            return reply.transcribe(self._show) or self._end_if_played(reply, reply.ticket)
        if reply.ticket is None and len(reply.answer.codes) >= self._options.ahead:
            return False  # the user may go on: more work would be wasted
        reply.advance(self._clock)
        if reply.answer.finish_reason is not None:
            self._pace.replied(reply.tracer.making, reply.answer.samples / self._sample_rate)
        return True

    def _prepare(self) -> bool:
        """Prefill what is known before the next question."""
        if self._unprepared:
            self._unprepared = self._conversation.prepare()
            return True
        return False

    def _hear(self, heard: Heard) -> None:
        """Take in what the user is saying. What fails here fails again with the whole question, and is told then."""
        if self.replying or self._deaf:  # replying: in a session whose answers may not be interrupted
            return
        try:
            while self._prepare():
                pass
            self._conversation.hear(heard.after(self._conversation.heard_samples))
        except VoxrillError:
            self._deaf = True

    def _begin(self, utterance: Utterance | None, typed: str | None, paused: float | None) -> None:
        while self._prepare():  # by the same steps whatever the timing, so that a replay makes the same bits
            pass
        if self._tracer is None:
            self._turn += 1
            self._tracer = Tracer(self._turn, self._cpu)
        if utterance is None:
            self._tracer.begin(None, None, 0.0)
        else:
            self._tracer.begin(utterance.voice_end, paused, len(utterance.samples) / RATE, utterance.woke)
        seed = self._options.seed + self._turn
        samples = utterance.samples if utterance else None
        call = self._found(samples, typed)
        if call is not None:
            self._called = _Called(call, utterance, typed)
            return
        answer = TalkAnswer(self._conversation, samples, typed, seed, self._options.max_new_tokens)
        self._reply = Reply(answer, utterance, typed, seed, self._tracer)

    def _withdraw(self) -> None:
        """The user went on: the answer that was begun early is withdrawn."""
        self._called = None
        if self._reply is not None and self._reply.ticket is None:
            self._reply.tracer.false_start()
            if self._reply.utterance is not None and self._conversation.hears:
                self._conversation.hear_on()
            else:
                self._conversation.retract()
            self._reply = None

    def _settle(self) -> None:
        """The user begins. An answer that is still there was not interrupted, so it was heard to its end."""
        if self._reply is not None and self._reply.ticket is not None:
            self._end(self._reply, None)

    def _end_question(self, signal: Ended) -> None:
        if signal.cut_off:
            seconds = len(signal.utterance.samples) / RATE
            self._show(
                Notice(f"You spoke for {seconds:.0f} seconds without a pause. This answers what you said so far")
            )
        if self._reply is None and self._called is None:
            self._begin(signal.utterance, None, None)
        self._show(UserSaid(""))
        self._release(signal.ticket, signal.at)
        if self._reply is not None and self._transcribe is not None:
            self._reply.transcribing = self._transcribe(signal.utterance.samples)

    def _typed(self, signal: Typed) -> None:
        heard = self._floor.interrupt()
        if heard is not None:
            self._interrupted(heard)
        self._settle()
        self._withdraw()
        try:
            self._begin(signal.utterance, signal.text, None)
        except (UsageError, UnknownText) as error:
            self._show(Notice(str(error)))
            self._show(StateChanged("listening"))
            return
        self._show(UserSaid(signal.text))
        self._release(self._floor.question(), signal.at)

    def _recited(self, signal: Recited) -> None:
        """The program wants a sentence said."""
        heard = self._floor.interrupt()
        if heard is not None:
            self._interrupted(heard)
        self._settle()
        self._withdraw()
        self._turn += 1
        self._tracer = Tracer(self._turn, self._cpu)
        self._tracer.begin(None, None, 0.0)
        self._say(signal.text, None, None, self._floor.question(), signal.at)

    def _found(self, samples: Floats | None, typed: str | None) -> FoundCall | None:
        """The call that a turn means, if it means one."""
        if self._tools is None:
            return None
        try:
            return self._tools.find(samples, typed)
        except VoxrillError:  # such as a turn that is too long: its answer fails in the same way, and that is told
            return None

    def _carry_out(self, called: _Called, ticket: int, at: float) -> None:
        """Run what the turn calls, and say what comes of it."""
        self._called, call, said = None, called.call, ""
        self._show(StateChanged("thinking"))
        try:
            said = call.run()
        except VoxrillError as error:
            self._show(AnswerFailed(f"This could not be done: {error}", error))
        self._show(ToolCalled(call.name, call.arguments, said))
        if self._options.turns != 0 and said:  # a model that can use earlier turns is told of this one
            samples = called.utterance.samples if called.utterance else None
            self._conversation.remember(said, audio=samples, text=called.typed, trim=False)
        self._say(said, called.utterance, called.typed, ticket, at)

    def _say(self, text: str, utterance: Utterance | None, typed: str | None, ticket: int, at: float) -> None:
        """Say `text` as the answer of a turn. Without a loudspeaker, or without text, the turn is over at once."""
        assert self._tracer is not None
        if text:
            self._show(AssistantSaid(text))
        if text and self._recite is not None and self._conversation.output != "text":
            seed = self._options.seed + self._turn
            try:
                answer = TalkAnswer(self._recite(), None, text, seed, self._options.max_new_tokens)
            except VoxrillError as error:
                self._show(AnswerFailed(f"This could not be said: {error}", error))
            else:
                self._reply = Reply(answer, utterance, typed, seed, self._tracer, said=text)
                self._release(ticket, at)
                return
        self._tracer.endpoint(at)
        trace, self._tracer = self._tracer.ended(self._clock(), None, 0.0, None), None
        self._floor.interrupt()  # nothing is due any more
        self._unprepared = True
        self._show(TurnEnded(trace, text))
        self._show(StateChanged("listening"))

    def _release(self, ticket: int, at: float) -> None:
        """The question is over: what was made of its answer is heard now, the rest when it is made."""
        if self._called is not None:
            self._carry_out(self._called, ticket, at)
            return
        assert self._reply is not None
        self._reply.ticket = ticket
        self._reply.tracer.endpoint(at)
        given_up = self._pace.effort.adapt(self._pace.rate, self._pace.seconds)
        if given_up:
            self._show(Notice(given_up))
        self._show(StateChanged("thinking"))

    def _interrupted(self, heard: int) -> None:
        """The user took the floor: keep what was heard of the answer."""
        reply = self._reply
        if reply is None or reply.ticket is None:
            return
        reply.cut(heard)
        self._end(reply, heard)

    def _end_if_played(self, reply: Reply, ticket: int) -> bool:
        if not self._floor.over(ticket):
            return False
        self._end(reply, None)
        return True

    def _end(self, reply: Reply, heard: int | None) -> None:
        """The turn is over."""
        options = self._options
        if not reply.finished:
            reply.tell_error(self._show)
        full = isinstance(reply.error, ContextFull)  # then all turns are forgotten: only that makes room for certain
        forgotten = self._conversation.forget(0 if full else options.budget, options.turns)
        if forgotten and options.turns is None:
            self._show(Notice(f"The conversation is long: the oldest {forgotten} turns are forgotten"))
        self._unprepared, self._reply, self._tracer = True, None, None
        answer, rate = reply.answer, self._sample_rate
        barge_in = None if heard is None else heard / rate
        player = self._player if reply.playing else None
        trace = reply.tracer.ended(self._clock(), player, answer.samples / rate, barge_in)
        if player is not None:
            self._pace.effort.played(trace.underruns)
        self._keep(
            TalkTurn(
                number=trace.number,
                utterance=reply.utterance,
                typed=reply.typed,
                seed=reply.seed,
                answer=answer,
                heard=heard,
                forgotten=forgotten,
                trace=trace,
                error=reply.error,
                transcript=reply.transcript,
            )
        )
        self._show(TurnEnded(trace, answer.text if reply.said is None else reply.said))
        self._show(StateChanged("listening"))
