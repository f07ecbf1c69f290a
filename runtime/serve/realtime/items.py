"""The items of one session's conversation, as the client sees them: their order, their content, and the events of each.

In: items as they come, are completed and are deleted, from either thread. Out: OpenAI's events, each with the item
before. A user's sound is not kept here: the client has it, and the model keeps what it heard.
"""

from __future__ import annotations

from threading import RLock
from typing import Any

from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.realtime.emitter import Emit

ROOT = "root"
"""What a client calls the place before the first item."""

_MOST = 256
"""Items that can be retrieved, deleted, or named as the item before. Older ones are still part of the conversation."""

Item = dict[str, Any]


class Items:
    """The items. Their events are sent while the lock is held, so that they come in the items' order.

    Args:
        emit: takes the events.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._lock = RLock()
        self._items: dict[str, Item] = {}  # in the conversation's order

    @property
    def last(self) -> str | None:
        """The id of the last item."""
        with self._lock:
            return next(reversed(self._items), None)

    def check_new(self, name: str | None) -> None:
        """Raise ApiError if there is an item of that name."""
        if name in self._items:
            raise ApiError(
                400, f"There is an item {_short(name)} already. Give it another id.", "item_exists", "item.id"
            )

    def check_place(self, before: str | None) -> None:
        """Raise ApiError if a new item cannot come after `before`."""
        if before is not None and before != ROOT:
            self.get(before, "previous_item_id", "create")

    def get(self, name: str, param: str = "item_id", what: str = "retrieve") -> Item:
        """An item.

        Raises:
            ApiError: there is none of that name.
        """
        with self._lock:
            if name not in self._items:
                message = f"There is no item {_short(name)} in the conversation, or it is too long ago."
                raise ApiError(400, message, f"item_{what}_invalid_item_id", param)
            return self._items[name]

    def add(self, item: Item, before: str | None = None, done: bool = True) -> None:
        """Add an item after `before`, or at the end. done: it is complete."""
        with self._lock:
            names = list(self._items)
            place = self._place(names, before)
            names.insert(place, item["id"])
            # A dict keeps the order in which keys came, so that an item in the middle takes a new one.
            self._items = {name: self._items.get(name, item) for name in names[-_MOST:]}
            told = names[place - 1] if place else None
            self._emit("conversation.item.added", previous_item_id=told, item=item)
            if done:
                self._emit("conversation.item.done", previous_item_id=told, item=item)

    @staticmethod
    def _place(names: list[str], before: str | None) -> int:
        if before == ROOT:
            return 0
        return names.index(before) + 1 if before in names else len(names)

    def finish(self, item: Item) -> None:
        """An item that was added is complete."""
        with self._lock:
            if item["id"] not in self._items:  # the client deleted it meanwhile
                return
            self._items[item["id"]] = item
            names = list(self._items)
            place = names.index(item["id"])
            told = names[place - 1] if place else None
            self._emit("conversation.item.done", previous_item_id=told, item=item)

    def transcribed(self, name: str, transcript: str) -> None:
        """What was said in an item is known."""
        with self._lock:
            item = self._items.get(name)
            if item is not None:
                said = [one for one in item["content"] if one["type"] == "input_audio"]
                content = [one | {"transcript": transcript} if one in said[:1] else one for one in item["content"]]
                self._items[name] = item | {"content": content}

    def cut(self, name: str, text: str) -> None:
        """Of an answer, the user heard this text only."""
        with self._lock:
            item = self._items.get(name)
            if item is not None:
                keys = {"output_audio": "transcript", "audio": "transcript"}
                content = [one | {keys.get(one["type"], "text"): text} for one in item["content"]]
                self._items[name] = item | {"content": content}

    def delete(self, name: str) -> None:
        """Forget an item."""
        with self._lock:
            self.get(name, what="delete")
            del self._items[name]
            self._emit("conversation.item.deleted", item_id=name)


def message(name: str, role: str, content: list[dict[str, Any]], status: str = "completed") -> Item:
    """A message as an item."""
    return {
        "id": name,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": content,
    }


def _short(name: str | None) -> str:
    return repr(name if name is None else name[:80])
