"""POST /v1/responses: OpenAI's newer form of chat completions. Answers are written; nothing is stored.

In: a text or items. Out: a response with one item, a message or a call, whole or as events. A request is put as one of
chat completions, and answered by its endpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from voxrill.runtime.apps.functions import Function
from voxrill.runtime.events import TextEvent
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.chat import ChatAnswer, ChatEndpoint, Events
from voxrill.runtime.serve.chat_calls import CallMade
from voxrill.runtime.serve.requests import (
    AssistantMessage,
    AudioPart,
    CalledFunction,
    ChatRequest,
    EarlierCall,
    FunctionName,
    FunctionTool,
    JsonSchemaFormat,
    Message,
    NamedSchema,
    NamedTool,
    ResponseItem,
    ResponseRequest,
    ResponseSchema,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    read_json,
)
from voxrill.runtime.serve.service import EVENT_STREAM, Exchange, as_json, or_error


class ResponsesEndpoint:
    """The endpoint. `chat` answers."""

    def __init__(self, chat: ChatEndpoint) -> None:
        self._chat = chat

    async def __call__(self, exchange: Exchange) -> Response:
        """Answer the input."""
        asked = await read_json(exchange.request, ResponseRequest, exchange.warn)
        events, answer = await self._chat.begin(exchange, chat_request(asked))
        made = _Made(asked, answer)
        if asked.stream:
            return StreamingResponse(or_error(exchange, _stream(events, made)), media_type=EVENT_STREAM)
        return as_json(await exchange.unless_left(_whole(events, made)))


def chat_request(asked: ResponseRequest) -> ChatRequest:
    """The same request, as chat completions have it.

    Raises:
        ApiError: an item has no content, or none of them says anything.
    """
    items = [ResponseItem(content=asked.input)] if isinstance(asked.input, str) else asked.input
    system: list[Message] = [SystemMessage(asked.instructions)] if asked.instructions else []
    messages = system + [_message(item) for item in items if item.type != "reasoning"]
    if not messages:
        raise ApiError(400, "The input holds only reasoning. Send a message, too.", param="input")
    wanted, choice = asked.text.format, asked.tool_choice
    return ChatRequest(
        messages=messages,
        model=asked.model,
        max_completion_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        tools=[FunctionTool(_function(tool)) for tool in asked.tools],
        tool_choice=choice if isinstance(choice, str) else NamedTool(FunctionName(choice.name)),
        response_format=JsonSchemaFormat(NamedSchema(wanted.name, wanted.schema))
        if isinstance(wanted, ResponseSchema)
        else wanted,
    )


def _function(tool: Function) -> Function:
    return Function(tool.name, tool.description, tool.parameters, tool.phrases)


def _message(item: ResponseItem) -> Message:
    if item.type == "function_call":
        return AssistantMessage(tool_calls=[EarlierCall(item.call_id, CalledFunction(item.name, item.arguments))])
    if item.type == "function_call_output":
        return ToolMessage(_written(item.output), item.call_id)
    if item.content is None:
        raise ApiError(400, "A message of the input has no content. Send a text, or a list of parts.", param="input")
    if item.role == "user":
        return UserMessage(item.content if isinstance(item.content, str) else [*_parts(item)])
    text = _written(item.content)
    return AssistantMessage(text) if item.role == "assistant" else SystemMessage(text)


def _parts(item: ResponseItem) -> Iterator[TextPart | AudioPart]:
    for part in item.content or ():
        if isinstance(part, AudioPart):
            yield part
        elif not isinstance(part, str):
            yield TextPart(part.text)


def _written(content: str | list[Any]) -> str:
    """The text of a content. Only users send sounds."""
    if isinstance(content, str):
        return content
    if any(isinstance(part, AudioPart) for part in content):
        raise ApiError(400, "Only a user's message has a sound. Send it with the role user.", param="input")
    return "\n".join(part.text for part in content)


class _Made:
    """A response as it is made."""

    def __init__(self, asked: ResponseRequest, answer: ChatAnswer) -> None:
        self._asked = asked
        self._answer = answer
        self._id = f"resp_{secrets.token_hex(16)}"
        self._item = f"msg_{secrets.token_hex(16)}"
        self._text = ""
        self._call: CallMade | None = None

    def take(self, event: Any) -> str:
        """Count an event; return the text that it adds."""
        self._answer.take(event)
        if isinstance(event, CallMade):
            self._call = event
        added = event.text if isinstance(event, TextEvent) else ""
        self._text += added
        return added

    @property
    def called(self) -> bool:
        """Whether the answer is a call."""
        return self._call is not None

    @property
    def place(self) -> dict[str, Any]:
        """Where the text stands."""
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def part(self) -> dict[str, Any]:
        """The text so far."""
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}

    def item(self, status: str) -> dict[str, Any]:
        """The message or the call so far."""
        if self._call is not None:
            shown = {"type": "function_call", "id": f"fc_{self._call.id}", "call_id": self._call.id, "status": status}
            return shown | {"name": self._call.call.name, "arguments": self._call.call.arguments}
        content = [] if status == "in_progress" else [self.part()]
        return {"type": "message", "id": self._item, "status": status, "role": "assistant", "content": content}

    def status(self) -> str:
        """How the answer ended."""
        return "incomplete" if self._answer.finish == "length" else "completed"

    def response(self, status: str) -> dict[str, Any]:
        """The response so far."""
        asked, over = self._asked, status != "in_progress"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._answer.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions or None,
            "max_output_tokens": asked.max_output_tokens,
            "model": self._answer.model,
            "output": [self.item(status)] if over else [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": asked.text,
            "tool_choice": asked.tool_choice,
            "tools": asked.tools,
            "top_p": asked.top_p,
            "truncation": "auto",
            "usage": self._usage() if over else None,
            "metadata": {},
        }

    def _usage(self) -> dict[str, Any]:
        counted = self._answer.usage()
        return {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counted["total_tokens"],
        }


async def _whole(events: Events, made: _Made) -> dict[str, Any]:
    async for event in events:
        made.take(event)
    return made.response(made.status())


async def _stream(events: Events, made: _Made) -> AsyncIterator[bytes]:
    number = count()

    def told(kind: str, **fields: Any) -> bytes:
        body = msgspec.json.encode({"type": kind, "sequence_number": next(number), **fields})
        return f"event: {kind}\ndata: ".encode() + body + b"\n\n"

    for kind in ("response.created", "response.in_progress"):
        yield told(kind, response=made.response("in_progress"))
    begun = False
    async for event in events:
        added = made.take(event)
        if added and not begun:
            begun = True
            yield told("response.output_item.added", output_index=0, item=made.item("in_progress"))
            empty = made.part() | {"text": ""}
            yield told("response.content_part.added", **made.place, part=empty)
        if added:
            yield told("response.output_text.delta", **made.place, delta=added, logprobs=[])
    status = made.status()
    item = made.item(status)
    if made.called:
        yield told("response.output_item.added", output_index=0, item=item | {"status": "in_progress", "arguments": ""})
        place = {"item_id": item["id"], "output_index": 0}
        yield told("response.function_call_arguments.delta", **place, delta=item["arguments"])
        yield told("response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"])
    elif begun:
        part = made.part()
        yield told("response.output_text.done", **made.place, text=part["text"], logprobs=[])
        yield told("response.content_part.done", **made.place, part=part)
    yield told("response.output_item.done", output_index=0, item=item)
    yield told(f"response.{status}", response=made.response(status))
