"""One realtime session: a client that speaks and is spoken to over a WebSocket.

In: the client's events. Out: the server's. Two threads work on it. A listening thread takes the events in order, and
finds out when the user begins and ends (`receive`). The worker's thread answers (`step`). They share the floor and a
queue of changes, as in a talk on a sound card.
"""

from __future__ import annotations

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
from voxrill.runtime.serve.allowed_calls import AllowedCalls, ToolChoice, allowed_calls, check_size
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.realtime.call_decider import CallDecider, Question
from voxrill.runtime.serve.realtime.input_transcriber import InputTranscriber
from voxrill.runtime.serve.realtime.messages import (
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
    Truncate,
)
from voxrill.runtime.serve.realtime.outbox import FAILED, Outbox
from voxrill.runtime.serve.realtime.output_speaker import OutputSpeaker
from voxrill.runtime.serve.realtime.playback import ClientPlayer
from voxrill.runtime.serve.realtime.responses import CallResponse, Emitter, MessageResponse, Status, new_id
from voxrill.runtime.serve.realtime.settings import Settings, shown
from voxrill.runtime.serve.realtime.turn_detector import TurnDetector
from voxrill.runtime.serve.realtime.weak_callback import weak_callback
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.uploads import from_base64
from voxrill.runtime.talk.events import AnswerFailed, AssistantSaid, StateChanged, TalkEvent
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

_MOST_WAITING = 16
"""Changes that may wait for the worker, each from one message. Meanwhile the next message is left unread."""


class RealtimeSession:
    """A session; `receive` and `step` are its two sides.

    Args:
        service: what all sessions share.
        beta: use OpenAI's names from before 2025.
        outbox: takes the server's events.
    """

    def __init__(self, service: Service, beta: bool, outbox: Outbox) -> None:
        self.over = False
        self._service = service
        self._beta = beta
        self._outbox = outbox
        self._emit = Emitter(beta, outbox.put)
        self._name = new_id("sess")
        self._settings = Settings()
        # The parts call back weakly, so that a session's memory is freed as soon as it ends.
        self._player = ClientPlayer(
            service.model.sample_rate, weak_callback(self._send_sound), weak_callback(self._finished)
        )
        self._floor = Floor(self._player)
        # What the listening thread decides goes to the worker's thread through here, as functions of the session.
        self._inbox: SimpleQueue[Callable[[RealtimeSession], None]] = SimpleQueue()
        self._leaving = False
        self._response: MessageResponse | CallResponse | None = None
        self._answering = False  # an answer is due or being made
        self._asked = self._begun = 0  # questions that were asked, and those whose answer was begun
        self._reason = BY_SPEECH
        self._cut: tuple[str, int] | None = None  # the last answer that was cut, and the milliseconds heard of it
        self._item = ""  # the user's, which is being spoken
        self._said: list[Utterance] = []
        self._written: list[str] = []
        self._outputs: dict[str, str] = {}  # of calls, which wait for response.create
        self._calls: dict[str, Question] = {}  # without output, and the turns that called them
        self._allowed: AllowedCalls | None = None
        self._transcriber = InputTranscriber(service.model, self._emit)
        self._turn_detector = TurnDetector(
            self._settings, self._floor, weak_callback(self._heard), service.model.parts.waveform
        )
        self._responder, self._conversation = self._new_responder(self._settings)
        self._output_speaker: OutputSpeaker | None = None
        self._caller = Caller(service.model)
        self._decider = CallDecider(
            self._caller,
            service.states,
            self._floor,
            weak_callback(self._pass_on),
            weak_callback(self._call),
            weak_callback(self._undecided),
        )
        self._emit("session.created", session=self._shown())

    # The listening thread's side

    @property
    def behind(self) -> bool:
        """Whether so many changes wait for the worker that the client's next message must wait, too."""
        return not self.over and self._inbox.qsize() >= _MOST_WAITING

    def receive(self, raw: str | bytes) -> None:
        """Take one of the client's messages. If something is wrong with it, the client is told."""
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
        self._leaving = True  # the worker's thread may be in the middle of a step: it ends the session itself
        self._outbox.drop()
        self._service.worker.wake()

    def _handle(self, event: ClientEvent) -> None:
        if isinstance(event, Append):
            self._turn_detector.append(from_base64(event.audio, "audio"))
        elif isinstance(event, SessionUpdate):
            self._update(event)
        elif isinstance(event, Commit):
            self._committed(self._turn_detector.commit())
        elif isinstance(event, Clear):
            self._turn_detector.clear()
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
            raise ApiError(400, "Set instructions and modalities before the first turn.", "session_begun")
        if new.instructions is not None:
            self._check_text(new.instructions, "instructions")
        if (new.tools, new.tool_choice) != (self._settings.tools, self._settings.tool_choice):
            check_size(new.tools)
            self._allowed = self._may_call(new, new.tool_choice)
        allowed = self._allowed
        self._turn_detector.change(new)
        self._settings = new
        self._inbox.put(lambda session: session._apply(new, allowed, prompt_changes))

    def _may_call(self, settings: Settings, choice: ToolChoice) -> AllowedCalls | None:
        """The calls that turns may make under these settings."""
        allowed = allowed_calls(self._service.model, settings.tools, choice)
        if allowed is not None:
            self._service.check_length(allowed.functions.listing, "tools")
        return allowed

    def _create(self, event: ItemCreate) -> None:
        name = event.item.id or new_id("item")
        if isinstance(event.item, OutputItem):
            self._take_output(name, event.item)
            return
        content = event.item.content[0]
        if isinstance(content, AudioContent):
            utterance = self._turn_detector.whole(from_base64(content.audio, "audio"))
            self._keep_said(utterance)
            part: dict[str, Any] = {"type": "input_audio", "transcript": None}
            self._transcribe(name, utterance.samples)
        else:
            self._check_text("\n".join([*self._written, content.text]), "text")
            self._written.append(content.text)
            part = {"type": "input_text", "text": content.text}
        self._added(name, part)

    def _check_text(self, text: str, param: str) -> None:
        """Raise ApiError or UsageError if a text is empty, too long, or not UTF-8."""
        self._service.check_text(text, param)
        self._service.model.parts.tokenizer.readable(text)

    def _take_output(self, name: str, item: OutputItem) -> None:
        if item.call_id not in self._calls or item.call_id in self._outputs:
            raise ApiError(400, f"No call {item.call_id[:80]!r} waits for its output.", "call_not_found", "call_id")
        outputs = " ".join([*self._outputs.values(), item.output])
        self._service.check_length(outputs, "output")
        if item.output.strip():
            self._check_text(outputs, "output")
            self._service.model.parts.tokenizer.encode(outputs)  # it is said aloud, so every word must be known
        self._outputs[item.call_id] = item.output
        self._announce(name, {"type": "function_call_output", "call_id": item.call_id, "output": item.output})

    def _respond(self, options: ResponseOptions) -> None:
        if self._answering:
            raise ApiError(400, "An answer is being made.", "conversation_already_has_active_response")
        allowed = self._allowed
        if options.tool_choice is not UNSET:
            allowed = self._may_call(self._settings, options.tool_choice)
        said, written, outputs = self._said, self._written, self._outputs
        self._said, self._written, self._outputs = [], [], {}
        if bool(said) + bool(written) + bool(outputs) > 1:
            raise ApiError(400, "A turn is speech, text, or the output of calls. It cannot mix them.", "mixed_turn")
        if not said and not written and not "".join(outputs.values()).strip():
            raise ApiError(400, "There is nothing to answer.", "nothing_to_answer")
        self._player.all_played()  # the client heard all that it did not truncate
        now = time.perf_counter()
        self._answering = True
        self._asked += 1
        if outputs:
            self._inbox.put(lambda session: session._answer_outputs(outputs))
        elif written:
            self._post(Typed("\n".join(written), now), allowed)
        else:
            self._post(Began())
            samples = np.concatenate([utterance.samples for utterance in said])
            whole = replace(said[-1], samples=samples)
            self._post(Ended(whole, now, self._floor.question()), allowed)

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
        """Whether an item is the answer that has the floor: no other question was asked since.

        `_asked` is counted in the listening thread, `_begun` in the worker's: they differ while a question waits.
        """
        return self._response is not None and self._response.item_id == item and self._asked == self._begun

    def _interrupt(self, heard: int) -> None:
        """The answer that has the floor ends after its first `heard` samples."""
        if self._response is not None and self._asked == self._begun:
            self._cut = self._response.item_id, heard * 1000 // self._service.model.sample_rate
        self._post(Interrupted(heard, time.perf_counter()))

    def _heard(self, signal: Signal | WakeChange) -> None:
        """The listener noticed something that the user did."""
        assert not isinstance(signal, Woke | Slept), "a session has no wake word"
        detection = self._settings.detection
        if isinstance(signal, Began):
            self._item = new_id("item")
            start = self._turn_detector.milliseconds(self._turn_detector.first)
            self._emit("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._item)
        if isinstance(signal, Interrupted):
            self._interrupt(signal.heard)
            return
        if isinstance(signal, Ended):
            end = self._turn_detector.milliseconds(self._turn_detector.last + 1)
            self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=self._item)
            self._announce_turn(self._item, signal.utterance)
        if detection is None or detection.create_response:
            if isinstance(signal, Ended):
                self._answering = True
                self._asked += 1
            self._post(signal, self._allowed)
        elif isinstance(signal, Ended):
            self._keep_said(signal.utterance)
        elif not isinstance(signal, Paused | Resumed):
            self._post(signal)

    def _keep_said(self, utterance: Utterance) -> None:
        """Keep what was said until it is to be answered."""
        longest = self._settings.endpoint.longest
        if sum(len(kept.samples) for kept in [*self._said, utterance]) > longest * RATE:
            raise ApiError(
                400, f"More than {longest:g} seconds of sound would wait. Send response.create before more.", "too_long"
            )
        self._said.append(utterance)

    def _committed(self, utterance: Utterance) -> None:
        self._keep_said(utterance)
        self._announce_turn(new_id("item"), utterance)

    def _announce_turn(self, item: str, utterance: Utterance) -> None:
        self._emit("input_audio_buffer.committed", previous_item_id=None, item_id=item)
        self._added(item, {"type": "input_audio", "transcript": None})
        self._transcribe(item, utterance.samples)

    def _added(self, name: str, part: dict[str, Any]) -> None:
        self._announce(name, {"type": "message", "role": "user", "content": [part]})

    def _announce(self, name: str, content: dict[str, Any]) -> None:
        item = {"id": name, "object": "realtime.item", "status": "completed", **content}
        self._emit("conversation.item.added", previous_item_id=None, item=item)
        self._emit("conversation.item.done", previous_item_id=None, item=item)

    def _transcribe(self, item: str, samples: Floats) -> None:
        if self._settings.transcribe:
            self._transcriber.add(item, samples)

    def _post(self, signal: Signal, allowed: AllowedCalls | None = None) -> None:
        self._inbox.put(lambda session: session._decider.take(signal, allowed))

    # The worker's side

    def step(self) -> bool:
        """Do one thing; whether there was anything to do."""
        if self._leaving:
            self._release()
            self.over = True
            return True
        return (
            self._think(signalled=True)  # the responder must know all that was decided before more is decided
            or self._take_change()
            or (not self._outbox.full and (self._decider.step() or self._think() or self._transcriber.step()))
        )

    def _take_change(self) -> bool:
        try:
            self._inbox.get_nowait()(self)
        except Empty:
            return False
        return True

    def _think(self, signalled: bool = False) -> bool:
        """Answer a little, or take a signal only; whether there was anything to do."""
        thinking = [(self._responder, self._conversation)]
        if self._output_speaker is not None:
            thinking.append((self._output_speaker.responder, self._output_speaker.conversation))
        for responder, conversation in thinking:
            if not responder.idle and not (signalled and responder.inbox.empty()):
                self._service.states.use(conversation.context)
                if responder.step():
                    return True
        return False

    def fail(self, error: Exception) -> None:
        """The session cannot go on."""
        self._release()
        self._error(error, None)
        self._outbox.close(FAILED)

    def _apply(self, new: Settings, allowed: AllowedCalls | None, prompt_changes: bool) -> None:
        if prompt_changes:
            self._drop([self._conversation.context])
            self._responder, self._conversation = self._new_responder(new)
        self._drop(self._caller.forget(allowed.functions if allowed is not None else None))
        self._emit("session.updated", session=self._shown())

    def _new_responder(self, settings: Settings) -> tuple[Responder, Conversation]:
        service = self._service
        conversation = service.model.conversation(system=settings.instructions, output=settings.output)
        most = min(settings.most or service.limits.answer, service.limits.answer)
        options = ResponderOptions(budget=service.positions, turns=service.turns, max_new_tokens=most)
        show, keep = weak_callback(self._show), weak_callback(self._keep)
        return Responder(conversation, self._player, self._floor, show, keep, options), conversation

    def _release(self) -> None:
        """Free what the session holds. Work that was begun ends here: a generator in the making refers to its maker."""
        conversations = [self._conversation]
        if self._output_speaker is not None:
            conversations.append(self._output_speaker.conversation)
        self._drop([*(conversation.context for conversation in conversations), *self._caller.contexts])
        for conversation in conversations:
            conversation.close()
        self._transcriber.close()
        self._decider.reset()

    def _drop(self, contexts: list[Context]) -> None:
        for context in contexts:
            self._service.states.drop(context)

    def _pass_on(self, signal: Signal) -> None:
        """A signal of a turn that calls nothing goes to the responder; one that ends an answer, to both responders."""
        if isinstance(signal, Began | Interrupted):
            if isinstance(self._response, CallResponse) and not self._response.ended:
                self._cut_short(None)
            if self._output_speaker is not None:
                self._output_speaker.responder.inbox.put(signal)
        self._responder.inbox.put(signal)

    def _call(self, turn: Question, ticket: int, call: FunctionCall) -> None:
        """A turn calls a function."""
        self._begun += 1
        self._response = CallResponse(self._emit, call)
        self._calls[self._response.call_id] = turn
        if len(self._calls) > _MOST_CALLS:
            del self._calls[next(iter(self._calls))]
        self._floor.finish(ticket)  # this ends the response, unless the user has taken the floor

    def _undecided(self, error: VoxrillError) -> None:
        self._error(error, None)

    def _answer_outputs(self, outputs: dict[str, str]) -> None:
        """Tell the user the output of calls."""
        text = " ".join(outputs.values())
        questions = [self._calls.pop(call) for call in outputs if call in self._calls]
        self._pass_on(Began())  # the answer before is over
        if questions and self._service.turns != 0:
            self._remember(questions[-1], text)
        if self._settings.output != "text":
            self._output_speaker = self._output_speaker or self._new_output_speaker()
            self._output_speaker.speak(text)
            return
        ticket = self._floor.question()
        self._show(StateChanged("thinking"))
        self._show(AssistantSaid(text))
        self._floor.finish(ticket)

    def _new_output_speaker(self) -> OutputSpeaker:
        show, keep = weak_callback(self._show), weak_callback(self._keep)
        return OutputSpeaker(self._service, self._player, self._floor, show, keep)

    def _remember(self, question: Question, answer: str) -> None:
        """The turn that called, and the output of its call, belong to the conversation."""
        self._service.states.use(self._conversation.context)
        self._responder.inbox.put(Resumed())  # an answer that was begun early is withdrawn
        while not self._responder.inbox.empty():
            self._responder.step()
        if isinstance(question, Typed):
            self._conversation.remember(answer, text=question.text)
        else:
            self._conversation.remember(answer, audio=question.utterance.samples, trim=False)
        self._conversation.forget(self._service.positions, self._service.turns)

    def _show(self, event: TalkEvent) -> None:
        if event == StateChanged("thinking"):
            self._begun += 1
            self._response = MessageResponse(self._emit, self._settings.output, self._beta)
            return
        if isinstance(event, AnswerFailed):
            self._cut_short(event.error)
        response = self._response
        if isinstance(event, AssistantSaid) and isinstance(response, MessageResponse) and not response.ended:
            response.add_text(event.piece)

    def _send_sound(self, samples: Floats) -> None:
        assert isinstance(self._response, MessageResponse), "the floor passes sound of an answer only once it is begun"
        self._response.add_sound(samples)

    def _finished(self) -> None:
        assert self._response is not None, "the floor finishes an answer only once it is begun"
        if self._response.ended:  # it failed before
            return
        self._answering = False
        self._response.end("completed")
        self._service.metrics.turns.labels("completed").inc()

    def _keep(self, turn: TalkTurn) -> None:
        """A turn is over. If its answer was not ended as complete, it was cut short."""
        self._cut_short(turn.error)

    def _cut_short(self, error: VoxrillError | None) -> None:
        reason, self._reason = self._reason, BY_SPEECH
        if self._response is None or self._response.ended:
            return
        self._answering = False
        status: Status = "cancelled"
        if error is not None:
            status = "failed"
            self._error(error, None)
        self._response.end(status, reason)
        self._service.metrics.turns.labels(status).inc()

    # Both sides

    def _shown(self) -> dict[str, Any]:
        name = self._service.model.manifest.name
        return shown(self._settings, self._name, name, self._conversation.system, self._beta)

    def _error(self, error: Exception, event_id: str | None) -> None:
        self._emit("error", error=as_api_error(error).body() | {"event_id": event_id})


_DECODER = msgspec.json.Decoder(ClientEvent)


def _decode(raw: str) -> ClientEvent:
    try:
        event: ClientEvent = _DECODER.decode(raw)
        return event
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ApiError(400, f"This is not an event of the realtime interface: {error}", "invalid_event") from None
