"""The messages of a chat request, as the model is told them. Everything here runs in an upload's thread.

In: the messages of OpenAI's interface. Out: the system prompt, the turns before, and the question; sounds decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from voxrill.runtime.apps.transcription import encoder_seconds
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, Waveform
from voxrill.runtime.engine.conversation import Output
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
from voxrill.runtime.serve.uploads import decode, from_base64

_FRAMES = 8
"""Log-mel frames of one position in the context."""


@dataclass(frozen=True)
class ChatQuestion:
    """A user's message: what the model hears of its sound, (samples,) at 16 kHz, and the text."""

    audio: Waveform | None
    text: str | None


@dataclass(frozen=True)
class ChatTurn:
    """A question and its answer: a text or, where `spoken`, the id of a spoken answer."""

    question: ChatQuestion
    answer: str
    spoken: bool


@dataclass(frozen=True)
class ChatMessages:
    """A request's messages: the system prompt, the turns before the question, and the question.

    key: the hash of all messages before the question.
    """

    system: str | None
    turns: list[ChatTurn]
    question: ChatQuestion
    key: bytes


def key_of(output: Output, messages: Sequence[Message]) -> bytes:
    """The hash of a conversation's messages, by which it is found."""
    return hashlib.sha256(output.encode() + msgspec.json.encode(messages)).digest()


class SoundBudget:
    """Decodes the sounds of one request within what the model holds. decoded: seconds of sound so far.

    The encoder limits each of them (its memory grows with the square of the length), the context all of them together.
    """

    def __init__(self, model: Engine, limits: Limits) -> None:
        position = _FRAMES * model.manifest.model.log_mel.window_stride
        self._parts = model.parts
        self._samples = limits.samples
        self._each = min(limits.question, encoder_seconds(model))
        self._all = min(limits.audio, model.context_positions * position)
        self.decoded = 0.0

    def decode(self, part: AudioPart) -> Waveform:
        """What the model hears of a message's sound: (samples,) at 16 kHz.

        Raises:
            ApiError: it is not usable sound, or is longer than the model holds, alone or with those before it.
        """
        sound = decode(from_base64(part.input_audio.data, "messages"), self._each, self._samples, "messages")
        self.decoded += len(sound) / SAMPLE_RATE  # with its silence: to look for speech in it is work, too
        if self.decoded > self._all:
            raise ApiError(
                400,
                f"The sounds of this request last more than {self._all:g} seconds together. Send fewer of them.",
                "sounds_too_long",
                "messages",
            )
        return self._parts.waveform(sound)


def read_messages(messages: list[Message], output: Output, sounds: SoundBudget) -> ChatMessages:
    """Read a system prompt or none, then questions and answers in turn, a question last.

    Raises:
        ApiError: the messages come in another order, or a sound cannot be used.
    """
    system, rest = None, messages
    if isinstance(messages[0], SystemMessage | DeveloperMessage):
        system, rest = _text(messages[0].content), messages[1:]
    wrong = ApiError(
        400,
        "The messages are out of order. Send a system message or none, then user and assistant in turn, user last.",
        param="messages",
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
    return ChatMessages(system, turns, _question(rest[-1], sounds), key_of(output, messages[:-1]))


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _question(message: UserMessage, budget: SoundBudget) -> ChatQuestion:
    if isinstance(message.content, str):
        return ChatQuestion(None, message.content)
    sounds = [part for part in message.content if isinstance(part, AudioPart)]
    text = "\n".join(part.text for part in message.content if isinstance(part, TextPart))
    if len(sounds) > 1:
        raise ApiError(400, "A message has more than one sound. Send one in each message.", param="messages")
    audio = budget.decode(sounds[0]) if sounds else None
    if audio is None and not text:
        raise ApiError(400, "A message is empty. Send text or a sound.", param="messages")
    return ChatQuestion(audio, text or None)
