"""The worker's side of a realtime session: turns in, responses out. All of it belongs to the worker's thread.

Most turns are answered in the session's own conversation. A response with instructions, modalities or a limit of its
own is made beside it, by a thinker that is told the same history, and becomes part of the conversation afterwards. The
listening thread reads what is public here, and hands over everything else as functions (see `RealtimeSession`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voxrill.runtime.apps.calling import Caller, FunctionCall
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.context import Context, HeardSound, Piece, Tokens
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.allowed_calls import AllowedCalls
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.realtime.call_decider import CallDecider, Question
from voxrill.runtime.serve.realtime.client_items import Told
from voxrill.runtime.serve.realtime.emitter import Emit, new_id
from voxrill.runtime.serve.realtime.history import History, Said
from voxrill.runtime.serve.realtime.input_transcriber import InputTranscriber
from voxrill.runtime.serve.realtime.items import Items
from voxrill.runtime.serve.realtime.open_calls import OpenCall, OpenCalls
from voxrill.runtime.serve.realtime.out_of_band import OutOfBand, OutOfBandQueue
from voxrill.runtime.serve.realtime.output_speaker import OutputSpeaker
from voxrill.runtime.serve.realtime.playback import ClientPlayer
from voxrill.runtime.serve.realtime.response_options import ResponseOptions
from voxrill.runtime.serve.realtime.responses import CallResponse, MessageResponse, ResponseForm, Status
from voxrill.runtime.serve.realtime.settings import Settings
from voxrill.runtime.serve.realtime.thinker import Thinker, thinker
from voxrill.runtime.serve.realtime.weak_callback import weak_callback
from voxrill.runtime.serve.service import Service
from voxrill.runtime.talk.events import AnswerFailed, AssistantSaid, StateChanged, TalkEvent
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Began, Ended, Heard, Interrupted, Paused, Signal, Typed
from voxrill.runtime.talk.reply import TalkTurn

BY_SPEECH, BY_CLIENT = "turn_detected", "client_cancelled"
"""Why an answer was cut short."""


_NOTHING_TO_SAY = "yes"
"""What is said of a call without output by a model that has no sentence for what it does not know."""

_MOST_EDITS = 64
"""Changes of the history that may wait for an answer to end. When there are more, they are made before it ends."""


@dataclass(frozen=True)
class AskedItems:
    """A question that is to be answered: its items, and the options of its response; None for the session's."""

    items: tuple[str, ...] = ()
    options: ResponseOptions | None = None


class Answering:
    """Answers one session's turns.

    answering: an answer is due or being made. asked, begun: questions that were asked, and those that have a response.
    response: the latest one. cut: the last answer that was cut, and the milliseconds heard of it. reason: why the next
    one that is cut was cut. outside: the responses outside the conversation.

    Args:
        service: what all sessions share.
        settings: of the session.
        emit: takes events.
        items: the conversation's items.
        beta: use OpenAI's names from before 2025.
    """

    def __init__(self, service: Service, settings: Settings, emit: Emit, items: Items, beta: bool) -> None:
        self.service, self.settings = service, settings
        self._emit, self._items, self._beta = emit, items, beta
        self.conversation_id = new_id("conv")
        self.answering = False
        self.asked = self.begun = 0
        self.response: MessageResponse | CallResponse | None = None
        self.cut: tuple[str, int] | None = None
        self.reason = BY_SPEECH
        self.calls = OpenCalls()
        # The parts call back weakly, so that a session's memory is freed as soon as it ends.
        rate = service.model.sample_rate
        self.player = ClientPlayer(rate, weak_callback(self._send_sound), weak_callback(self._finished))
        self.floor = Floor(self.player)
        self.transcriber = InputTranscriber(service.model, emit, items.transcribed)
        self._next = self._current = AskedItems()
        frame_ms = 1000 * service.model.manifest.model.codec.frame_samples / rate
        self._history = History(service.model.parts.tokenizer, frame_ms)
        self._edits: list[Callable[[History], None]] = []
        self._edited = self._renewed = False  # before the next turn: told its history, made anew
        self.own = self._thinker(settings, self._keep)
        self._beside: Thinker | None = None
        self._speaker: OutputSpeaker | None = None
        self.outside = OutOfBandQueue()
        self._caller = Caller(service.model)
        self._functions: AllowedCalls | None = None  # the session's
        self._decider = CallDecider(
            self._caller,
            service.states,
            self.floor,
            weak_callback(self._pass_on),
            weak_callback(self._call),
            weak_callback(self._undecided),
        )

    def _thinker(self, settings: Settings, keep: Callable[[TalkTurn], None]) -> Thinker:
        show = weak_callback(self._show)
        return thinker(self.service, settings, self.player, self.floor, show, weak_callback(keep))

    # What the listening thread hands over

    def apply(self, settings: Settings, allowed: AllowedCalls | None, session: dict[str, Any]) -> None:
        """Use other settings from now on. session: as the client is shown it."""
        old, self.settings, self._functions = self.settings, settings, allowed
        if _prompt(old) != _prompt(settings):
            self._renewed = True
            if not self.own.responder.replying:
                self._renew()
        self._drop(self._caller.forget(allowed.functions if allowed is not None else None))
        self._emit("session.updated", session=session)

    def take(self, signal: Signal, allowed: AllowedCalls | None = None, asked: AskedItems = AskedItems()) -> None:
        """Take a signal; if it is a turn, with the calls that are allowed, and what is asked."""
        if isinstance(signal, Ended | Typed):
            self._next = asked
        self._decider.take(signal, allowed)

    def hear(self, heard: Heard, allowed: AllowedCalls | None) -> None:
        """Take in what there is of a turn that the client will end; all of it, unless the answer before is not over."""
        if self.idle and not self._decider.waits:
            self._decider.take(heard, allowed)

    def unhear(self) -> None:
        """The client takes back the turn that it had begun."""
        self._decider.unhear()
        if self.own.conversation.heard_samples:
            self.service.states.use(self.own.conversation.context)
            self.own.conversation.unhear()

    def tell(self, told: Told, before: str | None) -> None:
        """The client adds what someone said, after an item, without asking for an answer."""
        if self.service.turns == 0:  # this model remembers nothing
            return
        said = Said((told.item,), told.role, self.pieces(told))
        self._edit(lambda history: history.tell(said, before, self.service.positions))

    def delete(self, item: str) -> None:
        """The client deletes an item."""
        self._edit(lambda history: history.delete(item))

    def cut_item(self, item: str, milliseconds: int) -> None:
        """Of an answer that is over, the user heard less than all."""
        decode, items = self.service.model.parts.tokenizer.decode, self._items

        def cut(history: History) -> None:
            text = history.cut(item, milliseconds, decode)
            if text is not None:
                items.cut(item, text)

        self._edit(cut)

    def _edit(self, change: Callable[[History], None]) -> None:
        """Change the history: after the turn that is being answered, if there is one, for it comes before."""
        self._edits.append(change)
        self._edited = True
        busy = self.own.responder.replying or self._beside is not None
        if not busy or len(self._edits) > _MOST_EDITS:
            self._make_edits()

    def _make_edits(self) -> None:
        edits, self._edits = self._edits, []
        for change in edits:
            change(self._history)

    def tell_outputs(self, outputs: dict[str, str]) -> str:
        """The output of calls becomes part of the conversation. Returns their text."""
        text = " ".join(outputs.values())
        calls = [call for call in map(self.calls.take, outputs) if call is not None]
        asked = [call for call in calls if call.question is not None]
        if asked and text.strip() and self.service.turns != 0:
            self._remember(asked[-1], text)
        return text

    def remember_outputs(self, outputs: dict[str, str]) -> None:
        """The output of calls becomes part of the conversation, and is not told."""
        self.tell_outputs(outputs)

    def answer_outputs(self, outputs: dict[str, str], asked: AskedItems) -> None:
        """Tell the user the output of calls."""
        self._next = asked
        self._pass_on(Began())  # the answer before is over
        text = self.tell_outputs(outputs)
        settings = asked.options.settings if asked.options is not None else self.settings
        if settings.output != "text":
            if self._speaker is None:
                show, cut = weak_callback(self._show), weak_callback(self._spoken)
                self._speaker = OutputSpeaker(self.service, self.player, self.floor, show, cut)
            self._speaker.speak(self._sayable(text))
            return
        ticket = self.floor.question()
        self._show(StateChanged("thinking"))
        self._show(AssistantSaid(text))
        self.floor.finish(ticket)

    def _sayable(self, text: str) -> str:
        """What the model can say of a text: the words that it knows, or else that it does not know them."""
        reading = self.service.model.parts.reading
        known = reading.earlier(text)
        return known if any(character.isalnum() for character in known) else reading.refusal or _NOTHING_TO_SAY

    def answer_outside(self, options: ResponseOptions, told: Sequence[Told | str], question: Told) -> None:
        """Answer outside the conversation. told: what the answer knows, messages and the names of items."""
        thinking = OutOfBand(self.service, options.settings, self._emit, self._items, self._outside_form(options))
        if options.input is None:
            self.history(thinking.thinker)
        else:
            known = [self._history.find(one) if isinstance(one, str) else self.pieces(one) for one in told]
            thinking.thinker.conversation.retell([pieces for pieces in known if pieces])
            thinking.thinker.conversation.forget(self.service.positions, self.service.turns)
        thinking.ask(question)
        self.outside.add(thinking)

    def cancel_outside(self, response_id: str, event_id: str | None) -> None:
        """Cancel a response outside the conversation; the client is told if there is none of that id."""
        if not self.outside.cancel(response_id):
            message = f"The response {response_id[:80]!r} is not being made."
            self._tell_error(ApiError(400, message, "response_cancel_not_active", "response_id"), event_id)

    def pieces(self, told: Told) -> tuple[Piece, ...]:
        """What the model is told of a message, the marks of its turn included."""
        parts = self.service.model.parts
        tokenizer = parts.tokenizer
        said = [HeardSound(parts.encoder.encode(utterance.samples)) for _, utterance in told.sounds]
        text = parts.reading.earlier(told.text) if told.text else ""
        written = [Tokens(tuple(tokenizer.encode(text)))] if text else []
        return (Tokens(tuple(tokenizer.openings[told.role])), *said, *written, Tokens(tuple(tokenizer.closing)))

    def history(self, thinking: Thinker) -> None:
        """Tell a thinker the conversation so far."""
        self._history.tell_all(thinking.conversation)
        thinking.conversation.forget(self.service.positions, self.service.turns)

    # The work, in small steps

    def take_signals(self) -> bool:
        """Take a signal that was passed on. Returns whether there was one."""
        return any(thinking.step(signalled=True) for thinking in self._thinkers())

    def step(self) -> bool:
        """Decide or answer a little; whether there was anything to do."""
        return self._decider.step() or any(thinking.step() for thinking in self._thinkers()) or self.outside.step()

    @property
    def idle(self) -> bool:
        """Whether no answer is being made or played."""
        return not any(thinking.responder.replying for thinking in self._thinkers())

    def _thinkers(self) -> list[Thinker]:
        speaker = [self._speaker.thinker] if self._speaker is not None else []
        return [self.own, *speaker, *([self._beside] if self._beside is not None else [])]

    def release(self) -> None:
        """Free what the session holds. Work that was begun ends here."""
        for thinking in self._thinkers():
            thinking.close()
        self.outside.close()
        self._drop(self._caller.contexts)
        self.transcriber.close()
        self._decider.reset()

    def _drop(self, contexts: list[Context]) -> None:
        for context in contexts:
            self.service.states.drop(context)

    def _renew(self) -> None:
        """Have a conversation that begins with the present prompt and remembers the history."""
        self.own.close()
        self.own = self._thinker(self.settings, self._keep)
        self._renewed, self._edited = False, True

    def _end_beside(self) -> None:
        """The answer that was made beside the conversation is over."""
        if self._beside is not None:
            self._beside.settle()  # its turn is kept now, if it was not
            self._beside.close()
            self._beside = None

    def _refresh(self) -> None:
        """Before a turn: the conversation is what the settings and the items say."""
        self._end_beside()
        if not self._renewed and not self._edited:
            return
        self.own.settle()
        self._make_edits()
        if self._renewed:
            self._renew()
        self.history(self.own)
        self._history.keep(self.own.conversation.turns)
        self._edited = False

    # What the parts call back

    def _pass_on(self, signal: Signal) -> None:
        """A signal of a turn that calls nothing goes to a responder; one that ends an answer goes to all."""
        if isinstance(signal, Began | Interrupted):
            if isinstance(self.response, CallResponse) and not self.response.ended:
                self._cut_short(None)
            for thinking in self._thinkers():
                thinking.responder.inbox.put(signal)
            return
        if isinstance(signal, Ended | Typed) and self._is_beside(self._next):
            self._answer_beside(signal)
            return
        if isinstance(signal, Heard | Paused | Ended | Typed):
            self._refresh()
        self.own.responder.inbox.put(signal)

    def _is_beside(self, asked: AskedItems) -> bool:
        return asked.options is not None and _prompt(asked.options.settings) != _prompt(self.settings)

    def _answer_beside(self, question: Question) -> None:
        assert self._next.options is not None
        self.own.settle()
        self._end_beside()
        self._make_edits()
        self._beside = self._thinker(self._next.options.settings, self._keep_beside)
        self.history(self._beside)
        self._beside.responder.inbox.put(question)

    def _call(self, turn: Question, ticket: int, call: FunctionCall) -> None:
        """A turn calls a function."""
        self._begin()
        self.response = CallResponse(self._emit, self._items, self._form(), call)
        self.calls.add(self.response.call_id, OpenCall(turn, self._current.items))
        self.floor.finish(ticket)  # this ends the response, unless the user has taken the floor

    def _undecided(self, error: VoxrillError) -> None:
        self._tell_error(error)

    def _begin(self) -> None:
        self.begun += 1
        self._current, self._next = self._next, AskedItems()

    def _form(self) -> ResponseForm:
        options = self._current.options or ResponseOptions(self.settings)
        rate = self.service.model.sample_rate
        return ResponseForm(options.settings, rate, self._beta, options.metadata, self.conversation_id)

    def _outside_form(self, options: ResponseOptions) -> ResponseForm:
        return ResponseForm(options.settings, self.service.model.sample_rate, self._beta, options.metadata, None)

    def _show(self, event: TalkEvent) -> None:
        if event == StateChanged("thinking"):
            self._begin()
            self.response = MessageResponse(self._emit, self._items, self._form())
            return
        if isinstance(event, AnswerFailed):
            self._cut_short(event.error)
        response = self.response
        if isinstance(event, AssistantSaid) and isinstance(response, MessageResponse) and not response.ended:
            response.add_text(event.piece)

    def _send_sound(self, samples: Floats) -> None:
        assert isinstance(self.response, MessageResponse), "the floor passes sound of an answer only once it is begun"
        self.response.add_sound(samples)

    def _finished(self) -> None:
        assert self.response is not None, "the floor finishes an answer only once it is begun"
        if self.response.ended:  # it failed before
            return
        self.answering = False
        self.response.end("completed")
        self.service.metrics.turns.labels("completed").inc()

    def _spoken(self, turn: TalkTurn) -> None:
        """The output of a call was told. If that was not ended as complete, it was cut short."""
        self._cut_short(turn.error)

    def _keep(self, turn: TalkTurn) -> None:
        """A turn of the conversation is over. If its answer was not ended as complete, it was cut short."""
        self._keep_turn(turn, self.own)
        self._history.keep(len(self.own.conversation.told()))
        if not self._current.items:  # the server put the question itself: only the answer is remembered
            self._edited = True

    def _keep_beside(self, turn: TalkTurn) -> None:
        """A turn that was answered beside the conversation becomes part of it."""
        assert self._beside is not None, "it is there until its turn is kept"
        self._keep_turn(turn, self._beside)
        self._edited = True

    def _keep_turn(self, turn: TalkTurn, thinking: Thinker) -> None:
        self._cut_short(turn.error)
        turns = thinking.conversation.told()
        assert self.response is not None, "a turn has a response"
        if turn.error is None and turns:  # a question that could not be answered is not part of the conversation
            self._history.answered(turns[-1], self._current.items, self.response.item_id)
        if turn.heard is not None:
            self._items.cut(self.response.item_id, turn.answer.text)

    def _cut_short(self, error: VoxrillError | None) -> None:
        reason, self.reason = self.reason, BY_SPEECH
        if self.response is None or self.response.ended:
            return
        self.answering = False
        status: Status = "cancelled"
        if error is not None:
            status = "failed"
            self._tell_error(error)
        self.response.end(status, reason, as_api_error(error).body() if error is not None else None)
        self.service.metrics.turns.labels(status).inc()

    def _remember(self, call: OpenCall, answer: str) -> None:
        """The turn that called, and the output of its call, belong to the conversation."""
        self._refresh()
        self.own.settle()
        self.service.states.use(self.own.conversation.context)
        conversation, question = self.own.conversation, call.question
        if isinstance(question, Typed):
            audio = question.utterance.samples if question.utterance is not None else None
            conversation.remember(answer, text=question.text, audio=audio, trim=False)
        elif question is not None:
            conversation.remember(answer, audio=question.utterance.samples, trim=False)
        conversation.forget(self.service.positions, self.service.turns)
        turns = conversation.told()
        if turns:
            self._history.answered(turns[-1], call.items, new_id("item"))
            self._history.keep(len(turns))

    def _tell_error(self, error: Exception, event_id: str | None = None) -> None:
        self._emit("error", error=as_api_error(error).body() | {"event_id": event_id})


def _prompt(settings: Settings) -> Settings:
    """What a conversation and its responder are made from: the same settings give the same ones."""
    return replace(Settings(), instructions=settings.instructions, output=settings.output, most=settings.most)
