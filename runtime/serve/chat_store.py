"""The conversations of the chat interface. A client sends all messages with every request; the server keeps the state.

In: messages. Out: a conversation that knows all of them but the last. A kept conversation is found by the hash of its
messages and goes on at once; any other is told from the beginning. A spoken answer is remembered by its id, as OpenAI
does, until newer ones replace it. Everything here belongs to the worker's thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator

from voxrill.runtime.engine.context import Piece
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.chat_messages import ChatMessages
from voxrill.runtime.serve.state_cache import StateCache
from voxrill.runtime.serve.system_prompt import told_prompt

_ANSWERS = 256
"""Spoken answers that are remembered: some kB each."""


class ChatStore:
    """Keeps at most `limit` conversations, and `_ANSWERS` spoken answers."""

    def __init__(self, model: Engine, states: StateCache, limit: int) -> None:
        self._model = model
        self._states = states
        self._limit = limit
        self._kept: OrderedDict[bytes, Conversation] = OrderedDict()
        self._answers: OrderedDict[str, list[Piece]] = OrderedDict()

    def open(self, messages: ChatMessages, output: Output) -> Generator[None, None, Conversation]:
        """Return the conversation that knows all messages before the question. No one else gets it until `keep`.

        A conversation that is not kept is told every turn anew, and encodes its sound: one step for each turn, so that
        others take their turns in between.

        Raises:
            ApiError: a spoken answer is no longer remembered.
        """
        kept = self._kept.pop(messages.key, None)
        if kept is not None:
            return kept
        system = told_prompt(self._model.manifest, messages.system, output)
        conversation = self._model.conversation(system=system, output=output)
        for turn in messages.turns:
            answer = self._spoken(turn.answer) if turn.spoken else turn.answer
            conversation.remember(answer, audio=turn.question.audio, text=turn.question.text, trim=False)
            yield
        return conversation

    def _spoken(self, name: str) -> list[Piece]:
        if name not in self._answers:
            raise ApiError(
                400, f"The spoken answer {name[:80]!r} is no longer remembered. Send its text.", param="messages"
            )
        self._answers.move_to_end(name)
        return self._answers[name]

    def keep(self, key: bytes, conversation: Conversation) -> None:
        """Keep a conversation for the request that begins with the messages of `key`."""
        replaced = self._kept.pop(key, None)
        self._kept[key] = conversation
        gone = [replaced] if replaced is not None else []
        if len(self._kept) > self._limit:
            gone.append(self._kept.popitem(last=False)[1])
        for one in gone:
            self._states.drop(one.context)

    def forget_oldest(self) -> bool:
        """Forget the conversation that was used least recently. Returns whether there was one.

        Nothing is lost but time: its client sends all messages again.
        """
        if not self._kept:
            return False
        self._states.drop(self._kept.popitem(last=False)[1].context)
        return True

    def keep_answer(self, name: str, pieces: list[Piece]) -> None:
        """Remember a spoken answer."""
        self._answers[name] = pieces
        if len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)
