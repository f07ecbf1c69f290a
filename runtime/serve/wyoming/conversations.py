"""Conversations that go on: what a client asked before under the same conversation id.

Home Assistant opens a connection for every question, and sends the id of the conversation with it. All methods belong
to the worker's thread.
"""

from __future__ import annotations

from collections import OrderedDict

from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.serve.api_errors import NoRoom
from voxrill.runtime.serve.service import Service

Key = tuple[str, str]
"""Where the client comes from, and the id that it gave: an id alone could be another client's."""


class KeptConversations:
    """The conversations that were used last, as many as the limit `chats` allows.

    Args:
        service: whose model answers, and whose memory holds their states.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept: OrderedDict[Key, Conversation] = OrderedDict()

    def take(self, key: Key | None) -> Conversation:
        """The conversation of that key, or a new one. Nobody else has it until it is kept again.

        Raises:
            NoRoom: a new one cannot begin, even after all kept ones are forgotten.
        """
        kept = self._kept.pop(key, None) if key is not None else None
        conversation = kept or self._new()
        self._service.states.use(conversation.context)
        return conversation

    def _new(self) -> Conversation:
        states = self._service.states
        while states.full and self._kept:
            self._forget_oldest()
        if states.full:
            raise NoRoom
        return self._service.model.conversation(output="text")

    def keep(self, key: Key | None, conversation: Conversation) -> None:
        """Keep a conversation for the next question of the same key; one without a key is forgotten."""
        if key is None:
            self._service.states.drop(conversation.context)
            return
        self._service.states.use(conversation.context)  # others may have taken its place while the client was leaving
        conversation.forget(self._service.positions, self._service.turns)
        replaced = self._kept.pop(key, None)  # of a question that was asked at the same time
        if replaced is not None:
            self._service.states.drop(replaced.context)
        self._kept[key] = conversation
        if len(self._kept) > self._service.limits.chats:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, conversation = self._kept.popitem(last=False)
        self._service.states.drop(conversation.context)
