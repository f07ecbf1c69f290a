"""One realtime session: a client that speaks and is spoken to over a WebSocket.

In: the client's events. Out: the server's. Two threads touch it: an ear's, which takes events in order and finds out
when the user begins and ends (`take`), and the worker's, in which the live loop's mind answers (`step`). They share the
floor and a queue of changes to the mind, as in a talk on a sound card.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from voxrill.runtime.apps.calling import Caller, FunctionCall
from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.realtime.answering import Answering, Calling, Status, new_id
from voxrill.runtime.serve.realtime.deciding import Deciding, Question, Wanted, wanted
from voxrill.runtime.serve.realtime.messages import (
    BETA_NAMES,
    BETA_UNKNOWN,
    Append,
    AudioContent,
    Clear,
    ClientEvent,
    Commit,
    ItemCreate,
    OutputItem,
    ResponseCancel,
    ResponseCreate,
    ResponseOptions,
    SessionUpdate,
    ToolChoice,
    Truncate,
)
from voxrill.runtime.serve.realtime.playback import ClientPlayer
from voxrill.runtime.serve.realtime.scribe import Scribe
from voxrill.runtime.serve.realtime.settings import Settings, shown
from voxrill.runtime.serve.realtime.telling import Teller
from voxrill.runtime.serve.realtime.turn_detector import TurnDetector
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.uploads import from_base64
from voxrill.runtime.talk.events import AssistantSaid, StateChanged, TalkEvent
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import (
    Began,
    Ended,
    Interrupted,
    Paused,
    Resumed,
    Signal,
    Slept,
    Typed,
    Utterance,
    WakeChange,
    Woke,
)
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import Responder, ResponderOptions

BY_SPEECH, BY_CLIENT = "turn_detected", "client_cancelled"
"""Why an answer was cut short."""

_MOST_CALLS = 8
"""Calls that wait for their output; older ones are forgotten."""


class RealtimeSession:
    """A session; `take` and `step` are its two sides.

    Args:
        service: what all share.
        beta: speak the dialect of before.
        send: takes an encoded event, from any thread.
    """

    def __init__(self, service: Service, beta: bool, send: Callable[[bytes], None]) -> None:
        self.over = False
        self._service = service
        self._beta = beta
        self._send = send
        self._numbers = itertools.count(1)
        self._name = new_id("sess")
        self._settings = Settings()
        self._player = ClientPlayer(service.model.sample_rate, self._sound, self._finished)
        self._floor = Floor(self._player)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._leaving = False
        self._answer: Answering | Calling | None = None
        self._answering = False  # an answer is due or being made
        self._asked = self._turns = 0  # questions that were asked, and that the mind has begun to answer
        self._reason = BY_SPEECH
        self._cut: tuple[str, int] | None = None  # the last answer that was cut, and the milliseconds heard of it
        self._item = ""  # the user's, which is being said
        self._said: list[Utterance] = []
        self._written: list[str] = []
        self._outputs: dict[str, str] = {}  # of calls, which wait for response.create
        self._calls: dict[str, Question] = {}  # without output, and the turns that called them
        self._wanted: Wanted | None = None
        self._scribe = Scribe(service.model, self._emit)
        self._ears = TurnDetector(self._settings, self._floor, self._hear)
        self._responder, self._conversation = self._new_responder(self._settings)
        self._teller: Teller | None = None
        self._caller = Caller(service.model)
        self._deciding = Deciding(self._caller, service.states, self._floor, self._pass_on, self._call, self._undecided)
        self._emit("session.created", session=self._shown())

    # The ear's side

    def take(self, raw: str | bytes) -> None:
        """Take one of the client's messages; what is wrong with it is told to the client."""
        event: ClientEvent | None = None
        try:
            if not isinstance(raw, str):
                raise ApiError(400, "Events are JSON text; sound goes into input_audio_buffer.append.", "not_text")
            event = _decode(raw)
            self._handle(event)
        except (ApiError, VoxrillError) as error:
            self._error(error, event.event_id if event is not None else None)
        self._service.worker.wake()

    def leave(self) -> None:
        """The client is gone."""
        self._leaving = True
        self._service.worker.wake()

    def _handle(self, event: ClientEvent) -> None:
        if isinstance(event, Append):
            self._ears.hear(from_base64(event.audio, "audio"))
        elif isinstance(event, SessionUpdate):
            self._update(event)
        elif isinstance(event, Commit):
            self._committed(self._ears.commit())
        elif isinstance(event, Clear):
            self._ears.clear()
            self._emit("input_audio_buffer.cleared")
        elif isinstance(event, ItemCreate):
            self._create(event)
        elif isinstance(event, ResponseCreate):
            self._respond(event.response or ResponseOptions())
        elif isinstance(event, ResponseCancel):
            self._cancel()
        else:
            self._truncate(event)

    def _update(self, event: SessionUpdate) -> None:
        new = self._settings.changed(event.session, self._service.model.manifest.tasks.chat)
        prompt_changes = (new.instructions, new.output) != (self._settings.instructions, self._settings.output)
        if prompt_changes and self._asked:
            raise ApiError(400, "Instructions and modalities are set before the first turn.", "session_begun")
        if new.instructions is not None:
            self._check_text(new.instructions, "instructions")
        if (new.tools, new.tool_choice) != (self._settings.tools, self._settings.tool_choice):
            self._wanted = self._may_call(new, new.tool_choice)
        may_call = self._wanted
        self._ears.change(new)
        self._settings = new

        def apply() -> None:
            if prompt_changes:
                self._drop([self._conversation.context])
                self._responder, self._conversation = self._new_responder(new)
            self._drop(self._caller.forget(may_call.functions if may_call is not None else None))
            self._emit("session.updated", session=self._shown())

        self._inbox.put(apply)

    def _may_call(self, settings: Settings, choice: ToolChoice) -> Wanted | None:
        """What turns may call under these settings."""
        may_call = wanted(self._service.model, settings.tools, choice)
        if may_call is not None:
            self._service.check_length(may_call.functions.listing, "tools")
        return may_call

    def _create(self, event: ItemCreate) -> None:
        name = event.item.id or new_id("item")
        if isinstance(event.item, OutputItem):
            self._take_output(name, event.item)
            return
        content = event.item.content[0]
        if isinstance(content, AudioContent):
            utterance = self._ears.whole(from_base64(content.audio, "audio"))
            self._keep_said(utterance)
            part: dict[str, Any] = {"type": "input_audio", "transcript": None}
            self._write_down(name, utterance.samples)
        else:
            self._check_text("\n".join([*self._written, content.text]), "text")
            self._written.append(content.text)
            part = {"type": "input_text", "text": content.text}
        self._added(name, part)

    def _check_text(self, text: str, param: str) -> None:
        """Raise ApiError or UsageError if a text is too long, or the model cannot read it."""
        self._service.check_text(text, param)
        self._service.model.parts.tokenizer.encode(text)

    def _take_output(self, name: str, item: OutputItem) -> None:
        if item.call_id not in self._calls or item.call_id in self._outputs:
            raise ApiError(400, f"No call {item.call_id[:80]!r} waits for its output.", "call_not_found", "call_id")
        if item.output.strip():
            self._check_text(" ".join([*self._outputs.values(), item.output]), "output")
        self._outputs[item.call_id] = item.output
        self._tell_item(name, {"type": "function_call_output", "call_id": item.call_id, "output": item.output})

    def _respond(self, options: ResponseOptions) -> None:
        if self._answering:
            raise ApiError(400, "An answer is being made.", "conversation_already_has_active_response")
        may_call = self._wanted
        if options.tool_choice is not UNSET:
            may_call = self._may_call(self._settings, options.tool_choice)
        said, written, outputs = self._said, self._written, self._outputs
        self._said, self._written, self._outputs = [], [], {}
        if bool(said) + bool(written) + bool(outputs) > 1:
            raise ApiError(400, "A turn is spoken, written, or what came of calls: one of them.", "mixed_turn")
        if not said and not written and not "".join(outputs.values()).strip():
            raise ApiError(400, "There is nothing to answer.", "nothing_to_answer")
        self._player.all_played()  # what the client did not cut, it heard
        now = time.perf_counter()
        self._answering = True
        self._asked += 1
        if outputs:
            self._inbox.put(lambda: self._tell_outputs(outputs))
        elif written:
            self._post(Typed("\n".join(written), now), may_call)
        else:
            self._post(Began())
            samples = np.concatenate([utterance.samples for utterance in said])
            whole = replace(said[-1], samples=samples)
            self._post(Ended(whole, now, self._floor.question()), may_call)

    def _cancel(self) -> None:
        heard = self._floor.interrupt() if self._answering else None
        if heard is None:
            raise ApiError(400, "No answer is being made.", "response_cancel_not_active")
        self._reason = BY_CLIENT
        self._interrupt(heard)

    def _truncate(self, event: Truncate) -> None:
        if self._cut is None or self._cut[0] != event.item_id:
            heard = self._floor.interrupt() if self._is_last(event.item_id) else None
            if heard is None:
                raise ApiError(400, "No such answer is being made or played.", "item_not_found", "item_id")
            heard = min(heard, event.audio_end_ms * self._service.model.sample_rate // 1000)
            self._reason = BY_CLIENT
            self._interrupt(heard)
        assert self._cut is not None
        self._emit("conversation.item.truncated", item_id=event.item_id, content_index=0, audio_end_ms=self._cut[1])

    def _is_last(self, item: str) -> bool:
        """Whether an item is the answer that has the floor: no other question was asked since."""
        return self._answer is not None and self._answer.item_id == item and self._asked == self._turns

    def _interrupt(self, heard: int) -> None:
        """The answer that has the floor ends after its first `heard` samples."""
        if self._answer is not None and self._asked == self._turns:
            self._cut = self._answer.item_id, heard * 1000 // self._service.model.sample_rate
        self._post(Interrupted(heard, time.perf_counter()))

    def _hear(self, signal: Signal | WakeChange) -> None:
        """What the user does, as the listener found out."""
        assert not isinstance(signal, Woke | Slept), "a session has no wake word"
        detection = self._settings.detection
        if isinstance(signal, Began):
            self._item = new_id("item")
            start = self._ears.milliseconds(self._ears.first)
            self._emit("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._item)
        if isinstance(signal, Interrupted):
            self._interrupt(signal.heard)
            return
        if isinstance(signal, Ended):
            end = self._ears.milliseconds(self._ears.last + 1)
            self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=self._item)
            self._tell_committed(self._item, signal.utterance)
        if detection is None or detection.create_response:
            if isinstance(signal, Ended):
                self._answering = True
                self._asked += 1
            self._post(signal, self._wanted)
        elif isinstance(signal, Ended):
            self._keep_said(signal.utterance)
        elif not isinstance(signal, Paused | Resumed):
            self._post(signal)

    def _keep_said(self, utterance: Utterance) -> None:
        """Keep what was said until it is to be answered."""
        longest = self._settings.endpoint.longest
        if sum(len(kept.samples) for kept in [*self._said, utterance]) > longest * RATE:
            raise ApiError(400, f"More than {longest:g} seconds wait for response.create: they are kept.", "too_long")
        self._said.append(utterance)

    def _committed(self, utterance: Utterance) -> None:
        self._keep_said(utterance)
        self._tell_committed(new_id("item"), utterance)

    def _tell_committed(self, item: str, utterance: Utterance) -> None:
        self._emit("input_audio_buffer.committed", previous_item_id=None, item_id=item)
        self._added(item, {"type": "input_audio", "transcript": None})
        self._write_down(item, utterance.samples)

    def _added(self, name: str, part: dict[str, Any]) -> None:
        self._tell_item(name, {"type": "message", "role": "user", "content": [part]})

    def _tell_item(self, name: str, content: dict[str, Any]) -> None:
        item = {"id": name, "object": "realtime.item", "status": "completed", **content}
        self._emit("conversation.item.added", previous_item_id=None, item=item)
        self._emit("conversation.item.done", previous_item_id=None, item=item)

    def _write_down(self, item: str, samples: Floats) -> None:
        if self._settings.transcribe:
            self._scribe.add(item, samples)

    def _post(self, signal: Signal, may_call: Wanted | None = None) -> None:
        self._inbox.put(lambda: self._deciding.take(signal, may_call))

    # The worker's side

    def step(self) -> bool:
        """Do one thing; whether there was anything to do."""
        if self._leaving:
            self._drop(self._contexts())
            self.over = True
            return True
        return (
            self._think(signalled=True)  # whoever answers must not lag behind what is decided
            or self._take_in()
            or self._deciding.step()
            or self._think()
            or self._scribe.step()
        )

    def _take_in(self) -> bool:
        try:
            self._inbox.get_nowait()()
        except Empty:
            return False
        return True

    def _think(self, signalled: bool = False) -> bool:
        """Answer a little, or take a signal only; whether there was anything to do."""
        thinking = [(self._responder, self._conversation)]
        if self._teller is not None:
            thinking.append((self._teller.responder, self._teller.conversation))
        for responder, conversation in thinking:
            if not responder.idle and not (signalled and responder.inbox.empty()):
                self._service.states.use(conversation.context)
                if responder.step():
                    return True
        return False

    def fail(self, error: Exception) -> None:
        """The session cannot go on."""
        self._drop(self._contexts())
        self._error(error, None)
        self._send(b"")

    def _new_responder(self, settings: Settings) -> tuple[Responder, Conversation]:
        service = self._service
        conversation = service.model.conversation(system=settings.instructions, output=settings.output)
        most = min(settings.most or service.limits.answer, service.limits.answer)
        options = ResponderOptions(budget=service.positions, turns=service.turns, max_new_tokens=most)
        return Responder(conversation, self._player, self._floor, self._show, self._keep, options), conversation

    def _contexts(self) -> list[Context]:
        told = [self._teller.conversation.context] if self._teller is not None else []
        return [self._conversation.context, *told, *self._caller.contexts]

    def _drop(self, contexts: list[Context]) -> None:
        for context in contexts:
            self._service.states.drop(context)

    def _pass_on(self, signal: Signal) -> None:
        """A signal that is no call's goes to whoever answers, and what ends an answer to whoever makes one."""
        if isinstance(signal, Began | Interrupted):
            if isinstance(self._answer, Calling) and not self._answer.ended:
                self._cut_short(None)
            if self._teller is not None:
                self._teller.responder.inbox.put(signal)
        self._responder.inbox.put(signal)

    def _call(self, turn: Question, ticket: int, call: FunctionCall) -> None:
        """A turn calls a function."""
        self._turns += 1
        self._answer = Calling(self._emit, call)
        self._calls[self._answer.call_id] = turn
        if len(self._calls) > _MOST_CALLS:
            del self._calls[next(iter(self._calls))]
        self._floor.finish(ticket)  # and with it the response, unless the user took the floor

    def _undecided(self, error: VoxrillError) -> None:
        self._error(error, None)

    def _tell_outputs(self, outputs: dict[str, str]) -> None:
        """Say what came of calls."""
        text = " ".join(outputs.values())
        questions = [self._calls.pop(call) for call in outputs if call in self._calls]
        self._pass_on(Began())  # what was answered before is over
        if questions and self._service.turns != 0:
            self._remember(questions[-1], text)
        if self._settings.output != "text":
            self._teller = self._teller or Teller(self._service, self._player, self._floor, self._show, self._keep)
            self._teller.say(text)
            return
        ticket = self._floor.question()
        self._show(StateChanged("thinking"))
        self._show(AssistantSaid(text))
        self._floor.finish(ticket)

    def _remember(self, question: Question, answer: str) -> None:
        """The turn that called, and what came of it, belong to what is talked about."""
        self._service.states.use(self._conversation.context)
        self._responder.inbox.put(Resumed())  # nothing is begun on suspicion
        while not self._responder.inbox.empty():
            self._responder.step()
        if isinstance(question, Typed):
            self._conversation.remember(answer, text=question.text)
        else:
            self._conversation.remember(answer, audio=question.utterance.samples)
        self._conversation.forget(self._service.positions, self._service.turns)

    def _show(self, event: TalkEvent) -> None:
        if event == StateChanged("thinking"):
            self._turns += 1
            self._answer = Answering(self._emit, self._settings.output, self._beta)
        elif isinstance(event, AssistantSaid) and isinstance(self._answer, Answering) and not self._answer.ended:
            self._answer.say(event.piece)

    def _sound(self, samples: Floats) -> None:
        assert isinstance(self._answer, Answering), "the floor lets through only what was let out"
        self._answer.sound(samples)

    def _finished(self) -> None:
        assert self._answer is not None, "the floor lets through only what was let out"
        self._answering = False
        self._answer.end("completed")
        self._service.metrics.turns.labels("completed").inc()

    def _keep(self, turn: TalkTurn) -> None:
        """A turn is over: if its answer was not told to be whole, it never will be."""
        self._cut_short(turn.error)

    def _cut_short(self, error: VoxrillError | None) -> None:
        reason, self._reason = self._reason, BY_SPEECH
        if self._answer is None or self._answer.ended:
            return
        self._answering = False
        status: Status = "cancelled"
        if error is not None:
            status = "failed"
            self._error(error, None)
        self._answer.end(status, reason)
        self._service.metrics.turns.labels(status).inc()

    # Both sides

    def _shown(self) -> dict[str, Any]:
        name = self._service.model.manifest.name
        return shown(self._settings, self._name, name, self._conversation.system, self._beta)

    def _emit(self, kind: str, **fields: Any) -> None:
        if self._beta:
            if kind in BETA_UNKNOWN:
                return
            kind = BETA_NAMES.get(kind, kind)
        self._send(msgspec.json.encode({"type": kind, "event_id": f"event_{next(self._numbers)}", **fields}))

    def _error(self, error: Exception, event_id: str | None) -> None:
        self._emit("error", error=as_api_error(error).body() | {"event_id": event_id})


_DECODER = msgspec.json.Decoder(ClientEvent)


def _decode(raw: str) -> ClientEvent:
    try:
        event: ClientEvent = _DECODER.decode(raw)
        return event
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ApiError(400, f"This is no event that is known here: {error}", "invalid_event") from None
