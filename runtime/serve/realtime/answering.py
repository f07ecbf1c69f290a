"""One answer as the realtime client is told of it: begun, made piece by piece, ended.

In: pieces of text and sound, or a function call. Out: OpenAI's events, in the order its own server sends them.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any, Literal

from voxrill.runtime.apps.calling import FunctionCall
from voxrill.runtime.audio.audio_file import pcm16
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.conversation import Output

Emit = Callable[..., None]
"""Sends an event: its type, and its fields by name."""

Status = Literal["completed", "cancelled", "failed"]


def new_id(kind: str) -> str:
    """A name that nothing else has."""
    return f"{kind}_{secrets.token_hex(10)}"


class Response:
    """Tells the client of one response, which is one item. Made by its kinds.

    Args:
        emit: takes the events.
    """

    def __init__(self, emit: Emit) -> None:
        self.response_id, self.item_id = new_id("resp"), new_id("item")
        self.ended = False
        self._emit = emit

    def end(self, status: Status, reason: str | None = None) -> None:
        """It is whole, or will not be."""
        raise NotImplementedError

    def _content(self) -> dict[str, Any]:
        """What its item holds, as far as it was made."""
        raise NotImplementedError

    def _begin(self) -> None:
        self._emit("response.created", response=self._response("in_progress"))
        self._about("response.output_item.added", item=self._item("in_progress"))
        self._emit("conversation.item.added", previous_item_id=None, item=self._item("in_progress"))

    def _close(self, status: Status, reason: str | None) -> None:
        self.ended = True
        item_status = "completed" if status == "completed" else "incomplete"
        self._about("response.output_item.done", item=self._item(item_status))
        self._emit("conversation.item.done", previous_item_id=None, item=self._item(item_status))
        details = None if status == "completed" else {"type": status, "reason": reason}
        self._emit("response.done", response=self._response(status) | {"status_details": details})

    def _about(self, kind: str, **fields: Any) -> None:
        self._emit(kind, response_id=self.response_id, output_index=0, **fields)

    def _item(self, status: str) -> dict[str, Any]:
        return {"id": self.item_id, "object": "realtime.item", "status": status, **self._content()}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "object": "realtime.response",
            "status": status,
            "output": [self._item("completed")] if status == "completed" else [],
        }


class Answering(Response):
    """An answer in words.

    Args:
        emit: takes the events.
        output: whether there is sound.
        beta: in the dialect of before.
    """

    def __init__(self, emit: Emit, output: Output, beta: bool) -> None:
        super().__init__(emit)
        self._spoken = output != "text"
        self._kind = "audio" if self._spoken else "text"
        self._content_kind = self._kind if beta else f"output_{self._kind}"
        self._text = ""
        self._begin()
        self._of_part("response.content_part.added", part=self._part())

    def say(self, piece: str) -> None:
        """More of its text."""
        self._text += piece
        name = "output_audio_transcript" if self._spoken else "output_text"
        self._of_part(f"response.{name}.delta", delta=piece)

    def sound(self, samples: Floats) -> None:
        """More of its sound, (n,)."""
        self._of_part("response.output_audio.delta", delta=base64.b64encode(pcm16(samples).tobytes()).decode())

    def end(self, status: Status, reason: str | None = None) -> None:
        """It is whole, or will not be."""
        if self._spoken:
            self._of_part("response.output_audio.done")
            self._of_part("response.output_audio_transcript.done", transcript=self._text)
        else:
            self._of_part("response.output_text.done", text=self._text)
        self._of_part("response.content_part.done", part=self._part())
        self._close(status, reason)

    def _of_part(self, kind: str, **fields: Any) -> None:
        self._about(kind, item_id=self.item_id, content_index=0, **fields)

    def _part(self) -> dict[str, Any]:
        return {"type": self._kind, ("transcript" if self._spoken else "text"): self._text}

    def _content(self) -> dict[str, Any]:
        content = [self._part() | {"type": self._content_kind}] if self._text else []
        return {"type": "message", "role": "assistant", "content": content}


class Calling(Response):
    """A function call instead of an answer. Its arguments are told when it is whole: they are decided at once.

    Args:
        emit: takes the events.
        call: what is called.
    """

    def __init__(self, emit: Emit, call: FunctionCall) -> None:
        super().__init__(emit)
        self.call_id = new_id("call")
        self._call = call
        self._arguments = ""
        self._begin()

    def end(self, status: Status, reason: str | None = None) -> None:
        """It is to be carried out, or it is not."""
        if status == "completed":
            self._arguments = self._call.arguments
            names = {"item_id": self.item_id, "call_id": self.call_id}
            self._about("response.function_call_arguments.delta", **names, delta=self._arguments)
            self._about(
                "response.function_call_arguments.done", **names, name=self._call.name, arguments=self._arguments
            )
        self._close(status, reason)

    def _content(self) -> dict[str, Any]:
        return {
            "type": "function_call",
            "name": self._call.name,
            "call_id": self.call_id,
            "arguments": self._arguments,
        }
