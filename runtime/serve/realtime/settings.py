"""The settings of a realtime session, and how each dialect of the interface shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from voxrill.runtime.audio.endpointing import EndpointOptions, Patience
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.serve.allowed_calls import ToolChoice
from voxrill.runtime.serve.names import DEFAULT_VOICE
from voxrill.runtime.serve.realtime.messages import Tool
from voxrill.runtime.serve.realtime.sound_format import SoundFormat

Eagerness = Literal["low", "medium", "high", "auto"]

_MEDIUM = EndpointOptions(endpoint=0.5, patience=Patience(0.3, 1.5))

EAGERNESS: dict[Eagerness, EndpointOptions] = {
    "low": EndpointOptions(endpoint=1.0, patience=Patience(0.4, 2.0)),
    "medium": _MEDIUM,
    "high": EndpointOptions(endpoint=0.3, patience=Patience(0.2, 1.0)),
    "auto": _MEDIUM,
}
"""How turns of `semantic_vad` end, by the client's eagerness.

With an end-of-turn model a turn ends after the silence that `patience` says. Without one the server hears silence and
not meaning, and a turn ends after `endpoint`. `medium` is the wait that was measured for ordinary turns (see
`EndpointOptions`). `low` is for people who think while they speak. `high` leaves little time after the pause, 0.13 s,
at which an answer is begun early.
"""


@dataclass(frozen=True)
class TurnDetection:
    """How the server finds out that the user's turn is over: by silence, or by meaning too.

    silence: milliseconds that end a turn of `server_vad`. before: milliseconds that are kept before the first voice.
    eagerness: of `semantic_vad`.
    """

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    silence: float = 500.0
    before: float = 300.0
    eagerness: Eagerness = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    @property
    def endpoint(self) -> EndpointOptions:
        """The rules by which turns begin and end."""
        if self.type == "semantic_vad":
            return EAGERNESS[self.eagerness]
        return EndpointOptions(self.threshold, endpoint=self.silence / 1000)

    def shown(self) -> dict[str, Any]:
        """As the interface shows it."""
        answers = {"create_response": self.create_response, "interrupt_response": self.interrupt_response}
        if self.type == "semantic_vad":
            return {"type": self.type, "eagerness": self.eagerness, **answers}
        return {
            "type": self.type,
            "threshold": self.threshold,
            "silence_duration_ms": round(self.silence),
            "prefix_padding_ms": round(self.before),
            "idle_timeout_ms": None,
            **answers,
        }


@dataclass(frozen=True)
class Transcription:
    """What a client wants of transcripts. Its language is shown again; the model hears the language that it knows."""

    language: str | None = None


@dataclass(frozen=True)
class Settings:
    """A session's settings.

    kind: a session of transcription only writes down what is said. instructions: None for the model's own. heard, said:
    the formats of the user's sound and of the answers'. detection: None if the client ends turns. transcription: None
    for no transcripts. voice: the model's own voice, empty where it has one only. most: text tokens and frames of an
    answer, None for the server's limit.
    """

    kind: Literal["realtime", "transcription"] = "realtime"
    instructions: str | None = None
    output: Output = "both"
    heard: SoundFormat = field(default_factory=SoundFormat)
    said: SoundFormat = field(default_factory=SoundFormat)
    detection: TurnDetection | None = field(default_factory=TurnDetection)
    transcription: Transcription | None = None
    voice: str = ""
    most: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"

    @property
    def transcribes(self) -> bool:
        """Whether the user's turns are written down."""
        return self.transcription is not None or self.kind == "transcription"

    @property
    def answers(self) -> bool:
        """Whether the end of a turn is answered without being asked."""
        return self.kind == "realtime" and (self.detection is None or self.detection.create_response)

    @property
    def endpoint(self) -> EndpointOptions:
        """The rules by which turns begin and end."""
        return EndpointOptions() if self.detection is None else self.detection.endpoint

    @property
    def modalities(self) -> list[str]:
        """The answers' modalities as OpenAI names them: sound includes its transcript."""
        return ["text"] if self.output == "text" else ["audio"]


def shown(settings: Settings, name: str, model: str, instructions: str, beta: bool) -> dict[str, Any]:
    """The session as the client is shown it. instructions: those in force."""
    if settings.kind == "transcription":
        heard = {"input": _heard(settings, model)}
        return {"id": name, "object": "realtime.transcription_session", "type": "transcription", "audio": heard}
    common = {
        "id": name,
        "object": "realtime.session",
        "model": model,
        "instructions": instructions,
        "tools": msgspec.to_builtins(settings.tools),
        "tool_choice": msgspec.to_builtins(settings.tool_choice),
    }
    most = settings.most or "inf"
    voice = settings.voice or DEFAULT_VOICE
    if beta:
        heard = _heard(settings, model)
        return common | {
            "modalities": ["text"] if settings.output == "text" else ["audio", "text"],
            "voice": voice,
            "input_audio_format": settings.heard.before,
            "output_audio_format": settings.said.before,
            "input_audio_transcription": heard["transcription"],
            "turn_detection": heard["turn_detection"],
            "max_response_output_tokens": most,
        }
    return common | {
        "type": "realtime",
        "output_modalities": settings.modalities,
        "audio": {
            "input": _heard(settings, model),
            "output": {"format": settings.said.shown(), "voice": voice, "speed": 1.0},
        },
        "max_output_tokens": most,
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
    }


def _heard(settings: Settings, model: str) -> dict[str, Any]:
    transcription = None
    if settings.transcribes:
        language = settings.transcription.language if settings.transcription is not None else None
        transcription = {"model": model} | ({"language": language} if language else {})
    return {
        "format": settings.heard.shown(),
        "turn_detection": settings.detection.shown() if settings.detection is not None else None,
        "transcription": transcription,
        "noise_reduction": None,
    }
