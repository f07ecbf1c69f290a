"""The settings of a realtime session: their values, their changes, and how each dialect shows them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from msgspec import UNSET

from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.bundle.manifest import Task
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.serve.allowed_calls import ToolChoice
from voxrill.runtime.serve.names import DEFAULT_VOICE, check_voice
from voxrill.runtime.serve.realtime.messages import (
    IN_RATES,
    AudioIn,
    AudioOut,
    SessionConfig,
    Tool,
    TurnDetection,
)


@dataclass(frozen=True)
class Settings:
    """A session's settings.

    instructions: None for the model's own. rate: of the client's sound, Hz. detection: None if the client ends turns.
    most: text tokens and frames of an answer, None for the server's limit.
    """

    instructions: str | None = None
    output: Output = "both"
    rate: int = IN_RATES[0]
    detection: TurnDetection | None = field(default_factory=TurnDetection)
    transcribe: bool = False
    most: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"

    def changed(self, session: SessionConfig, chat: Task) -> Settings:
        """These settings, changed as a client wants it.

        Raises:
            ApiError: the voice does not exist.
        """
        new, wanted = self, session.present()
        assert wanted.audio is not UNSET
        if wanted.instructions is not UNSET:
            new = replace(new, instructions=wanted.instructions or None)
        if wanted.output_modalities is not UNSET:
            new = replace(new, output="both" if "audio" in wanted.output_modalities else "text")
        if wanted.max_output_tokens is not UNSET:
            new = replace(new, most=None if wanted.max_output_tokens == "inf" else wanted.max_output_tokens)
        if isinstance(wanted.audio.output, AudioOut) and wanted.audio.output.voice is not UNSET:
            check_voice(chat, wanted.audio.output.voice, "voice")
        if wanted.tools is not UNSET:
            new = replace(new, tools=tuple(wanted.tools))
        if wanted.tool_choice is not UNSET:
            new = replace(new, tool_choice=wanted.tool_choice)
        return new._heard(wanted.audio.input) if isinstance(wanted.audio.input, AudioIn) else new

    def _heard(self, wanted: AudioIn) -> Settings:
        new = self
        if wanted.format is not UNSET:
            new = replace(new, rate=wanted.format.rate)
        if wanted.turn_detection is not UNSET:
            new = replace(new, detection=wanted.turn_detection)
        if wanted.transcription is not UNSET:
            new = replace(new, transcribe=wanted.transcription is not None)
        return new

    @property
    def endpoint(self) -> EndpointOptions:
        """The rules by which turns begin and end."""
        if self.detection is None:
            return EndpointOptions()
        return EndpointOptions(self.detection.threshold, endpoint=self.detection.silence_duration_ms / 1000)

    @property
    def modalities(self) -> list[str]:
        """The answers' modalities as OpenAI names them: sound includes its transcript."""
        return ["text"] if self.output == "text" else ["audio"]


def shown(settings: Settings, name: str, model: str, instructions: str, beta: bool) -> dict[str, Any]:
    """The session as the client is shown it."""
    detection = None
    if settings.detection is not None:
        asked = settings.detection
        detection = {
            "type": asked.type,
            "threshold": asked.threshold,
            "silence_duration_ms": asked.silence_duration_ms,
            "prefix_padding_ms": 300,
            "create_response": asked.create_response,
            "interrupt_response": asked.interrupt_response,
        }
    transcription = {"model": model} if settings.transcribe else None
    most = settings.most or "inf"
    common = {
        "id": name,
        "object": "realtime.session",
        "model": model,
        "instructions": instructions,
        "tools": msgspec.to_builtins(settings.tools),
        "tool_choice": msgspec.to_builtins(settings.tool_choice),
    }
    if beta:
        return common | {
            "modalities": ["text"] if settings.output == "text" else ["audio", "text"],
            "voice": DEFAULT_VOICE,
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": transcription,
            "turn_detection": detection,
            "max_response_output_tokens": most,
        }
    heard = {
        "format": {"type": "audio/pcm", "rate": settings.rate},
        "turn_detection": detection,
        "transcription": transcription,
    }
    said = {"format": {"type": "audio/pcm", "rate": IN_RATES[0]}, "voice": DEFAULT_VOICE}
    return common | {
        "type": "realtime",
        "output_modalities": settings.modalities,
        "audio": {"input": heard, "output": said},
        "max_output_tokens": most,
    }
