"""One realtime session: a client that speaks and is spoken to over a WebSocket.

In: the client's events. Out: the server's. Two threads work on it. A listening thread takes the events in order, and
finds out when the user begins and ends (`receive`). The worker's thread answers (`step`, see `Answering`). They share
the floor and a queue of changes, as in a talk on a sound card.
"""

from __future__ import annotations

from dataclasses import replace
from queue import Empty
from typing import Any

from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.realtime.answering import AskedItems
from voxrill.runtime.serve.realtime.client_items import Told, check_waiting
from voxrill.runtime.serve.realtime.emitter import Emitter, new_id
from voxrill.runtime.serve.realtime.item_requests import ItemRequests
from voxrill.runtime.serve.realtime.items import message
from voxrill.runtime.serve.realtime.messages import (
    Append,
    Clear,
    ClientEvent,
    Commit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
    Truncate,
    decoded,
    event_id_of,
    opened,
)
from voxrill.runtime.serve.realtime.outbox import FAILED, Outbox
from voxrill.runtime.serve.realtime.response_requests import ResponseRequests
from voxrill.runtime.serve.realtime.session_state import SessionState
from voxrill.runtime.serve.realtime.session_update import merged
from voxrill.runtime.serve.realtime.settings import Settings, shown
from voxrill.runtime.serve.realtime.turn_detector import TurnDetector
from voxrill.runtime.serve.realtime.weak_callback import weak_callback
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.uploads import from_base64
from voxrill.runtime.talk.listener import (
    Began,
    Ended,
    Heard,
    Interrupted,
    Paused,
    Resumed,
    Signal,
    Slept,
    Utterance,
    WakeChange,
    Woke,
)

_MOST_WAITING = 16
"""Changes that may wait for the worker, each from one message. Meanwhile the next message is left unread."""

BEGINNING = Settings()
"""The settings with which a session begins."""


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
        self._state = SessionState(service, settings, self._emit, beta)
        self._leaving = False
        self._item = ""  # the user's, which is being spoken
        self._paused = False  # the worker knows of the pause in it
        self._turn_detector = TurnDetector(
            settings,
            self._state.answers.floor,
            weak_callback(self._heard),
            service.model.parts.heard,
            service.judge,
            self._state.takes_sound,
        )
        self._items = ItemRequests(self._state, self._turn_detector.whole)
        self._responses = ResponseRequests(self._state, self._turn_detector.whole)
        self._emit("session.created", session=self._shown(settings))

    # The listening thread's side

    @property
    def behind(self) -> bool:
        """Whether so many changes wait for the worker that the client's next message must wait, too."""
        return not self.over and self._state.inbox.qsize() >= _MOST_WAITING

    @property
    def heard_seconds(self) -> float:
        """Seconds of sound that the client sent."""
        return self._turn_detector.seconds

    def receive(self, raw: str | bytes) -> None:
        """Take one of the client's messages. If something is wrong with it, the client is told."""
        try:
            if not isinstance(raw, str):
                raise ApiError(400, "Events are JSON text; sound goes into input_audio_buffer.append.", "not_text")
            self._handle(decoded(raw))
        except (ApiError, VoxrillError) as error:
            self._error(error, event_id_of(raw) if isinstance(raw, str) else None)
        if not self._state.inbox.empty():  # most messages are sound in which nothing happens
            self._service.worker.wake()

    def leave(self) -> None:
        """The client is gone."""
        self._leaving = True  # the worker's thread may be in the middle of a step: it ends the session itself
        self._outbox.drop()
        self._service.worker.wake()

    def _handle(self, event: ClientEvent) -> None:
        match event:
            case Append():
                self._append(from_base64(event.audio, "audio"))
            case SessionUpdate():
                self._update(event)
            case Commit():
                self._commit()
            case Clear():
                self._turn_detector.clear()
                self._state.post(lambda answers: answers.unhear())
                self._emit("input_audio_buffer.cleared")
            case ItemCreate():
                self._items.create(event)
            case ItemRetrieve():
                self._items.retrieve(event.item_id)
            case ItemDelete():
                self._items.delete(event.item_id)
            case ResponseCreate():
                self._responses.create(event)
            case ResponseCancel():
                self._responses.cancel(event.response_id, event.event_id)
            case Truncate():
                self._items.truncate(event)

    def _append(self, pcm: bytes) -> None:
        self._turn_detector.append(pcm)
        kept = self._turn_detector.kept
        cut_later = self._service.model.parts.trim_silence  # then nobody knows yet what of it will be heard
        if kept is not None and not cut_later and self._state.takes_sound():
            allowed, heard = self._state.allowed, Heard(kept, 0)
            self._state.post(lambda answers: answers.hear(heard, allowed))

    def _update(self, event: SessionUpdate) -> None:
        now, (new, errors) = (
            self._state.settings,
            merged(self._state.settings, opened(event.session, "session"), self._service.model),
        )
        if new.instructions is not None and new.instructions != now.instructions:
            try:
                self._state.check_text(new.instructions, "session.instructions")
            except (ApiError, VoxrillError) as error:
                errors.append(as_api_error(error))
                new = replace(new, instructions=now.instructions)
        if (new.tools, new.tool_choice) != (now.tools, now.tool_choice):
            new = self._with_tools(new, errors)
        for wrong in errors:
            self._error(wrong, event.event_id)
        self._turn_detector.change(new)
        self._state.settings = new
        allowed, session = self._state.allowed, self._shown(new)
        self._state.post(lambda answers: answers.apply(new, allowed, session))

    def _with_tools(self, new: Settings, errors: list[ApiError]) -> Settings:
        """The settings with those of their tools and their choice that can be; the session's where one cannot."""
        wrong = self._allow(new)
        if wrong is None:
            return new
        errors.append(wrong)
        kept = replace(new, tool_choice=self._state.settings.tool_choice)
        if kept != new and self._allow(kept) is None:
            wrong.param = "session.tool_choice"
            return kept
        wrong.param = "session.tools"
        return replace(kept, tools=self._state.settings.tools)

    def _allow(self, settings: Settings) -> ApiError | None:
        """Allow the calls of these settings from now on; what is wrong with them, and then nothing changes."""
        try:
            self._state.allowed = self._state.may_call(settings)
        except (ApiError, VoxrillError) as error:
            return as_api_error(error)
        return None

    # What the user does

    def _heard(self, signal: Signal | WakeChange) -> None:
        """The listener noticed something that the user did."""
        assert not isinstance(signal, Woke | Slept), "a session has no wake word"
        if isinstance(signal, Paused | Resumed):
            # A pause only saves time, and holds all that was said: one long message may bring many. So none is handed
            # over while much waits, nor is the end of one that was not.
            known, self._paused = self._paused, isinstance(signal, Paused) and not self.behind
            if not self._paused and not known:
                return
        if isinstance(signal, Began):
            self._item = new_id("item")
            start = self._turn_detector.milliseconds(self._turn_detector.first)
            self._emit("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._item)
        if isinstance(signal, Interrupted):
            if self._state.settings.kind == "realtime":
                self._state.interrupt(signal.heard)
            return
        self._write_down(signal)
        if isinstance(signal, Ended):
            end = self._turn_detector.milliseconds(self._turn_detector.last + 1)
            self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=self._item)
            self._announce_turn(self._item, signal.utterance)
        if self._state.settings.answers or isinstance(signal, Heard):
            self._answer(signal)
        elif isinstance(signal, Ended):
            self._keep_said(self._item, signal.utterance)
        elif self._state.settings.kind == "realtime" and not isinstance(signal, Paused | Resumed):
            self._state.signal(signal)
        if isinstance(signal, Heard | Paused):
            self._service.worker.wake()  # the answer is begun while the pause is judged

    def _answer(self, signal: Signal) -> None:
        allowed, asked = self._state.allowed, AskedItems((self._item,))
        if isinstance(signal, Ended):
            self._state.committed = False
            self._state.answers.answering = True
            self._state.answers.asked += 1
        self._state.post(lambda answers: answers.take(signal, allowed, asked))

    def _write_down(self, signal: Signal) -> None:
        """A transcript is begun at the pause before the end of a turn."""
        if self._state.settings.transcribes and isinstance(signal, Paused):
            utterance = signal.utterance
            self._state.post(lambda answers: answers.transcriber.pause(utterance))
        elif self._state.settings.transcribes and isinstance(signal, Resumed):
            self._state.post(lambda answers: answers.transcriber.resume())

    def _commit(self) -> None:
        utterance = self._turn_detector.commit()
        if utterance is None:  # the listener has told the end of the turn
            self._state.committed = True
            return
        name = new_id("item")
        self._keep_said(name, utterance)
        self._announce_turn(name, utterance)

    def _keep_said(self, item: str, utterance: Utterance) -> None:
        """Keep what was said until it is to be answered."""
        if self._state.settings.kind == "realtime":
            told = Told(item, "user", "", ((0, utterance),))
            check_waiting([*self._state.waiting, told])
            self._state.waiting.append(told)

    def _announce_turn(self, item: str, utterance: Utterance) -> None:
        self._emit("input_audio_buffer.committed", previous_item_id=self._state.items.last, item_id=item)
        self._state.items.add(message(item, "user", [{"type": "input_audio", "transcript": None}]))
        self._state.transcribe(item, 0, utterance)

    # The worker's side

    def step(self) -> bool:
        """Do one thing; whether there was anything to do."""
        answers = self._state.answers
        if self._leaving:
            answers.release()
            self.over = True
            return True
        return (
            answers.take_signals()  # the responders must know all that was decided before more is decided
            or self._take_change()
            or (not self._outbox.full and (answers.transcriber.step() or answers.step()))
        )

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do until a message comes."""
        return not self._leaving and self._state.inbox.empty() and not self._outbox.full and self._state.answers.idle

    def _take_change(self) -> bool:
        try:
            self._state.inbox.get_nowait()(self._state.answers)
        except Empty:
            return False
        return True

    def fail(self, error: Exception) -> None:
        """The session cannot go on."""
        self._state.answers.release()
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
