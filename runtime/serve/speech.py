"""POST /v1/audio/speech: text to sound, sent as it is made. Only a WAV file is sent whole, with its true length."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response, StreamingResponse

from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.events import AudioEvent, Event, StageEvent
from voxrill.runtime.serve.requests import SpeechRequest, read_json
from voxrill.runtime.serve.service import EVENT_STREAM, Exchange, Service, or_error, sse
from voxrill.runtime.serve.sound_formats import FORMATS, Encoder, whole_sound

Events = AsyncIterator[Event | StageEvent]


async def speech(exchange: Exchange) -> Response:
    """Say a text."""
    service, model = exchange.service, exchange.service.model
    asked = await read_json(exchange.request, SpeechRequest, exchange.warn)
    service.check_model(asked.model)
    service.check_text(asked.input, "input")
    task = model.manifest.tasks.speak
    voice = exchange.use_voice(task, asked.voice, "voice")
    media_type, new_encoder = FORMATS[asked.response_format]
    service.check_length(asked.instructions, "instructions")
    events: Events = exchange.run(lambda: say(service, asked.input, voice, asked.seed, asked.instructions))
    await exchange.unless_left(anext(events))  # a mistake in the text gets a status of its own
    if asked.response_format == "wav" and asked.stream_format == "audio":
        # Its header gives the length, so the header can only be written last. The other formats need no length.
        body = await exchange.unless_left(_whole(events, asked.response_format, model.sample_rate))
        return Response(body, media_type=media_type)
    sound = _encoded(events, new_encoder(model.sample_rate))
    if asked.stream_format == "sse":
        return StreamingResponse(or_error(exchange, _as_events(sound)), media_type=EVENT_STREAM)
    return StreamingResponse(sound, media_type=media_type)


def say(
    service: Service, text: str, voice: str, seed: int | None = None, instructions: str = ""
) -> Iterator[Event | StageEvent]:
    """The steps of saying a text in one of the task's voices.

    Instructions stand at the end of the system prompt. How well a model follows them depends on its weights; one that
    does not know their words speaks as without them.
    """
    task = service.model.manifest.tasks.speak
    prompt = task.system.replace("{voice}", voice)
    if instructions.strip():
        prompt = service.model.parts.reading.prompt(f"{prompt} {instructions}", prompt)
    conversation = Conversation(service.model.parts, task, prompt, word_for_word=True)
    yield from conversation.steps(text=text, seed=seed, max_new_tokens=service.limits.answer)


async def _whole(events: Events, name: str, rate: int) -> bytes:
    pieces = [event.samples async for event in events if isinstance(event, AudioEvent)]
    return await asyncio.to_thread(whole_sound, name, pieces, rate)


async def _encoded(events: Events, encoder: Encoder) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, AudioEvent):
            yield encoder.push(event.samples)
    yield encoder.finish()


async def _as_events(sound: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in sound:
        yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    yield sse({"type": "speech.audio.done"})
