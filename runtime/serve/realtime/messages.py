"""The events that a realtime client may send, as typed structs, and the names of OpenAI's two dialects.

The names are those of OpenAI's interface. Clients from before 2025 send the header `OpenAI-Beta: realtime=v1`. They use
other names for some events and for the session's settings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voxrill.runtime.apps.functions import Function
from voxrill.runtime.serve.allowed_calls import ToolChoice
from voxrill.runtime.serve.names import VoiceName

IN_RATES = (24_000, 16_000)
"""Sample rates at which sound may be sent, Hz. The first one is OpenAI's."""


Id = Annotated[str, Meta(max_length=512)]
"""An id that the client chose. It is sent back, so that its length is limited (OpenAI's limit)."""


class _Event(msgspec.Struct, tag_field="type"):
    """Something the client wants. event_id: an error about this event names it."""

    event_id: Id | None = None


class TurnDetection(msgspec.Struct):
    """How the server finds out that the user's turn is over: by silence."""

    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    silence_duration_ms: Annotated[float, Meta(ge=200, le=10_000)] = 500
    create_response: bool = True
    interrupt_response: bool = True


class InFormat(msgspec.Struct):
    """How sound is sent: 16-bit little-endian mono."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24_000, 16_000] = 24_000


class OutFormat(msgspec.Struct):
    """How sound is sent back."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24_000] = 24_000


class AudioIn(msgspec.Struct):
    """The user's sound. turn_detection: null if the client ends turns itself. transcription: null for none."""

    format: InFormat | UnsetType = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET
    transcription: dict[str, Any] | UnsetType | None = UNSET


class AudioOut(msgspec.Struct):
    """The answer's sound."""

    format: OutFormat | UnsetType = UNSET
    voice: VoiceName | UnsetType = UNSET


class Audio(msgspec.Struct):
    """Sound in both directions."""

    input: AudioIn | UnsetType = UNSET
    output: AudioOut | UnsetType = UNSET


Modality = Literal["text", "audio"]
Tokens = Annotated[int, Meta(ge=1)] | Literal["inf"]


class Tool(Function, frozen=True, tag_field="type", tag="function"):
    """A function that may be called."""


class SessionConfig(msgspec.Struct):
    """A session's settings, under the names of both dialects."""

    type: Literal["realtime"] = "realtime"
    instructions: str | UnsetType = UNSET
    output_modalities: list[Modality] | UnsetType = UNSET
    audio: Audio | UnsetType = UNSET
    max_output_tokens: Tokens | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    modalities: list[Modality] | UnsetType = UNSET
    voice: VoiceName | UnsetType = UNSET
    input_audio_format: Literal["pcm16"] | UnsetType = UNSET
    output_audio_format: Literal["pcm16"] | UnsetType = UNSET
    input_audio_transcription: dict[str, Any] | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET
    max_response_output_tokens: Tokens | UnsetType = UNSET

    def present(self) -> SessionConfig:
        """The same settings, all under their present names."""
        audio = self.audio or Audio()
        heard, said = audio.input or AudioIn(), audio.output or AudioOut()
        if self.turn_detection is not UNSET:
            heard.turn_detection = self.turn_detection
        if self.input_audio_transcription is not UNSET:
            heard.transcription = self.input_audio_transcription
        if self.voice is not UNSET:
            said.voice = self.voice
        modalities = self.output_modalities
        if self.modalities is not UNSET:
            modalities = ["audio"] if "audio" in self.modalities else ["text"]
        most = self.max_response_output_tokens if self.max_output_tokens is UNSET else self.max_output_tokens
        return SessionConfig(
            instructions=self.instructions,
            output_modalities=modalities,
            audio=Audio(heard, said),
            max_output_tokens=most,
            tools=self.tools,
            tool_choice=self.tool_choice,
        )


class SessionUpdate(_Event, tag="session.update"):
    """Change the settings."""

    session: SessionConfig = msgspec.field(default_factory=SessionConfig)


class Append(_Event, tag="input_audio_buffer.append", kw_only=True):
    """More of the user's sound, in base64."""

    audio: str


class Commit(_Event, tag="input_audio_buffer.commit"):
    """The sound so far is a turn of the user's."""


class Clear(_Event, tag="input_audio_buffer.clear"):
    """Forget the sound so far."""


class TextContent(msgspec.Struct, tag_field="type", tag="input_text"):
    """What the user wrote."""

    text: str


class AudioContent(msgspec.Struct, tag_field="type", tag="input_audio"):
    """What the user said, in base64."""

    audio: str


class UserItem(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    """A whole turn of the user's."""

    role: Literal["user"]
    content: Annotated[list[TextContent | AudioContent], Meta(min_length=1, max_length=1)]
    id: Id | None = None


class OutputItem(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call_output"):
    """The output of a function call."""

    call_id: Id
    output: str
    id: Id | None = None


class ItemCreate(_Event, tag="conversation.item.create", kw_only=True):
    """A turn of the user's in one piece, or the output of a function call."""

    item: UserItem | OutputItem


class Truncate(_Event, tag="conversation.item.truncate", kw_only=True):
    """The user heard no more of an answer than its first `audio_end_ms`."""

    item_id: Id
    audio_end_ms: Annotated[int, Meta(ge=0)]
    content_index: int = 0


class ResponseOptions(msgspec.Struct):
    """Options of one response. All others are the session's."""

    tool_choice: ToolChoice | UnsetType = UNSET
    tools: Annotated[list[Any], Meta(max_length=0, description="Tools are set by session.update.")] | None = None


class ResponseCreate(_Event, tag="response.create"):
    """Answer the turns since the last response, or tell the user the output of calls."""

    response: ResponseOptions | None = None


class ResponseCancel(_Event, tag="response.cancel"):
    """End the response that is being made."""


ClientEvent = SessionUpdate | Append | Commit | Clear | ItemCreate | Truncate | ResponseCreate | ResponseCancel

BETA_HEADER, BETA = "openai-beta", "realtime=v1"

BETA_NAMES = {
    "conversation.item.added": "conversation.item.created",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
"""The names from before 2025, by the present ones."""

BETA_UNKNOWN = ("conversation.item.done",)
"""Events that did not exist before 2025."""
