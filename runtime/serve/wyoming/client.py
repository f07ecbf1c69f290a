"""A client that asks, one thing after the other: sound to text, text to sound, a text to its answer.

In: its events. Out: those it waits for. What it asks for holds one of the server's slots, sound from its first chunk
on, and takes turns with everybody else's work.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import msgspec
from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled
from wyoming.ping import Pong
from wyoming.tts import SynthesizeStopped

from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import AudioEvent, TextEvent
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.job import Job
from voxrill.runtime.serve.service import DEFAULT_VOICE, Service, check_voice
from voxrill.runtime.serve.speech import say
from voxrill.runtime.serve.transcriptions import spans, write_down
from voxrill.runtime.serve.wyoming.about import LANGUAGES, about
from voxrill.runtime.serve.wyoming.sound import Incoming, PcmFormat
from voxrill.runtime.serve.wyoming.wire import data_of

_REQUESTS = ("audio-stop", "synthesize", "synthesize-stop", "transcript")
"""Events that are counted: those that are worked on."""

Item = TypeVar("Item")
Send = Callable[[Eventable], Awaitable[None]]


class _Asked(msgspec.Struct):
    language: str | None = None


class _Voice(msgspec.Struct):
    name: str | None = None
    language: str | None = None


class _Said(_Asked, kw_only=True):
    text: str
    voice: _Voice = msgspec.field(default_factory=_Voice)
    context: dict[str, Any] | None = None


class _Begun(msgspec.Struct):
    voice: _Voice = msgspec.field(default_factory=_Voice)


class _Ping(msgspec.Struct):
    text: str | None = None


class Client:
    """One client.

    Args:
        service: what all share.
        send: sends it an event.
        count: called before anything is worked on; raises Busy where that is too often.
    """

    def __init__(self, service: Service, send: Send, count: Callable[[], None]) -> None:
        self._service = service
        self._send = send
        self._count = count
        self._held = ExitStack()  # the slot of what it asks for
        self._sound: Incoming | None = None
        self._begun = self._last_event = time.monotonic()  # when the sound did, and when it sent something last
        self._text: list[str] | None = None  # of which it sends more
        self._voice = ""
        self._takes = {
            "describe": self._describe,
            "ping": self._ping,
            "transcribe": self._expect,
            "audio-start": self._begin_sound,
            "audio-chunk": self._hear,
            "audio-stop": self._transcribe,
            "synthesize": self._synthesize,
            "synthesize-start": self._begin_text,
            "synthesize-chunk": self._add_text,
            "synthesize-stop": self._end_text,
            "transcript": self._handle,
        }

    @property
    def patience(self) -> float:
        """Seconds in which its next event must come: sound may be no slower than it is heard."""
        limits, now = self._service.limits, time.monotonic()
        if self._sound is None:
            return self._last_event + limits.idle - now
        return self._begun + limits.upload + self._sound.seconds - now

    async def take(self, event: Event) -> None:
        """Take an event; what is wrong with it is told to the client. What is not known here is for others."""
        self._last_event = time.monotonic()
        take = self._takes.get(event.type)
        if take is None:
            return
        status = 200
        try:
            await take(event)
        except (ApiError, VoxrillError) as error:
            self.end()
            refused = as_api_error(error)
            status = refused.status
            await self._send(Error(refused.message, refused.code))
        if event.type in _REQUESTS:
            self._service.metrics.requests.labels(f"wyoming {event.type}", status).inc()

    def end(self) -> None:
        """Nothing of what it began is wanted any more."""
        self._sound = self._text = None
        self._held.close()

    async def _describe(self, _event: Event) -> None:
        await self._send(about(self._service.model.manifest))

    async def _ping(self, event: Event) -> None:
        await self._send(Pong(data_of(event, _Ping).text))

    async def _expect(self, event: Event) -> None:
        _check_language(data_of(event, _Asked).language)

    # Sound to text

    async def _begin_sound(self, event: Event) -> None:
        form = data_of(event, PcmFormat)
        self._begin()
        self._sound = Incoming(form, self._service.limits.audio)
        self._begun = time.monotonic()

    async def _hear(self, event: Event) -> None:
        if self._sound is not None:
            await self._service.hear(self._sound.add, data_of(event, PcmFormat), event.payload or b"")

    async def _transcribe(self, _event: Event) -> None:
        sound, self._sound = self._sound, None
        if sound is None:
            raise ApiError(400, "There is no sound: send audio-start and audio-chunk before.", "invalid_event")
        model, language = self._service.model, LANGUAGES[0]
        found = await self._service.hear(lambda: spans(sound.whole()))
        await self._send(TranscriptStart(language=language))
        text = ""
        async for piece in self._work(lambda: write_down(model, found)):
            if isinstance(piece, str) and piece:
                text += piece
                await self._send(TranscriptChunk(piece))
        await self._send(Transcript(text.strip(), language=language))
        await self._send(TranscriptStop())
        self.end()

    # Text to sound

    async def _synthesize(self, event: Event) -> None:
        if self._text is not None:
            return  # the whole of what it sends piece by piece, for servers that know no pieces
        said = data_of(event, _Said)
        await self._say(said.text, self._named(said.voice))

    async def _begin_text(self, event: Event) -> None:
        self._voice = self._named(data_of(event, _Begun).voice)
        self._text = []

    async def _add_text(self, event: Event) -> None:
        if self._text is not None:
            self._text.append(data_of(event, _Said).text)
            self._service.check_length("".join(self._text), "text")

    async def _end_text(self, _event: Event) -> None:
        text, self._text = self._text, None
        if text is None:
            raise ApiError(400, "There is no text: send synthesize-start and -chunk before.", "invalid_event")
        await self._say("".join(text), self._voice)
        await self._send(SynthesizeStopped())

    def _named(self, voice: _Voice) -> str:
        _check_language(voice.language)
        return check_voice(self._service.model.manifest.tasks.speak, voice.name or DEFAULT_VOICE, "voice")

    async def _say(self, text: str, voice: str) -> None:
        service, rate = self._service, self._service.model.sample_rate
        service.check_text(text, "text")
        self._begin()
        events = self._work(lambda: say(service, text, voice))
        await anext(events)  # what is wrong with the text is told before there is sound
        await self._send(AudioStart(rate, 2, 1))
        async for event in events:
            if isinstance(event, AudioEvent):
                await self._send(AudioChunk(rate, 2, 1, pcm16(event.samples).tobytes()))
        await self._send(AudioStop())
        self.end()

    # A text to its answer

    async def _handle(self, event: Event) -> None:
        asked = data_of(event, _Said)
        _check_language(asked.language)
        self._service.check_text(asked.text, "text")
        self._begin()
        text = ""
        try:
            events = self._work(lambda: self._answer(asked.text))
            await anext(events)
            await self._send(HandledStart(asked.context))
            async for item in events:
                if isinstance(item, TextEvent) and item.text:
                    text += item.text
                    await self._send(HandledChunk(item.text))
        except VoxrillError as error:  # such as a word that the model does not know
            await self._send(NotHandled(str(error), asked.context))
            self.end()
            return
        await self._send(Handled(text.strip(), asked.context))
        await self._send(HandledStop())
        self.end()

    def _answer(self, text: str) -> Iterator[object]:
        conversation = self._service.model.conversation(output="text")
        yield from conversation.steps(text=text, max_new_tokens=self._service.limits.answer)

    # What all have in common

    def _begin(self) -> None:
        """Take a slot; what was begun before is given up."""
        self.end()
        self._count()
        self._held.enter_context(self._service.worker.slot())

    async def _work(self, make: Callable[[], Iterator[Item]]) -> AsyncIterator[Item]:
        """The items of steps that the worker makes, which end when nobody takes them any more."""
        job = Job(make, self._service.worker)
        self._held.callback(job.leave)
        async for item in job.items():
            yield item


def _check_language(language: str | None) -> None:
    if language and language.split("-")[0].split("_")[0].casefold() not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise ApiError(400, f"This model does not know the language {language[:20]!r}, only {known}.", "language")
