"""What one client asks for, one thing after the other: sound to text, text to sound, a text to its answer.

In: its events. Out: the events that it waits for. Every request holds one of the server's slots (sound from its first
chunk on), and takes turns with everybody else's work.

Home Assistant's client waits for a transcript or for the end of the sound, whatever else comes. So a request for either
that fails ends the connection, after an error that says why; a question that fails ends in `not-handled`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

import msgspec
from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled
from wyoming.ping import Pong
from wyoming.tts import SynthesizeStopped

from voxrill.runtime.apps.transcription import longest_segment
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.segments import spans
from voxrill.runtime.errors import ContextFull, VoxrillError
from voxrill.runtime.events import AudioEvent, TextEvent
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.job import Job
from voxrill.runtime.serve.languages import is_language
from voxrill.runtime.serve.names import check_voice
from voxrill.runtime.serve.request_log import Record, log_request
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.speech import say
from voxrill.runtime.serve.transcriptions import sure_pieces, transcribe_spans
from voxrill.runtime.serve.wyoming.conversations import KeptConversations, Key
from voxrill.runtime.serve.wyoming.event_stream import PingData, data_of
from voxrill.runtime.serve.wyoming.incoming_audio import IncomingAudio, PcmFormat
from voxrill.runtime.serve.wyoming.server_info import server_info

_REQUESTS = ("audio-stop", "synthesize", "synthesize-stop", "transcript")
"""Events that ask for work. They are counted."""

_HARMLESS = ("describe", "ping")
"""Events that nobody waits for long: an error in one of them does not end the connection."""

_CONTEXT = 4096
"""Bytes of JSON that a question's context may take: it is sent back."""

Item = TypeVar("Item")
Send = Callable[[Eventable], Awaitable[None]]


class _Language(msgspec.Struct):
    language: str | None = None


class _Voice(msgspec.Struct):
    name: str | None = None
    language: str | None = None


class _Speak(msgspec.Struct, kw_only=True):
    text: str
    voice: _Voice | None = None
    text_format: Literal["text"] | None = None


class _SpeakPieces(msgspec.Struct):
    voice: _Voice | None = None
    text_format: Literal["text"] | None = None


class _TextPiece(msgspec.Struct):
    text: str


class _Question(_Language, kw_only=True):
    text: str
    context: dict[str, Any] | None = None


class Refused(Exception):
    """A request was refused, and the client was told. The connection is to be closed."""


class ClientHandler:
    """Answers one client.

    Args:
        service: what all clients share.
        conversations: those that go on, of all clients.
        address: where the client comes from.
        send: sends an event to the client.
        count: called before any work; raises Busy if the client asks too often.
    """

    def __init__(
        self,
        service: Service,
        conversations: KeptConversations,
        address: str,
        send: Send,
        count: Callable[[], None],
    ) -> None:
        self._service = service
        self._conversations = conversations
        self._address = address
        self._send = send
        self._count = count
        self._held = ExitStack()  # the slot of the request, and its work
        self._audio: IncomingAudio | None = None
        self._silent = True  # it has not sent any event yet
        self._begun = self._last_event = time.monotonic()  # when its sound began, and when its last event came
        self._text: list[str] | None = None  # the pieces so far of a text that comes in pieces
        self._voice = ""
        self._takes = {
            "describe": self._describe,
            "ping": self._ping,
            "transcribe": self._begin_request,
            "audio-start": self._begin_audio,
            "audio-chunk": self._add_audio,
            "audio-stop": self._transcribe,
            "synthesize": self._synthesize,
            "synthesize-start": self._begin_text,
            "synthesize-chunk": self._add_text,
            "synthesize-stop": self._end_text,
            "transcript": self._answer_question,
        }

    @property
    def patience(self) -> float:
        """Seconds in which its next event must come. Sound may not come more slowly than it is heard."""
        limits, now = self._service.limits, time.monotonic()
        if self._silent:
            return self._last_event + limits.headers - now
        if self._audio is None:
            return self._last_event + limits.idle - now
        return self._begun + limits.upload + self._audio.seconds - now

    async def take(self, event: Event) -> None:
        """Take an event. Types that are not known here are meant for other kinds of servers.

        Raises:
            Refused: it failed, and the client was told.
        """
        self._silent, self._last_event = False, time.monotonic()
        take = self._takes.get(event.type)
        if take is None:
            return
        status, started, record = 200, time.perf_counter(), Record(self._audio.seconds if self._audio else 0.0)
        try:
            await take(event)
        except (ApiError, VoxrillError) as error:
            self.end()
            refusal = as_api_error(error)
            status, record.code = refusal.status, refusal.label
            await self._refuse(event, refusal)
        finally:
            if event.type in _REQUESTS:
                self._service.metrics.requests.labels(f"wyoming {event.type}", status).inc()
                log_request("WYOMING", event.type, status, time.perf_counter() - started, record)

    async def _refuse(self, event: Event, refusal: ApiError) -> None:
        if event.type == "transcript":
            await self._send(NotHandled(refusal.message, _context(event)))
            return
        await self._send(Error(refusal.message, refusal.code))
        if event.type not in _HARMLESS:
            raise Refused

    def end(self) -> None:
        """Give up whatever was begun for this client."""
        self._audio = self._text = None
        self._held.close()

    async def _describe(self, _event: Event) -> None:
        await self._send(server_info(self._service.model.manifest))

    async def _ping(self, event: Event) -> None:
        await self._send(Pong(data_of(event, PingData).text))

    async def _begin_request(self, event: Event) -> None:
        self._check_language(data_of(event, _Language).language)

    # Sound to text

    async def _begin_audio(self, event: Event) -> None:
        form = data_of(event, PcmFormat)
        self._begin()
        self._audio = IncomingAudio(form, self._service.limits.audio)
        self._begun = time.monotonic()

    async def _add_audio(self, event: Event) -> None:
        if self._audio is not None:
            await self._service.process_upload(self._audio.add, data_of(event, PcmFormat), event.payload or b"")

    async def _transcribe(self, _event: Event) -> None:
        audio, self._audio = self._audio, None
        if audio is None:
            raise ApiError(400, "There is no sound. Send audio-start and audio-chunk before.", "invalid_event")
        model, language, least = self._service.model, self._language, self._service.least_confidence
        found = await self._service.process_upload(lambda: spans(audio.whole(), longest_segment(model)))
        await self._send(TranscriptStart(language=language))
        text = ""
        async for piece in self._work(lambda: sure_pieces(transcribe_spans(model, found), least)):
            if isinstance(piece, str) and piece:
                text += piece
                await self._send(TranscriptChunk(piece))
        await self._send(Transcript(text.strip(), language=language))
        await self._send(TranscriptStop())
        self.end()

    # Text to sound

    async def _synthesize(self, event: Event) -> None:
        if self._text is not None:
            return  # clients that send pieces send the whole text as well, for servers that take no pieces
        asked = data_of(event, _Speak)
        await self._speak(asked.text, self._checked(asked.voice))

    async def _begin_text(self, event: Event) -> None:
        self._voice = self._checked(data_of(event, _SpeakPieces).voice)
        self._text = []

    async def _add_text(self, event: Event) -> None:
        if self._text is not None:
            self._text.append(data_of(event, _TextPiece).text)
            self._service.check_length("".join(self._text), "text")

    async def _end_text(self, _event: Event) -> None:
        text, self._text = self._text, None
        if text is None:
            raise ApiError(400, "There is no text. Send synthesize-start and synthesize-chunk before.", "invalid_event")
        await self._speak("".join(text), self._voice)
        await self._send(SynthesizeStopped())

    @property
    def _language(self) -> str:
        return self._service.model.manifest.tasks.language

    def _check_language(self, said: str | None) -> None:
        if said and not is_language(self._language, said):
            message = f"This model does not know the language {said[:20]!r}, only: {self._language}"
            raise ApiError(400, message, "language")

    def _checked(self, voice: _Voice | None) -> str:
        """The task's voice of that name."""
        wanted = voice or _Voice()
        self._check_language(wanted.language)
        return check_voice(self._service.model.manifest.tasks.speak, wanted.name, "voice")

    async def _speak(self, text: str, voice: str) -> None:
        service, rate = self._service, self._service.model.sample_rate
        service.check_text(text, "text")
        self._begin()
        events = self._work(lambda: say(service, text, voice))
        await anext(events)  # an error in the text is told before any sound
        await self._send(AudioStart(rate, 2, 1))
        async for event in events:
            if isinstance(event, AudioEvent):
                await self._send(AudioChunk(rate, 2, 1, pcm16(event.samples).tobytes()))
        await self._send(AudioStop())
        self.end()

    # A text to its answer

    async def _answer_question(self, event: Event) -> None:
        asked = data_of(event, _Question)
        self._check_language(asked.language)
        self._service.check_text(asked.text, "text")
        if asked.context and not _context(event):
            raise ApiError(400, f"The context takes more than {_CONTEXT} bytes of JSON.", "too_long", "context")
        name = (asked.context or {}).get("conversation_id")
        key = (self._address, name) if isinstance(name, str) and name else None
        self._begin()
        text = ""
        events = self._work(lambda: self._answer(asked.text, key))
        await anext(events)
        await self._send(HandledStart(asked.context))
        async for item in events:
            if isinstance(item, TextEvent) and item.text:
                text += item.text
                await self._send(HandledChunk(item.text))
        await self._send(Handled(text.strip(), asked.context))
        await self._send(HandledStop())
        self.end()

    def _answer(self, text: str, key: Key | None) -> Iterator[object]:
        """The answer's events, made in the worker's thread."""
        conversation = self._conversations.take(key)
        try:
            for event in conversation.steps(text=text, max_new_tokens=self._service.limits.answer):
                yield event
                self._service.states.use(conversation.context)
        except ContextFull:
            conversation.forget(0)  # the next question begins anew
            raise
        finally:
            conversation.close()
            self._conversations.keep(key, conversation)

    # What all requests share

    def _begin(self) -> None:
        """Take a slot. What was begun before is given up."""
        self.end()
        self._count()
        self._held.enter_context(self._service.worker.slot())

    async def _work(self, make: Callable[[], Iterator[Item]]) -> AsyncIterator[Item]:
        """The items that the worker makes. Its work ends when the request does."""
        job = Job(make, self._service.worker)
        self._held.callback(job.cancel)
        async for item in job.items():
            yield item


def _context(event: Event) -> dict[str, Any] | None:
    """The context of a question, to be sent back; None if there is none, or too much of it."""
    context = event.data.get("context")
    if not isinstance(context, dict) or len(msgspec.json.encode(context)) > _CONTEXT:
        return None
    return context
