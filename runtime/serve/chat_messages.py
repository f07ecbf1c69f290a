"""The messages of a chat request, as the model is told them. Everything here runs in an upload's thread.

In: the messages of OpenAI's interface. Out: the system prompt, the turns before, and what is to be answered; sounds
decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from voxrill.runtime.serve.system_prompt import OPENING
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

    outputs: of the calls that answered the question, if they are the last messages; the user is told them. key: the
    hash of all messages but the question's.
    """

    system: str | None
    turns: list[ChatTurn]
    question: ChatQuestion
    outputs: list[str]
    key: bytes

    def texts(self) -> Iterator[str]:
        """All texts that the model is told."""
        yield self.system or ""
        yield self.question.text or ""
        yield " ".join(self.outputs)
        for turn in self.turns:
            yield turn.question.text or ""
            yield "" if turn.spoken else turn.answer


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
        return self._parts.heard(sound)


def read_messages(messages: list[Message], output: Output, sounds: SoundBudget) -> ChatMessages:
    """Read the messages in any order that a client may send: prompts anywhere, several messages of one side in a row.

    Raises:
        ApiError: nothing is left to answer, an output belongs to no call, or a sound cannot be used.
    """
    reader = _MessageReader(sounds)
    for message in messages:
        reader.read(message)
    question, outputs = reader.rest(messages[-1])
    rest = [message for message in messages if not any(message is asked for asked in reader.asked)]
    system = "\n".join(reader.system) if reader.system else None
    return ChatMessages(system, reader.turns, question, outputs, key_of(output, rest))


class _MessageReader:
    """Reads one message after the other.

    system: the prompts. turns: those that are over. asked: the messages of the question that is open. called: whether
    it was answered with a call, whose `outputs` may follow.
    """

    def __init__(self, sounds: SoundBudget) -> None:
        self.system: list[str] = []
        self.turns: list[ChatTurn] = []
        self.asked: list[UserMessage] = []
        self._sounds = sounds
        self._called = False
        self._outputs: list[str] = []

    def read(self, message: Message) -> None:
        """Read the next message."""
        if isinstance(message, SystemMessage | DeveloperMessage):
            self.system.append(_text(message.content))
        elif isinstance(message, UserMessage):
            if self._called:  # the outputs were told, or the user did not wait for them
                self._close(" ".join(self._outputs), spoken=False)
            self.asked.append(message)
        elif isinstance(message, ToolMessage):
            if not self._called:
                raise ApiError(400, "A tool message answers no call. Send the call before it.", param="messages")
            self._outputs.append(_text(message.content))
        elif message.tool_calls:
            self._called = True
        elif message.audio is not None:
            self._close(message.audio.id, spoken=True)
        else:
            self._close(_text(message.content or ""), spoken=False)

    def rest(self, last: Message) -> tuple[ChatQuestion, list[str]]:
        """What is to be answered: a question, or the outputs of its calls; a greeting if nothing was asked."""
        if isinstance(last, AssistantMessage):
            raise ApiError(
                400, "The last message is the assistant's. End with a user message, or with a tool's.", param="messages"
            )
        if self._outputs:
            return ChatQuestion(None, None), self._outputs
        return (_question(self.asked, self._sounds) if self.asked else ChatQuestion(None, OPENING)), []

    def _close(self, answer: str, spoken: bool) -> None:
        question = _question(self.asked, self._sounds) if self.asked else ChatQuestion(None, None)
        self.turns.append(ChatTurn(question, answer, spoken))
        self.asked, self._outputs, self._called = [], [], False


def _text(content: str | Sequence[TextPart | RefusalPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _question(messages: list[UserMessage], budget: SoundBudget) -> ChatQuestion:
    parts = [part for message in messages for part in _parts(message)]
    sounds = [part for part in parts if isinstance(part, AudioPart)]
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    if len(sounds) > 1:
        raise ApiError(400, "A question has more than one sound. Send one in each.", param="messages")
    audio = budget.decode(sounds[0]) if sounds else None
    if audio is None and not text and not any(isinstance(message.content, str) for message in messages):
        raise ApiError(400, "A message is empty. Send text or a sound.", param="messages")
    return ChatQuestion(audio, None if audio is not None and not text else text)


def _parts(message: UserMessage) -> Sequence[TextPart | AudioPart]:
    return [TextPart(message.content)] if isinstance(message.content, str) else message.content
