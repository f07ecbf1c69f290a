"""session.update: what a client sends is merged into the session's settings.

In: the settings, and the client's object in either dialect. Out: the new settings, and an error for each field that
cannot be. Every field of OpenAI's interface stands in a table here. A field that is in none of them is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.serve.allowed_calls import ToolChoice, check_size
from voxrill.runtime.serve.names import VoiceId, check_model, check_voice
from voxrill.runtime.serve.realtime.merging import (
    Errors,
    Field,
    boolean,
    ignored,
    merge,
    number,
    one_of,
    only,
    part,
    refused,
    setting,
    text,
)
from voxrill.runtime.serve.realtime.messages import Tool, converted
from voxrill.runtime.serve.realtime.settings import EAGERNESS, Settings, Transcription, TurnDetection
from voxrill.runtime.serve.realtime.sound_format import FORMATS, PCM_RATES, SoundFormat

_SILENCE = 150, 10_000
"""Milliseconds of silence after which a turn may end. An answer may be begun after 128 ms, and a turn ends later."""

_BEFORE = 0, 2_000
"""Milliseconds of sound that may be kept before the first voice."""

_MICROPHONES = "near_field", "far_field"

_NO_NOISE_REDUCTION: Field[Settings] = only(None)

_CLIENT_ENDS = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""OpenAI's models of transcription sessions that find no ends of turns."""

_LANGUAGE = 16
"""Characters of a language's code."""


def merged(now: Settings, session: Any, model: Engine) -> tuple[Settings, Errors]:
    """The settings with what a client sends, and what is wrong with it."""
    errors: Errors = []
    return merge(now, session, session_fields(model), "session", errors), errors


def output_of(value: Any, param: str) -> str:
    """The output that modalities mean: sound comes with its transcript."""
    if not isinstance(value, list) or not value or any(one not in ("text", "audio") for one in value):
        raise refused(param, value, 'It must be ["audio"] or ["text"].')
    return "both" if "audio" in value else "text"


def tokens(value: Any, param: str) -> int | None:
    """The tokens of an answer; None for the server's limit."""
    if value == "inf":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refused(param, value, 'It must be a whole number from 1, or "inf".')
    return value


def tools(value: Any, param: str) -> tuple[Tool, ...]:
    """A client's functions."""
    found = tuple(converted(value, list[Tool], param))
    check_size(found)
    return found


def tool_choice(value: Any, param: str) -> ToolChoice:
    """Which function is to be called."""
    if isinstance(value, str) and value not in ("auto", "none", "required"):
        raise refused(param, value, 'It must be "auto", "none", "required", or {"type": "function", "name": NAME}.')
    found: ToolChoice = converted(value, ToolChoice, param)
    return found


def sound_format(now: SoundFormat, value: Any, param: str, errors: Errors) -> SoundFormat:
    """The format that a client names; a rate alone changes the rate."""
    if value is None:
        return SoundFormat()
    if isinstance(value, str):
        return FORMATS[one_of(*FORMATS)(value, param)]
    return merge(now, value, _FORMAT, param, errors)


def _format_kind(now: SoundFormat, value: Any, param: str, _errors: Errors) -> SoundFormat:
    if value is None or value == now.kind:
        return now
    return FORMATS[one_of(*FORMATS)(value, param)]


def _format_rate(now: SoundFormat, value: Any, param: str, _errors: Errors) -> SoundFormat:
    if value is None or value == now.rate:
        return now
    if now.kind != "audio/pcm":
        raise refused(param, value, f"{now.kind} has 8000 Hz.")
    if value not in PCM_RATES:
        raise refused(param, value, f"It must be {', '.join(map(str, sorted(PCM_RATES)))} Hz.")
    return replace(now, rate=value)


_FORMAT: Mapping[str, Field[SoundFormat]] = {"type": _format_kind, "rate": _format_rate}


_DETECTION: Mapping[str, Field[TurnDetection]] = {
    "type": setting("type", one_of("server_vad", "semantic_vad")),
    "threshold": setting("threshold", number(0.01, 0.99)),
    "silence_duration_ms": setting("silence", number(*_SILENCE)),
    "prefix_padding_ms": setting("before", number(*_BEFORE)),
    "eagerness": setting("eagerness", one_of(*EAGERNESS)),
    "create_response": setting("create_response", boolean),
    "interrupt_response": setting("interrupt_response", boolean),
    "idle_timeout_ms": only(None),
}


def _detection(now: Settings, value: Any, param: str, errors: Errors) -> Settings:
    if value is None:
        return replace(now, detection=None)
    before = now.detection or TurnDetection()
    return replace(now, detection=merge(before, value, _DETECTION, param, errors))


def _leaves_ends_to_the_client(now: Settings, value: Any) -> bool:
    """Whether a client names one of those models, and does not say how turns end: it commits each of them."""
    named = value.get("model") if isinstance(value, Mapping) else None
    undecided = now.kind == "transcription" and now.detection == TurnDetection()
    return undecided and isinstance(named, str) and named.startswith(_CLIENT_ENDS)


def _language(value: Any, param: str) -> str:
    language = text(value, param)
    if len(language) > _LANGUAGE:
        raise refused(param, value, 'It must be a code such as "en".')
    return language


def _transcription_table(model: Engine) -> Mapping[str, Field[Transcription]]:
    return {
        "model": _model_field(model),
        "language": setting("language", _language),
        "languages": ignored,  # what may be spoken: the model hears the language that it knows
        "prompt": only(None, ""),
        "keywords": only(None, []),
        "delay": ignored,  # a transcript comes as soon as its turn is over
    }


def _model_field(model: Engine) -> Field[Any]:
    def change(now: Any, value: Any, param: str, _errors: Errors) -> Any:
        if value is not None:
            check_model(model.manifest, text(value, param))
        return now

    return change


def session_fields(model: Engine) -> Mapping[str, Field[Settings]]:
    """All fields of a session, in both dialects."""
    transcripts = _transcription_table(model)

    def transcription(now: Settings, value: Any, param: str, errors: Errors) -> Settings:
        if value is None:
            return replace(now, transcription=None)
        found = merge(now.transcription or Transcription(), value, transcripts, param, errors)
        detection = None if _leaves_ends_to_the_client(now, value) else now.detection
        return replace(now, transcription=found, detection=detection)

    def voice(value: Any, param: str) -> str:
        return check_voice(model.manifest.tasks.chat, _voice(value, param), param)

    heard: dict[str, Field[Settings]] = {
        "format": _heard,
        "turn_detection": _detection,
        "transcription": transcription,
        "noise_reduction": ignored,  # the model hears noise as it is, and session.updated says null
    }
    said: dict[str, Field[Settings]] = {
        "format": _said,
        "voice": setting("voice", voice),
        "speed": only(None, 1, 1.0),
    }
    return {
        "type": setting("kind", one_of("realtime", "transcription")),
        "model": _model_field(model),
        "instructions": _instructions,
        "output_modalities": setting("output", output_of),
        "audio": part({"input": part(heard), "output": part(said)}),
        "max_output_tokens": setting("most", tokens),
        "tools": setting("tools", tools),
        "tool_choice": setting("tool_choice", tool_choice),
        "parallel_tool_calls": ignored,  # one call is made at a time, which every client can take
        "tracing": ignored,  # traces go to OpenAI's dashboard, and nothing leaves this machine
        "truncation": only(None, "auto"),
        "include": only(None, []),
        "prompt": only(None),
        "reasoning": ignored,  # the model does not reason
        "id": ignored,  # what the server says of the session, sent back
        "object": ignored,
        "expires_at": ignored,
        "client_secret": ignored,
        # The names from before 2025
        "modalities": setting("output", output_of),
        "voice": said["voice"],
        "speed": said["speed"],
        "input_audio_format": heard["format"],
        "output_audio_format": said["format"],
        "input_audio_transcription": heard["transcription"],
        "input_audio_noise_reduction": heard["noise_reduction"],
        "turn_detection": heard["turn_detection"],
        "max_response_output_tokens": setting("most", tokens),
        "temperature": only(None),
    }


def _instructions(now: Settings, value: Any, param: str, _errors: Errors) -> Settings:
    return replace(now, instructions=None if value is None else text(value, param) or None)


def _heard(now: Settings, value: Any, param: str, errors: Errors) -> Settings:
    return replace(now, heard=sound_format(now.heard, value, param, errors))


def _said(now: Settings, value: Any, param: str, errors: Errors) -> Settings:
    return replace(now, said=sound_format(now.said, value, param, errors))


def _noise_reduction(now: Settings, value: Any, param: str, _errors: Errors) -> Settings:
    """The microphones that OpenAI cleans sound for. Here sound is heard as it comes, and null is shown again."""
    if isinstance(value, dict) and value.get("type") in (None, *_MICROPHONES):
        return now
    return _NO_NOISE_REDUCTION(now, value, param, _errors)


def _voice(value: Any, param: str) -> str | VoiceId:
    if isinstance(value, dict):
        return VoiceId(text(value.get("id"), param))
    return text(value, param)
