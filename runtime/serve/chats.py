"""Conversations of the chat interface. A client sends all messages with every request; the server keeps the state.

In: messages. Out: a conversation that knows all of them but the last, and the question that the last one asks. A kept
conversation is found by the hash of its messages and goes on at once; any other is told from the beginning. A spoken
answer is remembered by its id, as OpenAI does, until newer ones replace it. `read_messages` runs in a decoder's thread;
everything else belongs to the worker's thread.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import msgspec

from voxrill.runtime.apps.transcription import hearing_span
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, Waveform
from voxrill.runtime.engine.context import Piece
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.requests import (
    AssistantMessage,
    AudioPart,
    DeveloperMessage,
    Message,
    SystemMessage,
    TextPart,
    UserMessage,
)
from voxrill.runtime.serve.states import States
from voxrill.runtime.serve.uploads import decode, from_base64

_ANSWERS = 256
"""Spoken answers that are remembered: some kB each."""

_FRAMES = 8
"""Log-mel frames of one position in the context."""


@dataclass(frozen=True)
class ChatQuestion:
    """A user's message: the sound in it (samples,) at 16 kHz, and the text."""

    audio: Waveform | None
    text: str | None


@dataclass(frozen=True)
class ChatTurn:
    """A question and what was answered: a text, or the id of a spoken answer."""

    question: ChatQuestion
    answer: str
    spoken: bool


@dataclass(frozen=True)
class Talked:
    """A request's messages: the system prompt, the turns before, the question, and the hash of what is before it."""

    system: str | None
    turns: list[ChatTurn]
    question: ChatQuestion
    key: bytes


def key_of(output: Output, messages: Sequence[Message]) -> bytes:
    """What a conversation is found by: the hash of all its messages."""
    return hashlib.sha256(output.encode() + msgspec.json.encode(messages)).digest()


class SoundBudget:
    """Decodes the sounds of one request within what the model holds.

    The encoder limits each of them (its memory grows with the square of the length), the context all of them together.
    """

    def __init__(self, model: Engine, limits: Limits) -> None:
        position = _FRAMES * model.manifest.model.log_mel.window_stride
        self._samples = limits.samples
        self._each = min(limits.question, hearing_span(model))
        self._all = min(limits.audio, model.context_positions * position)
        self._decoded = 0.0

    def decode(self, part: AudioPart) -> Waveform:
        """The sound (samples,) at 16 kHz of a message.

        Raises:
            ApiError: it is not usable sound, or longer than the model holds; or all so far are.
        """
        waveform = decode(from_base64(part.input_audio.data, "messages"), self._each, self._samples, "messages")
        self._decoded += len(waveform) / SAMPLE_RATE
        if self._decoded > self._all:
            raise ApiError(
                400,
                f"The sounds of this request last more than {self._all:g} seconds together. Send fewer of them.",
                "sounds_too_long",
                "messages",
            )
        return waveform


def read_messages(messages: list[Message], output: Output, sounds: SoundBudget) -> Talked:
    """What the messages say: a system prompt at first, then questions and answers in turn, a question last.

    Raises:
        ApiError: they do not follow each other so, or a sound cannot be used.
    """
    system, rest = None, messages
    if isinstance(messages[0], SystemMessage | DeveloperMessage):
        system, rest = _text(messages[0].content), messages[1:]
    wrong = ApiError(
        400, "Messages are: a system message or none, then user and assistant in turn, user last.", param="messages"
    )
    if len(rest) % 2 == 0:
        raise wrong
    turns = []
    for user, assistant in zip(rest[:-1:2], rest[1::2], strict=True):
        if not isinstance(user, UserMessage) or not isinstance(assistant, AssistantMessage):
            raise wrong
        if assistant.audio is not None:
            turns.append(ChatTurn(_question(user, sounds), assistant.audio.id, spoken=True))
        else:
            turns.append(ChatTurn(_question(user, sounds), _text(assistant.content or ""), spoken=False))
    if not isinstance(rest[-1], UserMessage):
        raise wrong
    return Talked(system, turns, _question(rest[-1], sounds), key_of(output, messages[:-1]))


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _question(message: UserMessage, budget: SoundBudget) -> ChatQuestion:
    if isinstance(message.content, str):
        return ChatQuestion(None, message.content)
    sounds = [part for part in message.content if isinstance(part, AudioPart)]
    text = "\n".join(part.text for part in message.content if isinstance(part, TextPart))
    if len(sounds) > 1:
        raise ApiError(400, "A message holds one sound at most.", param="messages")
    audio = budget.decode(sounds[0]) if sounds else None
    if audio is None and not text:
        raise ApiError(400, "A message is empty.", param="messages")
    return ChatQuestion(audio, text or None)


class Chats:
    """The conversations and spoken answers that are kept, at most `limit` and `_ANSWERS` of them."""

    def __init__(self, model: Engine, states: States, limit: int) -> None:
        self._model = model
        self._states = states
        self._limit = limit
        self._kept: OrderedDict[bytes, Conversation] = OrderedDict()
        self._answers: OrderedDict[str, list[Piece]] = OrderedDict()

    def take(self, talked: Talked, output: Output) -> Generator[None, None, Conversation]:
        """Return the conversation that knows all before the question; nobody else has it until `keep`.

        Telling it a turn encodes that turn's sound: one step each, so that others take their turns in between.

        Raises:
            ApiError: a spoken answer is not remembered any more.
        """
        kept = self._kept.pop(talked.key, None)
        if kept is not None:
            return kept
        conversation = self._model.conversation(system=talked.system, output=output)
        for turn in talked.turns:
            answer = self._spoken(turn.answer) if turn.spoken else turn.answer
            conversation.remember(answer, audio=turn.question.audio, text=turn.question.text)
            yield
        return conversation

    def _spoken(self, name: str) -> list[Piece]:
        if name not in self._answers:
            raise ApiError(
                400, f"The spoken answer {name[:80]!r} is not remembered any more. Send its text.", param="messages"
            )
        self._answers.move_to_end(name)
        return self._answers[name]

    def keep(self, key: bytes, conversation: Conversation) -> None:
        """Keep a conversation for the request that begins with `key`'s messages."""
        replaced = self._kept.pop(key, None)
        self._kept[key] = conversation
        gone = [replaced] if replaced is not None else []
        if len(self._kept) > self._limit:
            gone.append(self._kept.popitem(last=False)[1])
        for one in gone:
            self._states.drop(one.context)

    def forget_oldest(self) -> bool:
        """Forget the conversation that was kept longest; whether there was one. Its client can tell it anew."""
        if not self._kept:
            return False
        self._states.drop(self._kept.popitem(last=False)[1].context)
        return True

    def keep_answer(self, name: str, pieces: list[Piece]) -> None:
        """Remember a spoken answer."""
        self._answers[name] = pieces
        if len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)
