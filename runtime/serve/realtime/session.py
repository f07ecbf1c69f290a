"""One realtime session: a client that speaks and is spoken to over a WebSocket.

In: the client's events. Out: the server's. Two threads work on it. A listening thread takes the events in order, and
finds out when the user begins and ends (`receive`). The worker's thread answers (`step`, see `Answering`). They share
the floor and a queue of changes, as in a talk on a sound card.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.allowed_calls import AllowedCalls, allowed_calls
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.realtime.answering import BY_CLIENT, Answering, Asked
from voxrill.runtime.serve.realtime.client_items import Told, check_waiting, joined, read_message
from voxrill.runtime.serve.realtime.emitter import Emitter, new_id
from voxrill.runtime.serve.realtime.items import Items, message
from voxrill.runtime.serve.realtime.messages import (
    Append,
    CallItem,
    Clear,
    ClientEvent,
    Commit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    MessageItem,
    OutputItem,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
    Truncate,
    decoded,
    event_id_of,
    opened,
)
from voxrill.runtime.serve.realtime.open_calls import OpenCall
from voxrill.runtime.serve.realtime.outbox import FAILED, Outbox
from voxrill.runtime.serve.realtime.response_options import ResponseOptions, response_options
from voxrill.runtime.serve.realtime.session_update import merged
from voxrill.runtime.serve.realtime.settings import Settings, shown
from voxrill.runtime.serve.realtime.turn_detector import TurnDetector
from voxrill.runtime.serve.realtime.weak_callback import weak_callback
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.uploads import from_base64
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

_MOST_WAITING = 16
"""Changes that may wait for the worker, each from one message. Meanwhile the next message is left unread."""

BEGINNING = Settings()
"""The settings with which a session begins."""

_OPENING = "hello"
"""What the model is asked when a client wants an answer, and nothing was said: its own greeting answers it."""


class RealtimeSession:
    """A session; `receive` and `step` are its two sides.

    Args:
        service: what all sessions share.
        beta: use OpenAI's names from before 2025.
        outbox: takes the server's events.
        settings: those with which it begins.
    """

    def __init__(self, service: Service, beta: bool, outbox: Outbox, settings: Settings = BEGINNING) -> None:
        self.over = False
        self._service = service
        self._beta = beta
        self._outbox = outbox
        self._emit = Emitter(beta, outbox.put)
        self._name = new_id("sess")
        self._settings = settings
        self._items = Items(self._emit)
        self._answers = Answering(service, settings, self._emit, self._items, beta)
        # What the listening thread decides goes to the worker's thread through here, as functions.
        self._inbox: SimpleQueue[Callable[[Answering], None]] = SimpleQueue()
        self._leaving = False
        self._item = ""  # the user's, which is being spoken
        self._waiting: list[Told] = []  # the user's messages that wait for response.create
        self._outputs: dict[str, str] = {}  # of calls, which wait for response.create
        self._allowed: AllowedCalls | None = None
        self._committed = False  # the client ended the turn that is being answered
        self._turn_detector = TurnDetector(
            settings, self._answers.floor, weak_callback(self._heard), service.model.parts.heard
        )
        self._emit("session.created", session=self._shown(settings))

    # The listening thread's side

    @property
    def behind(self) -> bool:
        """Whether so many changes wait for the worker that the client's next message must wait, too."""
        return not self.over and self._inbox.qsize() >= _MOST_WAITING

    def receive(self, raw: str | bytes) -> None:
        """Take one of the client's messages. If something is wrong with it, the client is told."""
        try:
            if not isinstance(raw, str):
                raise ApiError(400, "Events are JSON text; sound goes into input_audio_buffer.append.", "not_text")
            self._handle(decoded(raw))
        except (ApiError, VoxrillError) as error:
            self._error(error, event_id_of(raw) if isinstance(raw, str) else None)
        self._service.worker.wake()

    def leave(self) -> None:
        """The client is gone."""
        self._leaving = True  # the worker's thread may be in the middle of a step: it ends the session itself
        self._outbox.drop()
        self._service.worker.wake()

    def _handle(self, event: ClientEvent) -> None:
        match event:
            case Append():
                self._turn_detector.append(from_base64(event.audio, "audio"))
            case SessionUpdate():
                self._update(event)
            case Commit():
                self._commit()
            case Clear():
                self._turn_detector.clear()
                self._emit("input_audio_buffer.cleared")
            case ItemCreate():
                self._create(event)
            case ItemRetrieve():
                self._emit("conversation.item.retrieved", item=self._items.get(event.item_id))
            case ItemDelete():
                self._delete(event.item_id)
            case ResponseCreate():
                self._respond(event)
            case ResponseCancel():
                self._cancel(event.response_id, event.event_id)
            case Truncate():
                self._truncate(event)

    def _update(self, event: SessionUpdate) -> None:
        now, (new, errors) = (
            self._settings,
            merged(self._settings, opened(event.session, "session"), self._service.model),
        )
        if new.instructions is not None and new.instructions != now.instructions:
            try:
                self._check_text(new.instructions, "session.instructions")
            except (ApiError, VoxrillError) as error:
                errors.append(as_api_error(error))
                new = replace(new, instructions=now.instructions)
        if (new.tools, new.tool_choice) != (now.tools, now.tool_choice):
            new = self._with_tools(new, errors)
        for wrong in errors:
            self._error(wrong, event.event_id)
        self._turn_detector.change(new)
        self._settings = new
        allowed, session = self._allowed, self._shown(new)
        self._post(lambda answers: answers.apply(new, allowed, session))

    def _with_tools(self, new: Settings, errors: list[ApiError]) -> Settings:
        """The settings with those of their tools and their choice that can be; the session's where one cannot."""
        now = self._settings
        tries = (
            ("session.tool_choice", new),
            ("session.tools", replace(new, tool_choice=now.tool_choice)),
            ("", replace(new, tools=now.tools, tool_choice=now.tool_choice)),
        )
        for param, settings in tries:
            try:
                self._allowed = self._may_call(settings)
                return settings
            except (ApiError, VoxrillError) as error:
                wrong = as_api_error(error)
                blamed = "session.tools" if new.tool_choice == now.tool_choice else param
                wrong.param = blamed
                if not errors or errors[-1].message != wrong.message:
                    errors.append(wrong)
        return replace(new, tools=now.tools, tool_choice=now.tool_choice)

    def _may_call(self, settings: Settings) -> AllowedCalls | None:
        """The calls that turns may make under these settings."""
        allowed = allowed_calls(self._service.model, settings.tools, settings.tool_choice)
        if allowed is not None:
            self._service.check_length(allowed.functions.listing, "tools")
        return allowed

    def _check_text(self, text: str, param: str) -> None:
        """Raise ApiError or UsageError if a text is empty, too long, or not UTF-8."""
        self._service.check_text(text, param)
        self._service.model.parts.tokenizer.readable(text)

    # Items

    def _create(self, event: ItemCreate) -> None:
        self._items.check_new(event.item.id)
        self._items.check_place(event.previous_item_id)
        match event.item:
            case MessageItem():
                self._create_message(event.item, event.previous_item_id)
            case OutputItem():
                self._create_output(event.item, event.previous_item_id)
            case CallItem():
                self._create_call(event.item, event.previous_item_id)

    def _create_message(self, item: MessageItem, before: str | None) -> None:
        told, content = read_message(item, self._turn_detector.whole)
        if told.text:
            self._check_text("\n".join([*(one.text for one in self._waiting), told.text]), "item.content")
        if told.role == "user" and before in (None, self._items.last):
            check_waiting([*self._waiting, told])
            self._waiting.append(told)
        else:
            if before is None:
                self._tell_waiting()
            self._post(lambda answers: answers.tell(told, before))
        self._items.add(content, before)
        for place, utterance in told.sounds:
            self._transcribe(told.item, place, utterance)

    def _tell_waiting(self) -> None:
        """What waits to be answered is answered already: the client adds what was said after it."""
        waiting, self._waiting = self._waiting, []
        outputs, self._outputs = self._outputs, {}
        for one in waiting:
            self._post(lambda answers, told=one: answers.tell(told, None))  # type: ignore[misc]
        if outputs:
            self._post(lambda answers: _ignore(answers.tell_outputs(outputs)))

    def _create_output(self, item: OutputItem, before: str | None) -> None:
        if item.call_id not in self._answers.calls or item.call_id in self._outputs:
            raise ApiError(400, f"No call {item.call_id[:80]!r} waits for its output.", "call_not_found", "call_id")
        self._service.check_length(" ".join([*self._outputs.values(), item.output]), "output")
        self._service.model.parts.tokenizer.readable(item.output)
        self._outputs[item.call_id] = item.output
        told = {"type": "function_call_output", "call_id": item.call_id, "output": item.output}
        self._items.add(_completed(item.id, told), before)

    def _create_call(self, item: CallItem, before: str | None) -> None:
        self._service.check_length(item.arguments, "item.arguments")
        self._tell_waiting()
        call_id = item.call_id or new_id("call")
        self._answers.calls.add(call_id, OpenCall(None))
        told = {"type": "function_call", "call_id": call_id, "name": item.name, "arguments": item.arguments}
        self._items.add(_completed(item.id, told), before)

    def _delete(self, name: str) -> None:
        self._items.delete(name)
        self._waiting = [told for told in self._waiting if told.item != name]
        self._post(lambda answers: answers.delete(name))

    def _truncate(self, event: Truncate) -> None:
        answers, name, milliseconds = self._answers, event.item_id, event.audio_end_ms
        if answers.cut is None or answers.cut[0] != name:
            heard = answers.floor.interrupt() if self._is_last(name) else None
            if heard is None:
                if self._items.get(name, what="truncate").get("role") != "assistant":
                    raise ApiError(400, "Only answers can be cut.", "item_truncate_invalid_item_id", "item_id")
                self._post(lambda answers: answers.cut_item(name, milliseconds))
                self._emit(_TRUNCATED, item_id=name, content_index=event.content_index, audio_end_ms=milliseconds)
                return
            answers.reason = BY_CLIENT
            self._interrupt(min(heard, milliseconds * self._service.model.sample_rate // 1000))
        assert answers.cut is not None
        self._emit(_TRUNCATED, item_id=name, content_index=event.content_index, audio_end_ms=answers.cut[1])

    # Responses

    def _respond(self, event: ResponseCreate) -> None:
        if self._settings.kind == "transcription":
            raise ApiError(
                400,
                'This session only writes down what is said. Set session.type to "realtime" for answers.',
                "transcription_session",
            )
        given = opened(event.response, "response")
        options = response_options(self._settings, given, self._service.model)
        self._check_options(options)
        if not options.in_conversation:
            self._respond_outside(options)
            return
        if self._answers.answering:
            if self._committed and not given:  # the turn that it committed is being answered
                self._committed = False
                return
            message = "An answer is being made. Wait for its response.done, or send response.cancel."
            raise ApiError(400, message, "conversation_already_has_active_response")
        settings, allowed = options.settings, self._allowed
        if (settings.tools, settings.tool_choice) != (self._settings.tools, self._settings.tool_choice):
            allowed = self._may_call(settings)
        waiting, self._waiting = self._waiting, []
        outputs, self._outputs = self._outputs, {}
        self._answers.player.all_played()  # the client heard all that it did not truncate
        self._answers.answering = True
        self._answers.asked += 1
        asked = Asked(tuple(told.item for told in waiting), options)
        if outputs and not waiting:
            self._post(lambda answers: answers.answer_outputs(outputs, asked))
            return
        if outputs:
            self._post(lambda answers: _ignore(answers.tell_outputs(outputs)))
        self._ask(joined(waiting) if waiting else self._opening(options), allowed, asked)

    def _ask(self, question: Told, allowed: AllowedCalls | None, asked: Asked) -> None:
        now = time.perf_counter()
        samples = question.samples
        said = Utterance(samples, 0, len(samples), now) if question.sounds else None
        self._signal(Began())
        if said is not None and not question.text:
            signal: Signal = Ended(said, now, self._answers.floor.question())
        else:
            signal = Typed(question.text, now, said)
        self._post(lambda answers: answers.take(signal, allowed, asked))

    def _opening(self, options: ResponseOptions) -> Told:
        """The question where the client wants an answer, and nothing was said: the response's own instructions.

        A model with a closed vocabulary cannot follow instructions: it greets.
        """
        own = options.settings.instructions
        follows = own is not None and own != self._settings.instructions
        closed = self._service.model.parts.tokenizer.closed
        return Told("", "user", own if own is not None and follows and not closed else _OPENING)

    def _check_options(self, options: ResponseOptions) -> None:
        instructions = options.settings.instructions
        if instructions is not None and instructions != self._settings.instructions:
            self._check_text(instructions, "response.instructions")

    def _respond_outside(self, options: ResponseOptions) -> None:
        if options.settings.tools != self._settings.tools:
            raise ApiError(400, "A response outside the conversation calls nothing.", "invalid_value", "response.tools")
        if self._answers.outside_full:
            message = "Too many responses outside the conversation are being made. Wait for one to end."
            raise ApiError(400, message, "conversation_already_has_active_response")
        known: list[Told | str] = [] if options.input is None else [self._input(one) for one in options.input]
        asked = self._waiting if options.input is None else _last_asked(known)
        known = known[: len(known) - len(asked)] if options.input is not None else known
        check_waiting(asked)
        question = joined(asked) if asked else self._opening(options)
        self._answers.outside_asked += 1
        self._post(lambda answers: answers.answer_outside(options, known, question))

    def _input(self, item: Any) -> Told | str:
        """An item of a response's own input, or the name of an item of the conversation."""
        if not isinstance(item, MessageItem):
            self._items.get(item.id, "response.input")
            return next((told for told in self._waiting if told.item == item.id), str(item.id))
        told, _ = read_message(item, self._turn_detector.whole)
        self._service.check_length(told.text, "response.input")
        return told

    def _cancel(self, response_id: str | None, event_id: str | None) -> None:
        answers = self._answers
        own = response_id is None or (answers.response is not None and answers.response.response_id == response_id)
        if response_id is not None and not own:
            self._post(lambda answers: answers.cancel_outside(response_id, event_id))
            return
        heard = answers.floor.interrupt() if answers.answering else None
        if heard is None:
            raise ApiError(400, "No answer is being made.", "response_cancel_not_active")
        answers.reason = BY_CLIENT
        self._interrupt(heard)

    def _is_last(self, item: str) -> bool:
        """Whether an item is the answer that has the floor: no other question was asked since.

        `asked` is counted in the listening thread, `begun` in the worker's: they differ while a question waits.
        """
        answers = self._answers
        return answers.response is not None and answers.response.item_id == item and answers.asked == answers.begun

    def _interrupt(self, heard: int) -> None:
        """The answer that has the floor ends after its first `heard` samples."""
        answers = self._answers
        if answers.response is not None and answers.asked == answers.begun:
            answers.cut = answers.response.item_id, heard * 1000 // self._service.model.sample_rate
        self._signal(Interrupted(heard, time.perf_counter()))

    # What the user does

    def _heard(self, signal: Signal | WakeChange) -> None:
        """The listener noticed something that the user did."""
        assert not isinstance(signal, Woke | Slept), "a session has no wake word"
        if isinstance(signal, Began):
            self._item = new_id("item")
            start = self._turn_detector.milliseconds(self._turn_detector.first)
            self._emit("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._item)
        if isinstance(signal, Interrupted):
            if self._settings.kind == "realtime":
                self._interrupt(signal.heard)
            return
        self._write_down(signal)
        if isinstance(signal, Ended):
            end = self._turn_detector.milliseconds(self._turn_detector.last + 1)
            self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=self._item)
            self._announce_turn(self._item, signal.utterance)
        if self._settings.answers:
            self._answer(signal)
        elif isinstance(signal, Ended):
            self._keep_said(self._item, signal.utterance)
        elif self._settings.kind == "realtime" and not isinstance(signal, Paused | Resumed):
            self._signal(signal)

    def _answer(self, signal: Signal) -> None:
        allowed, asked = self._allowed, Asked((self._item,))
        if isinstance(signal, Ended):
            self._committed = False
            self._answers.answering = True
            self._answers.asked += 1
        self._post(lambda answers: answers.take(signal, allowed, asked))

    def _write_down(self, signal: Signal) -> None:
        """A transcript is begun at the pause before the end of a turn."""
        if self._settings.transcribes and isinstance(signal, Paused):
            utterance = signal.utterance
            self._post(lambda answers: answers.transcriber.pause(utterance))
        elif self._settings.transcribes and isinstance(signal, Resumed):
            self._post(lambda answers: answers.transcriber.resume())

    def _commit(self) -> None:
        utterance = self._turn_detector.commit()
        if utterance is None:  # the listener has told the end of the turn
            self._committed = True
            return
        name = new_id("item")
        self._keep_said(name, utterance)
        self._announce_turn(name, utterance)

    def _keep_said(self, item: str, utterance: Utterance) -> None:
        """Keep what was said until it is to be answered."""
        if self._settings.kind == "realtime":
            told = Told(item, "user", "", ((0, utterance),))
            check_waiting([*self._waiting, told])
            self._waiting.append(told)

    def _announce_turn(self, item: str, utterance: Utterance) -> None:
        self._emit("input_audio_buffer.committed", previous_item_id=self._items.last, item_id=item)
        self._items.add(message(item, "user", [{"type": "input_audio", "transcript": None}]))
        self._transcribe(item, 0, utterance)

    def _transcribe(self, item: str, place: int, utterance: Utterance) -> None:
        if self._settings.transcribes:
            self._post(lambda answers: answers.transcriber.add(item, place, utterance))

    def _signal(self, signal: Signal) -> None:
        self._post(lambda answers: answers.take(signal))

    def _post(self, change: Callable[[Answering], None]) -> None:
        self._inbox.put(change)

    # The worker's side

    def step(self) -> bool:
        """Do one thing; whether there was anything to do."""
        answers = self._answers
        if self._leaving:
            answers.release()
            self.over = True
            return True
        return (
            answers.take_signals()  # the responders must know all that was decided before more is decided
            or self._take_change()
            or (not self._outbox.full and (answers.transcriber.step() or answers.step()))
        )

    def _take_change(self) -> bool:
        try:
            self._inbox.get_nowait()(self._answers)
        except Empty:
            return False
        return True

    def fail(self, error: Exception) -> None:
        """The session cannot go on."""
        self._answers.release()
        self._error(error, None)
        self._outbox.close(FAILED)

    # Both sides

    def _shown(self, settings: Settings) -> dict[str, Any]:
        model = self._service.model
        tasks = model.manifest.tasks
        own = tasks.write.system if settings.output == "text" else tasks.chat.system
        asked = settings.instructions
        instructions = own if asked is None else asked
        return shown(settings, self._name, model.manifest.name, instructions, self._beta)

    def _error(self, error: Exception, event_id: str | None) -> None:
        self._emit("error", error=as_api_error(error).body() | {"event_id": event_id})


_TRUNCATED = "conversation.item.truncated"


def _completed(name: str | None, content: dict[str, Any]) -> dict[str, Any]:
    return {"id": name or new_id("item"), "object": "realtime.item", "status": "completed", **content}


def _last_asked(known: list[Told | str]) -> list[Told]:
    """The user's messages at the end of a response's own input: they are what is asked."""
    asked: list[Told] = []
    for one in reversed(known):
        if isinstance(one, str) or one.role != "user":
            break
        asked.insert(0, one)
    return asked


def _ignore(_result: object) -> None:
    """A change returns nothing."""
