"""The events that a realtime client may send, as typed structs, and the names of OpenAI's two dialects.

The names are those of OpenAI's interface. Clients from before 2025 send the header `OpenAI-Beta: realtime=v1`. They use
other names for some events and for the session's settings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from voxrill.runtime.apps.functions import Function
from voxrill.runtime.malformed import explained
from voxrill.runtime.serve.api_errors import ApiError

Id = Annotated[str, Meta(max_length=512)]
"""An id that the client chose. It is sent back, so that its length is limited (OpenAI's limit)."""


class _Event(msgspec.Struct, tag_field="type"):
    """Something the client wants. event_id: an error about this event names it."""

    event_id: Id | None = None


class Tool(Function, frozen=True, tag_field="type", tag="function"):
    """A function that may be called."""


class SessionUpdate(_Event, tag="session.update", kw_only=True):
    """Change the settings. Their fields are read one by one, in `session_update`."""

    session: msgspec.Raw = msgspec.Raw(b"{}")


class Append(_Event, tag="input_audio_buffer.append", kw_only=True):
    """More of the user's sound, in base64."""

    audio: str


class Commit(_Event, tag="input_audio_buffer.commit"):
    """The sound so far is a turn of the user's."""


class Clear(_Event, tag="input_audio_buffer.clear"):
    """Forget the sound so far."""


class ItemPart(msgspec.Struct):
    """A part of a message: text, or sound in base64 with or without its transcript."""

    type: Literal["input_text", "input_audio", "output_text", "output_audio", "text", "audio", "input_image"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None


class MessageItem(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    """What someone said or wrote."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[list[ItemPart], Meta(max_length=64)]
    id: Id | None = None


class CallItem(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call"):
    """A function call that was made earlier."""

    name: Id
    arguments: str
    call_id: Id | None = None
    id: Id | None = None


class OutputItem(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call_output"):
    """The output of a function call."""

    call_id: Id
    output: str
    id: Id | None = None


class ItemReference(msgspec.Struct, kw_only=True, tag_field="type", tag="item_reference"):
    """An item of the conversation, in the input of a response."""

    id: Id


ClientItem = MessageItem | CallItem | OutputItem


class ItemCreate(_Event, tag="conversation.item.create", kw_only=True):
    """An item of the conversation. previous_item_id: where it goes; "root" for the beginning, None for the end."""

    item: ClientItem
    previous_item_id: Id | None = None


class ItemRetrieve(_Event, tag="conversation.item.retrieve", kw_only=True):
    """Show an item."""

    item_id: Id


class ItemDelete(_Event, tag="conversation.item.delete", kw_only=True):
    """Forget an item."""

    item_id: Id


class Truncate(_Event, tag="conversation.item.truncate", kw_only=True):
    """The user heard no more of an answer than its first `audio_end_ms`."""

    item_id: Id
    audio_end_ms: Annotated[int, Meta(ge=0)]
    content_index: int = 0


class ResponseCreate(_Event, tag="response.create"):
    """Answer what was said since the last response. Its options are read in `response_options`."""

    response: msgspec.Raw = msgspec.Raw(b"null")


class ResponseCancel(_Event, tag="response.cancel"):
    """End the response that is being made."""

    response_id: Id | None = None


ClientEvent = (
    SessionUpdate
    | Append
    | Commit
    | Clear
    | ItemCreate
    | ItemRetrieve
    | ItemDelete
    | Truncate
    | ResponseCreate
    | ResponseCancel
)

_DECODER = msgspec.json.Decoder(ClientEvent)


def decoded(raw: str) -> ClientEvent:
    """A client's message.

    Raises:
        ApiError: it is none of the events, or a field of it is wrong.
    """
    try:
        event: ClientEvent = _DECODER.decode(raw)
        return event
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        wrong, param = explained(error, ClientEvent)
        message = f"This is not an event of the realtime interface. {wrong}"
        raise ApiError(400, message, "invalid_event", param) from None


class _Named(msgspec.Struct):
    event_id: Id | None = None


def event_id_of(raw: str) -> str | None:
    """The id of an event that cannot be read otherwise, so that the error about it can name it."""
    try:
        return msgspec.json.decode(raw, type=_Named).event_id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def converted(value: Any, kind: Any, param: str) -> Any:
    """A decoded value as one of the structs here.

    Raises:
        ApiError: it is not one; the message says why.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        wrong, place = explained(error, kind)
        path = f"{param}.{place}".replace(".[", "[") if place else param
        wrong = wrong.replace(f"The field {place}", path, 1) if place else wrong.replace("The body", param, 1)
        raise ApiError(400, wrong, "invalid_value", path) from None


_LONGEST = 512 << 10
"""Bytes of a session's settings, or of a response's options: small values take ten times that once they are read."""


def opened(field: msgspec.Raw, param: str) -> Any:
    """What is in a field that is read by itself.

    Raises:
        ApiError: it is too long.
    """
    if len(bytes(field)) > _LONGEST:
        raise ApiError(400, f"{param} has more than {_LONGEST} bytes. Send less.", "too_long", param)
    return msgspec.json.decode(field)


BETA_HEADER, BETA = "openai-beta", "realtime=v1"

BETA_NAMES = {
    "conversation.item.added": "conversation.item.created",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
"""The names from before 2025, by the present ones."""

BETA_UNKNOWN = ("conversation.item.done",)
"""Events that did not exist before 2025."""
