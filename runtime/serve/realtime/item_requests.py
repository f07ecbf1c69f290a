"""The events about a conversation's items: created, retrieved, deleted and cut.

In: the client's events. Out: what waits for an answer, and what the worker is to tell the model. Belongs to the
listening thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.realtime.answering import BY_CLIENT
from voxrill.runtime.serve.realtime.client_items import check_waiting, read_message
from voxrill.runtime.serve.realtime.emitter import new_id
from voxrill.runtime.serve.realtime.messages import CallItem, ItemCreate, MessageItem, OutputItem, Truncate
from voxrill.runtime.serve.realtime.open_calls import OpenCall
from voxrill.runtime.serve.realtime.session_state import SessionState
from voxrill.runtime.talk.listener import Utterance

_TRUNCATED = "conversation.item.truncated"


class ItemRequests:
    """Takes the events about items.

    Args:
        state: of the session.
        hear: makes a turn of a sound's bytes.
    """

    def __init__(self, state: SessionState, hear: Callable[[bytes], Utterance]) -> None:
        self._state = state
        self._hear = hear

    def create(self, event: ItemCreate) -> None:
        """Add an item."""
        self._state.items.check_new(event.item.id)
        self._state.items.check_place(event.previous_item_id)
        match event.item:
            case MessageItem():
                self._create_message(event.item, event.previous_item_id)
            case OutputItem():
                self._create_output(event.item, event.previous_item_id)
            case CallItem():
                self._create_call(event.item, event.previous_item_id)

    def _create_message(self, item: MessageItem, before: str | None) -> None:
        told, content = read_message(item, self._hear)
        if told.text:
            self._state.check_text("\n".join([*(one.text for one in self._state.waiting), told.text]), "item.content")
        if told.role == "user" and before in (None, self._state.items.last):
            check_waiting([*self._state.waiting, told])
            self._state.waiting.append(told)
        else:
            if before is None:
                self._tell_waiting()
            self._state.post(lambda answers: answers.tell(told, before))
        self._state.items.add(content, before)
        for place, utterance in told.sounds:
            self._state.transcribe(told.item, place, utterance)

    def _tell_waiting(self) -> None:
        """What waits to be answered is answered already: the client adds what was said after it."""
        waiting, self._state.waiting = self._state.waiting, []
        outputs, self._state.outputs = self._state.outputs, {}
        for one in waiting:
            self._state.post(lambda answers, told=one: answers.tell(told, None))  # type: ignore[misc]
        if outputs:
            self._state.post(lambda answers: answers.remember_outputs(outputs))

    def _create_output(self, item: OutputItem, before: str | None) -> None:
        if item.call_id not in self._state.answers.calls or item.call_id in self._state.outputs:
            raise ApiError(400, f"No call {item.call_id[:80]!r} waits for its output.", "call_not_found", "call_id")
        self._state.service.check_length(" ".join([*self._state.outputs.values(), item.output]), "output")
        self._state.service.model.parts.tokenizer.readable(item.output)
        self._state.outputs[item.call_id] = item.output
        told = {"type": "function_call_output", "call_id": item.call_id, "output": item.output}
        self._state.items.add(_completed(item.id, told), before)

    def _create_call(self, item: CallItem, before: str | None) -> None:
        self._state.service.check_length(item.arguments, "item.arguments")
        self._tell_waiting()
        call_id = item.call_id or new_id("call")
        self._state.answers.calls.add(call_id, OpenCall(None))
        told = {"type": "function_call", "call_id": call_id, "name": item.name, "arguments": item.arguments}
        self._state.items.add(_completed(item.id, told), before)

    def retrieve(self, name: str) -> None:
        """Show an item."""
        self._state.emit("conversation.item.retrieved", item=self._state.items.get(name))

    def delete(self, name: str) -> None:
        """Forget an item."""
        self._state.items.delete(name)
        self._state.waiting = [told for told in self._state.waiting if told.item != name]
        self._state.post(lambda answers: answers.delete(name))

    def truncate(self, event: Truncate) -> None:
        """Cut an answer to what the user heard of it."""
        answers, name, milliseconds = self._state.answers, event.item_id, event.audio_end_ms
        if answers.cut is None or answers.cut[0] != name:
            heard = answers.floor.interrupt() if self._is_last(name) else None
            if heard is None:
                if self._state.items.get(name, what="truncate").get("role") != "assistant":
                    raise ApiError(400, "Only answers can be cut.", "item_truncate_invalid_item_id", "item_id")
                self._state.post(lambda answers: answers.cut_item(name, milliseconds))
                self._state.emit(_TRUNCATED, item_id=name, content_index=event.content_index, audio_end_ms=milliseconds)
                return
            answers.reason = BY_CLIENT
            self._state.interrupt(min(heard, milliseconds * self._state.service.model.sample_rate // 1000))
        assert answers.cut is not None
        self._state.emit(_TRUNCATED, item_id=name, content_index=event.content_index, audio_end_ms=answers.cut[1])

    def _is_last(self, item: str) -> bool:
        """Whether an item is the answer that has the floor: no other question was asked since.

        `asked` is counted in the listening thread, `begun` in the worker's: they differ while a question waits.
        """
        answers = self._state.answers
        return answers.response is not None and answers.response.item_id == item and answers.asked == answers.begun


def _completed(name: str | None, content: dict[str, Any]) -> dict[str, Any]:
    return {"id": name or new_id("item"), "object": "realtime.item", "status": "completed", **content}
