"""POST /v1/chat/completions: messages in, an answer out, both of them spoken or written.

The answer is sent as it is made, or whole.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response, StreamingResponse

from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.context import Tokens
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.events import AudioEvent, EndEvent, Event, StageEvent, TextEvent
from voxrill.runtime.serve.api_errors import ApiError, NoRoom
from voxrill.runtime.serve.chat_calls import CallMade, Constraints, constraints, find_call, told
from voxrill.runtime.serve.chat_messages import ChatMessages, SoundBudget, key_of, read_messages
from voxrill.runtime.serve.chat_store import ChatStore
from voxrill.runtime.serve.requests import AssistantMessage, AudioReference, ChatRequest, read_json
from voxrill.runtime.serve.service import EVENT_STREAM, SSE_DONE, Exchange, Service, as_json, or_error, sse
from voxrill.runtime.serve.sound_formats import check_format, whole_sound
from voxrill.runtime.serve.speech import say
from voxrill.runtime.serve.state_cache import StateCache
from voxrill.runtime.serve.stop_text import StopText

KEPT_SECONDS = 3600
"""Seconds for which the client is told that a spoken answer is remembered. Newer answers may replace it sooner."""

ChatEvent = Event | StageEvent | CallMade
"""A part of an answer. A call is the whole of one."""

Events = AsyncIterator[ChatEvent]

_NAMED = 8
"""Unknown words that an answer's header names at most."""

_FINISHES = {"stop": "stop", "audio_ended": "stop", "length": "length", "context_full": "length", "ran_on": "length"}
"""OpenAI's name for each way an answer ends."""


@dataclass
class ChatAnswer:
    """One answer's names and numbers, which both forms of the response give."""

    model: str
    spoken: bool
    prompt: int = 0
    made: int = 0
    finish: str = "stop"
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    audio_id: str = field(default_factory=lambda: f"audio_{secrets.token_hex(12)}")

    def take(self, event: ChatEvent) -> None:
        """Count an event."""
        if isinstance(event, CallMade):
            self.prompt, self.made, self.finish = event.prompt, event.made, "tool_calls"
        elif isinstance(event, TextEvent | AudioEvent):
            self.made += 1
        elif isinstance(event, EndEvent):
            self.finish = _FINISHES[event.finish_reason]
            self.prompt = event.result.prompt_positions

    def usage(self) -> dict[str, int]:
        """Positions that were prefilled and made: this model's tokens."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.made,
            "total_tokens": self.prompt + self.made,
        }

    def expires(self) -> int:
        """When the spoken answer is forgotten: seconds since 1970."""
        return self.created + KEPT_SECONDS


class ChatEndpoint:
    """The endpoint, and the conversations that it keeps."""

    def __init__(self, service: Service) -> None:
        self._store = ChatStore(service.model, service.states, service.limits.chats)

    async def __call__(self, exchange: Exchange) -> Response:
        """Answer the last message."""
        asked = await read_json(exchange.request, ChatRequest, exchange.warn)
        events, answer = await self.begin(exchange, asked)
        if asked.stream:
            return StreamingResponse(or_error(exchange, _chunks(events, answer, asked)), media_type=EVENT_STREAM)
        rate = exchange.service.model.sample_rate
        return as_json(await exchange.unless_left(_whole(events, answer, asked, rate)))

    async def begin(self, exchange: Exchange, asked: ChatRequest) -> tuple[Events, ChatAnswer]:
        """The events of an answer, and the names and numbers that they give it. The prompt is prefilled already.

        Raises:
            ApiError: the request asks for what cannot be done.
        """
        service = exchange.service
        service.check_model(asked.model)
        output = _output(asked)
        if asked.audio is not None:
            exchange.use_voice(service.model.manifest.tasks.chat, asked.audio.voice, "audio.voice")
        sounds = SoundBudget(service.model, service.limits)
        messages = await service.process_upload(read_messages, asked.messages, output, sounds)
        exchange.record.heard = sounds.decoded
        for text in messages.texts():
            service.check_length(text, "messages")
        answer = ChatAnswer(service.model.manifest.name, output != "text")
        wanted = await service.process_upload(constraints, service.model, asked, messages.system, answer.spoken)
        for sentence in (wanted.never, *_alone(asked), *_unknown_words(service, messages)):
            exchange.warn(sentence)
        events: Events = exchange.run(lambda: self._steps(service, asked, messages, output, answer, wanted))
        await exchange.unless_left(anext(events))  # a mistake in the question gets a status of its own
        return events, answer

    def _steps(
        self,
        service: Service,
        asked: ChatRequest,
        messages: ChatMessages,
        output: Output,
        answer: ChatAnswer,
        wanted: Constraints,
    ) -> Iterator[ChatEvent | None]:
        """The answer's events: a call, the outputs of calls, JSON, or what the model answers freely."""
        self._check_room(service.states)
        model, states, question = service.model, service.states, messages.question
        if messages.outputs:
            yield from self._tell(service, " ".join(messages.outputs), answer)
            return
        if wanted.calls is not None:
            made = yield from find_call(model, states, wanted.calls.functions, question, wanted.calls.required)
            if made is not None:
                yield StageEvent("prefilled", 0.0)
                yield made
                return
        if wanted.json is not None:
            made = yield from find_call(model, states, wanted.json, question, must=True)
            assert made is not None, "the likeliest object is found in any case"
            yield from told(made.call.arguments, made.prompt)
            return
        yield from self._answer(service, asked, messages, output, answer)

    def _tell(self, service: Service, text: str, answer: ChatAnswer) -> Iterator[ChatEvent]:
        """Tell the user the outputs of calls, word for word: no model was taught to answer with them."""
        if not answer.spoken or not text.strip():
            yield from told(text)
            return
        self._store.keep_answer(answer.audio_id, [Tokens(tuple(service.model.parts.tokenizer.encode(text)))])
        for event in say(service, text, service.model.manifest.tasks.speak.voice):
            if not isinstance(event, TextEvent):
                yield event
            if isinstance(event, StageEvent) and event.stage == "prefilled":
                yield TextEvent(text, 0, event.at)

    def _answer(
        self, service: Service, asked: ChatRequest, messages: ChatMessages, output: Output, answer: ChatAnswer
    ) -> Iterator[Event | StageEvent | None]:
        """What the model answers. The conversation is kept only when all of it was taken.

        The first event says that the prompt is prefilled: until then a mistake in the question gets a status of its
        own, and steps without an event let others take their turns.
        """
        conversation = yield from self._store.open(messages, output)
        context, begun, whole = conversation.context, 0, False
        try:
            service.states.use(context)
            if service.turns is not None:
                conversation.forget(context.positions, service.turns)
            steps = conversation.steps(
                audio=messages.question.audio, text=messages.question.text, trim=False, **_options(asked, service)
            )
            written = StopText(steps, _stops(asked), context)
            for event in written:
                if isinstance(event, StageEvent):
                    begun = len(context.pieces)
                elif isinstance(event, EndEvent):
                    pieces = context.pieces[begun:]
                    if answer.spoken:
                        self._store.keep_answer(answer.audio_id, pieces)
                    reply = (
                        AssistantMessage(audio=AudioReference(answer.audio_id))
                        if answer.spoken
                        else AssistantMessage(event.result.text)
                    )
                    key = key_of(output, [*asked.messages, reply])
                    whole = not written.found  # a conversation goes on from what the client was told
                early = isinstance(event, StageEvent) and event.stage != "prefilled"
                yield None if early else event
                service.states.use(context)
        finally:
            if whole:
                self._store.keep(key, conversation)
            else:
                service.states.drop(context)

    def _check_room(self, states: StateCache) -> None:
        """Raise NoRoom if no conversation can begin, even after all kept ones are forgotten."""
        while states.full and self._store.forget_oldest():
            pass
        if states.full:
            raise NoRoom


def _alone(asked: ChatRequest) -> Iterator[str]:
    """A sentence about each field that has no effect without another."""
    if asked.audio is not None and "audio" not in asked.modalities:
        yield "audio has no effect without the modality audio."
    if asked.stream_options is not None and not asked.stream:
        yield "stream_options has no effect without stream."


def _unknown_words(service: Service, messages: ChatMessages) -> Iterator[str]:
    """A sentence about each text whose words the model does not know: it hears the text without them, or not at all."""
    for what, text in (("system prompt", messages.system), ("question", messages.question.text)):
        _, unknown = service.model.parts.tokenizer.readable(text or "")
        if unknown:
            yield f"This model does not know words of the {what}: {', '.join(unknown[:_NAMED])}."


def _output(asked: ChatRequest) -> Output:
    if "audio" not in asked.modalities:
        return "text"
    if asked.audio is None:
        raise ApiError(400, "An answer with sound needs a voice and a format. Send them in audio.", param="audio")
    if asked.stop:
        raise ApiError(
            400, "Only written answers end at a stop text. Leave stop out, or ask for the modality text.", param="stop"
        )
    check_format(asked.audio.format, "audio.format")
    if asked.stream and asked.audio.format != "pcm16":
        raise ApiError(400, "This format cannot be streamed. Ask for pcm16.", "invalid_format", "audio.format")
    return "both"


def _stops(asked: ChatRequest) -> list[str]:
    return [asked.stop] if isinstance(asked.stop, str) else asked.stop


def _options(asked: ChatRequest, service: Service) -> dict[str, Any]:
    most = min(asked.max_completion_tokens or asked.max_tokens or service.limits.answer, service.limits.answer)
    return {"max_new_tokens": most, "seed": asked.seed, "temperature": asked.temperature, "top_p": asked.top_p}


async def _whole(events: Events, answer: ChatAnswer, asked: ChatRequest, rate: int) -> dict[str, Any]:
    text, sound, calls = "", list[Floats](), list[dict[str, Any]]()
    async for event in events:
        answer.take(event)
        if isinstance(event, TextEvent):
            text += event.text
        elif isinstance(event, AudioEvent):
            sound.append(event.samples)
        elif isinstance(event, CallMade):
            calls.append(event.shown())
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": None, "tool_calls": calls}
    elif answer.spoken and asked.audio is not None:
        # Encoding takes time. In another thread it does not hold up the event loop.
        data = await asyncio.to_thread(whole_sound, asked.audio.format.removesuffix("16"), sound, rate)
        encoded = base64.b64encode(data).decode()
        spoken = {"id": answer.audio_id, "data": encoded, "transcript": text, "expires_at": answer.expires()}
        message |= {"content": None, "audio": spoken}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}
    return _named(answer, "chat.completion", [choice]) | {"usage": answer.usage()}


async def _chunks(events: Events, answer: ChatAnswer, asked: ChatRequest) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return sse(_named(answer, "chat.completion.chunk", [choice]))

    opening: dict[str, Any] = {"role": "assistant"}
    yield chunk(opening | ({"audio": {"id": answer.audio_id}} if answer.spoken else {"content": ""}))
    async for event in events:
        answer.take(event)
        if isinstance(event, CallMade):
            yield chunk({"tool_calls": [{"index": 0, **event.shown()}]})
        if isinstance(event, TextEvent) and event.text:
            yield chunk({"audio": {"transcript": event.text}} if answer.spoken else {"content": event.text})
        elif isinstance(event, AudioEvent) and answer.spoken:
            yield chunk({"audio": {"data": base64.b64encode(pcm16(event.samples).tobytes()).decode()}})
    if answer.spoken and answer.finish != "tool_calls":
        yield chunk({"audio": {"expires_at": answer.expires()}})
    yield chunk({}, answer.finish)
    if asked.stream_options is not None and asked.stream_options.include_usage:
        yield sse(_named(answer, "chat.completion.chunk", []) | {"usage": answer.usage()})
    yield SSE_DONE


def _named(answer: ChatAnswer, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "choices": choices,
    }
