"""One realtime session: a client that speaks and is spoken to over a WebSocket.

In: the client's events. Out: the server's. Two threads touch it: an ear's, which takes events in order and finds out
when the user begins and ends (`take`), and the worker's, in which the live loop's mind answers (`step`). They share the
floor and a queue of changes to the mind, as in a talk on a sound card.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import numpy as np

from voxrill.runtime.conversation import Conversation
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.api_errors import ApiError, Busy, as_api_error
from voxrill.runtime.serve.realtime.answering import Answering, Status, new_id
from voxrill.runtime.serve.realtime.ears import Ears
from voxrill.runtime.serve.realtime.messages import (
    BETA_NAMES,
    BETA_UNKNOWN,
    Append,
    AudioContent,
    Clear,
    ClientEvent,
    Commit,
    ItemCreate,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
    Truncate,
)
from voxrill.runtime.serve.realtime.playback import ClientPlayer
from voxrill.runtime.serve.realtime.settings import Settings, shown
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.uploads import from_base64
from voxrill.runtime.talk.edges import RATE, Floats
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
from voxrill.runtime.talk.mind import Mind, MindOptions
from voxrill.runtime.talk.reply import Turn

BY_SPEECH, BY_CLIENT = "turn_detected", "client_cancelled"
"""Why an answer was cut short."""

_TRANSCRIPTION = "conversation.item.input_audio_transcription"

_MOST_TO_WRITE = 8
"""Turns that wait to be written down; answers come first."""


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
        self._answer: Answering | None = None
        self._answering = False  # an answer is due or being made
        self._asked = self._turns = 0  # questions that were asked, and that the mind has begun to answer
        self._reason = BY_SPEECH
        self._cut: tuple[str, int] | None = None  # the last answer that was cut, and the milliseconds heard of it
        self._item = ""  # the user's, which is being said
        self._said: list[Utterance] = []
        self._written: list[str] = []
        self._to_write: deque[tuple[str, Floats]] = deque()
        self._writing: Iterator[None] | None = None
        self._ears = Ears(self._settings, self._floor, self._hear)
        self._mind, self._conversation = self._new_mind(self._settings)
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
            self._respond()
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
        self._ears.change(new)
        self._settings = new

        def apply() -> None:
            if prompt_changes:
                self._service.states.drop(self._conversation.context)
                self._mind, self._conversation = self._new_mind(new)
            self._emit("session.updated", session=self._shown())

        self._inbox.put(apply)

    def _create(self, event: ItemCreate) -> None:
        content = event.item.content[0]
        name = event.item.id or new_id("item")
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

    def _respond(self) -> None:
        if self._answering:
            raise ApiError(400, "An answer is being made.", "conversation_already_has_active_response")
        said, written, self._said, self._written = self._said, self._written, [], []
        if said and written:
            raise ApiError(400, "A turn is spoken or written, not both.", "mixed_turn")
        if not said and not written:
            raise ApiError(400, "There is nothing to answer.", "nothing_to_answer")
        self._player.all_played()  # what the client did not cut, it heard
        now = time.perf_counter()
        self._answering = True
        self._asked += 1
        if written:
            self._post(Typed("\n".join(written), now))
            return
        self._post(Began())
        samples = np.concatenate([utterance.samples for utterance in said])
        whole = replace(said[-1], samples=samples)
        self._post(Ended(whole, now, self._floor.question()))

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
            self._post(signal)
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
        item: dict[str, Any] = {"id": name, "object": "realtime.item", "type": "message", "status": "completed"}
        item |= {"role": "user", "content": [part]}
        self._emit("conversation.item.added", previous_item_id=None, item=item)
        self._emit("conversation.item.done", previous_item_id=None, item=item)

    def _write_down(self, item: str, samples: Floats) -> None:
        if not self._settings.transcribe:
            return
        if len(self._to_write) >= _MOST_TO_WRITE:
            error = Busy(1, "More is said than can be written down").body()
            self._emit(f"{_TRANSCRIPTION}.failed", item_id=item, content_index=0, error=error)
            return
        self._to_write.append((item, samples))

    def _post(self, signal: Signal) -> None:
        self._inbox.put(lambda: self._mind.inbox.put(signal))

    # The worker's side

    def step(self) -> bool:
        """Do one thing; whether there was anything to do."""
        if self._leaving:
            self._service.states.drop(self._conversation.context)
            self.over = True
            return True
        try:
            self._inbox.get_nowait()()
        except Empty:
            pass
        else:
            return True
        if self._mind.idle:
            return self._write()
        self._service.states.use(self._conversation.context)
        return self._mind.step() or self._write()

    def fail(self, error: Exception) -> None:
        """The session cannot go on."""
        self._service.states.drop(self._conversation.context)
        self._error(error, None)
        self._send(b"")

    def _new_mind(self, settings: Settings) -> tuple[Mind, Conversation]:
        service = self._service
        conversation = service.model.conversation(system=settings.instructions, output=settings.output)
        most = min(settings.most or service.limits.answer, service.limits.answer)
        options = MindOptions(budget=service.positions, turns=service.turns, max_new_tokens=most)
        return Mind(conversation, self._player, self._floor, self._show, self._keep, options), conversation

    def _show(self, event: TalkEvent) -> None:
        if event == StateChanged("thinking"):
            self._turns += 1
            self._answer = Answering(self._emit, self._settings.output, self._beta)
        elif isinstance(event, AssistantSaid) and self._answer is not None and not self._answer.ended:
            self._answer.say(event.piece)

    def _sound(self, samples: Floats) -> None:
        assert self._answer is not None, "the floor lets through only what was let out"
        self._answer.sound(samples)

    def _finished(self) -> None:
        assert self._answer is not None, "the floor lets through only what was let out"
        self._answering = False
        self._answer.end("completed")
        self._service.metrics.turns.labels("completed").inc()

    def _keep(self, turn: Turn) -> None:
        """A turn is over: if its answer was not told to be whole, it never will be."""
        reason, self._reason = self._reason, BY_SPEECH
        if self._answer is None or self._answer.ended:
            return
        self._answering = False
        status: Status = "cancelled"
        if turn.error is not None:
            status = "failed"
            self._error(turn.error, None)
        self._answer.end(status, reason)
        self._service.metrics.turns.labels(status).inc()

    def _write(self) -> bool:
        """Write down a little of what the user said, where that is wanted; whether there was anything."""
        if self._writing is None:
            if not self._to_write:
                return False
            self._writing = self._written_down(*self._to_write.popleft())
        if next(self._writing, self) is self:
            self._writing = None
        return True

    def _written_down(self, item: str, samples: Floats) -> Iterator[None]:
        model = self._service.model
        text = ""
        for event in Conversation(model, model.manifest.tasks.transcribe).ask(audio=samples, output="text"):
            text += getattr(event, "text", "")
            yield
        usage = {"type": "duration", "seconds": round(len(samples) / RATE, 3)}
        self._emit(f"{_TRANSCRIPTION}.completed", item_id=item, content_index=0, transcript=text, usage=usage)

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
