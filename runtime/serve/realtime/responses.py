"""One response as the realtime client sees it: begun, made piece by piece, ended.

In: pieces of text and sound, or a function call. Out: OpenAI's events, in the order of OpenAI's own server.
"""

from __future__ import annotations

import base64
import itertools
import secrets
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from voxrill.runtime.apps.calling import FunctionCall
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.serve.realtime.messages import BETA_NAMES, BETA_UNKNOWN

Emit = Callable[..., None]
"""Sends an event: its type, and its fields by name."""

Status = Literal["completed", "cancelled", "failed"]


def new_id(kind: str) -> str:
    """An id that nothing else has, such as `item_1f0e...`."""
    return f"{kind}_{secrets.token_hex(10)}"


class Emitter:
    """Sends events of one session, in the client's dialect. May be called from any thread.

    Args:
        beta: use OpenAI's names from before 2025.
        put: takes an encoded event.
    """

    def __init__(self, beta: bool, put: Callable[[bytes], None]) -> None:
        self._beta = beta
        self._put = put
        self._numbers = itertools.count(1)

    def __call__(self, kind: str, **fields: Any) -> None:
        """Send an event: its type by its present name, and its fields."""
        if self._beta:
            if kind in BETA_UNKNOWN:
                return
            kind = BETA_NAMES.get(kind, kind)
        self._put(msgspec.json.encode({"type": kind, "event_id": f"event_{next(self._numbers)}", **fields}))


class Response:
    """Tells the client of one response, which holds one item. Its subclasses say what kind of item.

    Args:
        emit: takes the events.
    """

    def __init__(self, emit: Emit) -> None:
        self.response_id, self.item_id = new_id("resp"), new_id("item")
        self.ended = False
        self._emit = emit

    def end(self, status: Status, reason: str | None = None) -> None:
        """The response is complete, or was cut short."""
        raise NotImplementedError

    def _content(self) -> dict[str, Any]:
        """The item's content so far."""
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


class MessageResponse(Response):
    """An answer in words.

    Args:
        emit: takes the events.
        output: whether there is sound.
        beta: use OpenAI's names from before 2025.
    """

    def __init__(self, emit: Emit, output: Output, beta: bool) -> None:
        super().__init__(emit)
        self._spoken = output != "text"
        self._kind = "audio" if self._spoken else "text"
        self._content_kind = self._kind if beta else f"output_{self._kind}"
        self._text = ""
        self._begin()
        self._of_part("response.content_part.added", part=self._part())

    def add_text(self, piece: str) -> None:
        """Send more of its text."""
        self._text += piece
        name = "output_audio_transcript" if self._spoken else "output_text"
        self._of_part(f"response.{name}.delta", delta=piece)

    def add_sound(self, samples: Floats) -> None:
        """Send more of its sound, (n,)."""
        self._of_part("response.output_audio.delta", delta=base64.b64encode(pcm16(samples).tobytes()).decode())

    def end(self, status: Status, reason: str | None = None) -> None:
        """The answer is complete, or was cut short."""
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


class CallResponse(Response):
    """A function call instead of an answer. Its arguments are decided at once, and sent when it is complete.

    Args:
        emit: takes the events.
        call: the function and its arguments.
    """

    def __init__(self, emit: Emit, call: FunctionCall) -> None:
        super().__init__(emit)
        self.call_id = new_id("call")
        self._call = call
        self._arguments = ""
        self._begin()

    def end(self, status: Status, reason: str | None = None) -> None:
        """The client is to carry out the call, or it is withdrawn."""
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
