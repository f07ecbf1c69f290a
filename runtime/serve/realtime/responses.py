"""One response as the realtime client sees it: begun, made piece by piece, ended.

In: pieces of text and sound, or a function call. Out: OpenAI's events, in the order of OpenAI's own server.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

from voxrill.runtime.apps.calling import FunctionCall
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.serve.names import DEFAULT_VOICE
from voxrill.runtime.serve.realtime.emitter import Emit, new_id
from voxrill.runtime.serve.realtime.items import Items
from voxrill.runtime.serve.realtime.settings import Settings
from voxrill.runtime.serve.realtime.sound_format import SoundOut

Status = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True)
class ResponseForm:
    """How a response is made and told.

    settings: those in force for it. rate: of the model's sound, Hz. beta: use OpenAI's names from before 2025.
    metadata: is sent back. conversation: the id of the conversation that it belongs to, None for none.
    """

    settings: Settings
    rate: int
    beta: bool
    metadata: dict[str, str] | None
    conversation: str | None

    def shown(self) -> dict[str, Any]:
        """What the client is told of it."""
        settings = self.settings
        shared = {"conversation_id": self.conversation, "metadata": self.metadata, "usage": None}
        if self.beta:
            return shared | {"modalities": ["text"] if settings.output == "text" else ["audio", "text"]}
        return shared | {
            "output_modalities": settings.modalities,
            "max_output_tokens": settings.most or "inf",
            "audio": {"output": {"format": settings.said.shown(), "voice": settings.voice or DEFAULT_VOICE}},
        }


class Response:
    """Tells the client of one response, which holds one item. Its subclasses say what kind of item.

    Args:
        emit: takes the events.
        items: the conversation's items.
        form: how it is told.
    """

    def __init__(self, emit: Emit, items: Items, form: ResponseForm) -> None:
        self.response_id, self.item_id = new_id("resp"), new_id("item")
        self.ended = False
        self._emit = emit
        self._items = items
        self._form = form

    def end(self, status: Status, reason: str | None = None, error: dict[str, Any] | None = None) -> None:
        """The response is complete, was cut short for a reason, or failed with an error."""
        raise NotImplementedError

    def _content(self) -> dict[str, Any]:
        """The item's content so far."""
        raise NotImplementedError

    def _begin(self) -> None:
        self._emit("response.created", response=self._response("in_progress"))
        self._about("response.output_item.added", item=self._item("in_progress"))
        if self._form.conversation is not None:
            self._items.add(self._item("in_progress"), done=False)

    def _close(self, status: Status, reason: str | None, error: dict[str, Any] | None) -> None:
        self.ended = True
        item = self._item("completed" if status == "completed" else "incomplete")
        self._about("response.output_item.done", item=item)
        if self._form.conversation is not None:
            self._items.finish(item)
        details = {"type": status, "reason": reason} | ({"error": error} if error is not None else {})
        told = {"status_details": None if status == "completed" else details, "output": [item]}
        self._emit("response.done", response=self._response(status) | told)

    def _about(self, kind: str, **fields: Any) -> None:
        self._emit(kind, response_id=self.response_id, output_index=0, **fields)

    def _item(self, status: str) -> dict[str, Any]:
        return {"id": self.item_id, "object": "realtime.item", "status": status, **self._content()}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": [],
            **self._form.shown(),
        }


class MessageResponse(Response):
    """An answer in words. spoken: whether it has sound.

    Args:
        emit, items, form: see `Response`.
    """

    def __init__(self, emit: Emit, items: Items, form: ResponseForm) -> None:
        super().__init__(emit, items, form)
        self.spoken = form.settings.output != "text"
        self._kind = "audio" if self.spoken else "text"
        self._content_kind = self._kind if form.beta else f"output_{self._kind}"
        self._sound = SoundOut(form.settings.said, form.rate)
        self._text = ""
        self._begin()
        self._of_part("response.content_part.added", part=self._part())

    def add_text(self, piece: str) -> None:
        """Send more of its text."""
        self._text += piece
        name = "output_audio_transcript" if self.spoken else "output_text"
        self._of_part(f"response.{name}.delta", delta=piece)

    def add_sound(self, samples: Floats) -> None:
        """Send more of its sound, (n,)."""
        self._send_sound(self._sound(samples))

    def _send_sound(self, coded: bytes) -> None:
        if coded:
            self._of_part("response.output_audio.delta", delta=base64.b64encode(coded).decode())

    def end(self, status: Status, reason: str | None = None, error: dict[str, Any] | None = None) -> None:
        """The answer is complete, was cut short, or failed."""
        if self.spoken:
            if status == "completed":
                self._send_sound(self._sound.rest())
            self._of_part("response.output_audio.done")
            self._of_part("response.output_audio_transcript.done", transcript=self._text)
        else:
            self._of_part("response.output_text.done", text=self._text)
        self._of_part("response.content_part.done", part=self._part())
        self._close(status, reason, error)

    def _of_part(self, kind: str, **fields: Any) -> None:
        self._about(kind, item_id=self.item_id, content_index=0, **fields)

    def _part(self) -> dict[str, Any]:
        return {"type": self._kind, ("transcript" if self.spoken else "text"): self._text}

    def _content(self) -> dict[str, Any]:
        content = [self._part() | {"type": self._content_kind}] if self._text else []
        return {"type": "message", "role": "assistant", "content": content}


class CallResponse(Response):
    """A function call instead of an answer. Its arguments are decided at once, and sent when it is complete.

    Args:
        emit, items, form: see `Response`.
        call: the function and its arguments.
    """

    def __init__(self, emit: Emit, items: Items, form: ResponseForm, call: FunctionCall) -> None:
        super().__init__(emit, items, form)
        self.call_id = new_id("call")
        self._call = call
        self._arguments = ""
        self._begin()

    def end(self, status: Status, reason: str | None = None, error: dict[str, Any] | None = None) -> None:
        """The client is to carry out the call, or it is withdrawn."""
        if status == "completed":
            self._arguments = self._call.arguments
            names = {"item_id": self.item_id, "call_id": self.call_id}
            self._about("response.function_call_arguments.delta", **names, delta=self._arguments)
            self._about(
                "response.function_call_arguments.done", **names, name=self._call.name, arguments=self._arguments
            )
        self._close(status, reason, error)

    def _content(self) -> dict[str, Any]:
        return {
            "type": "function_call",
            "name": self._call.name,
            "call_id": self.call_id,
            "arguments": self._arguments,
        }
