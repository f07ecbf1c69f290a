"""POST /v1/audio/speech: text to sound, sent as it is made. Only a WAV file is sent whole, with its true length."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response, StreamingResponse

from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.tempo import Tempo
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import VOICE
from voxrill.runtime.events import AudioEvent, Event, StageEvent
from voxrill.runtime.serve.requests import SpeechRequest, read_json
from voxrill.runtime.serve.service import EVENT_STREAM, Exchange, Service, or_error, sse
from voxrill.runtime.serve.sound_formats import FORMATS, Encoder, check_format, whole_sound

Events = AsyncIterator[Event | StageEvent]


async def speech(exchange: Exchange) -> Response:
    """Say a text."""
    service, model = exchange.service, exchange.service.model
    asked = await read_json(exchange.request, SpeechRequest, exchange.warn)
    service.check_model(asked.model)
    service.check_text(asked.input, "input")
    service.check_length(asked.instructions or "", "instructions")
    form = asked.response_format or "mp3"
    check_format(form, "response_format")
    voice = exchange.use_voice(model.manifest.tasks.speak, asked.voice, "voice")
    events: Events = exchange.run(lambda: say(service, asked.input, voice, asked.seed, asked.instructions or ""))
    await exchange.unless_left(anext(events))  # a mistake in the text gets a status of its own
    sound = _at_speed(events, Tempo(model.sample_rate, asked.speed or 1.0))
    media_type, new_encoder = FORMATS[form]
    if form == "wav" and asked.stream_format != "sse":
        # Its header gives the length, so the header can only be written last. The other formats need no length.
        return Response(await exchange.unless_left(_whole(sound, form, model.sample_rate)), media_type=media_type)
    encoder = new_encoder(model.sample_rate)
    exchange.at_end(encoder.close)
    if asked.stream_format == "sse":
        return StreamingResponse(or_error(exchange, _as_events(_encoded(sound, encoder))), media_type=EVENT_STREAM)
    return StreamingResponse(_encoded(sound, encoder), media_type=media_type)


def say(
    service: Service, text: str, voice: str, seed: int | None = None, instructions: str = ""
) -> Iterator[Event | StageEvent]:
    """The steps of saying a text in one of the task's voices.

    Instructions stand at the end of the system prompt. How well a model follows them depends on its weights; one that
    does not know their words speaks as without them.
    """
    task = service.model.manifest.tasks.speak
    prompt = task.system.replace(VOICE, voice)
    if instructions.strip():
        prompt = service.model.parts.reading.prompt(f"{prompt} {instructions}", prompt)
    conversation = Conversation(service.model.parts, task, prompt, word_for_word=True)
    yield from conversation.steps(text=text, seed=seed, max_new_tokens=service.limits.answer)


async def _at_speed(events: Events, tempo: Tempo) -> AsyncIterator[Floats]:
    async for event in events:
        if isinstance(event, AudioEvent):
            yield tempo.push(event.samples)
    yield tempo.finish()


async def _whole(sound: AsyncIterator[Floats], name: str, rate: int) -> bytes:
    pieces = [samples async for samples in sound]
    return await asyncio.to_thread(whole_sound, name, pieces, rate)


async def _encoded(sound: AsyncIterator[Floats], encoder: Encoder) -> AsyncIterator[bytes]:
    # Encoding takes time. In another thread it does not hold up the event loop.
    async for samples in sound:
        yield await asyncio.to_thread(encoder.push, samples)
    yield await asyncio.to_thread(encoder.finish)


async def _as_events(sound: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in sound:
        yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    yield sse({"type": "speech.audio.done"})
