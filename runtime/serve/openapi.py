"""The OpenAPI document of the server. Its schemas are those of the structs that check requests."""

from __future__ import annotations

from typing import Any

import msgspec

from voxrill.runtime.bundle.manifest import Task
from voxrill.runtime.serve.fields import HINTS, NO_EFFECT, ONLY_AT, EndpointName
from voxrill.runtime.serve.names import (
    DEFAULT_VOICE,
    DESCRIPTION,
    OPENAI_MODELS,
    OPENAI_VOICES,
    VoiceId,
    takes_descriptions,
)
from voxrill.runtime.serve.requests import ENDPOINTS, ChatRequest, ResponseRequest, SpeechRequest, TranscriptionRequest
from voxrill.runtime.serve.service import EVENT_STREAM, Service
from voxrill.runtime.serve.sound_formats import FORMATS

_REF = "#/components/schemas/{name}"

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_REFUSALS = {
    "400": "The request is malformed",
    "401": "The API key is missing or wrong",
    "403": "This host or origin has no access",
    "404": "There is no such model",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The content has another type",
    "429": "The server has too much to do, or there were too many wrong keys; Retry-After says when to ask again",
}


def document(service: Service) -> dict[str, Any]:
    """The OpenAPI document of one server."""
    kinds = (SpeechRequest, TranscriptionRequest, ChatRequest, ResponseRequest)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    speech, transcription, chat, response = schemas
    name = service.model.manifest.name
    for kind in kinds:
        components[kind.__name__]["properties"]["model"] = _model(name)
        components[kind.__name__]["properties"] |= _undone(ENDPOINTS[kind])
    components[SpeechRequest.__name__]["properties"]["voice"] = _voice(service.model.manifest.tasks.speak)
    form = components[TranscriptionRequest.__name__]
    form["properties"]["file"] = {"type": "string", "format": "binary"}
    form["required"].append("file")
    sounds = {media: {"schema": {"type": "string", "format": "binary"}} for media, _ in FORMATS.values()}
    anything = {"schema": {"type": "object"}}
    texts: dict[str, Any] = {
        media: {"schema": {"type": "string"}} for media in (EVENT_STREAM, "text/plain", "text/vtt")
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Voxrill", "version": "1", "description": "OpenAI's interfaces to speech, on the device."},
        "paths": {
            "/health": {"get": _get("Whether the server works", {"application/json": anything}, open_=True)},
            "/metrics": {"get": _get("Figures for Prometheus", {"text/plain": {"schema": {"type": "string"}}})},
            "/openapi.json": {"get": _get("This document", {"application/json": anything})},
            "/docs": {"get": _get("This document, to read", {"text/html": {"schema": {"type": "string"}}}, open_=True)},
            "/v1/device": {"get": _get("What answers here, and on what", {"application/json": anything})},
            "/v1/models": {"get": _get("The model, as a list of one", {"application/json": anything})},
            "/v1/models/{name}": {
                "get": _get("The model of that name", {"application/json": anything})
                | {
                    "parameters": [
                        {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "example": name}}
                    ]
                }
            },
            "/v1/audio/voices": {
                "get": _get("The voices, and what OpenAI's names of voices mean", {"application/json": anything})
            },
            "/v1/audio/speech": {
                "post": _post("Text to sound", "application/json", speech, sounds | {EVENT_STREAM: texts[EVENT_STREAM]})
            },
            "/v1/audio/transcriptions": {
                "post": _post(
                    "Sound to text", "multipart/form-data", transcription, {"application/json": anything} | texts
                )
            },
            "/v1/audio/translations": {
                "post": _post(
                    "Refused: the model writes what it hears in the language that was spoken",
                    "multipart/form-data",
                    transcription,
                    {"application/json": anything},
                )
            },
            "/v1/chat/completions": {
                "post": _post(
                    "A question, spoken or written, to an answer, spoken or written",
                    "application/json",
                    chat,
                    {"application/json": anything, EVENT_STREAM: texts[EVENT_STREAM]},
                )
            },
            "/v1/responses": {
                "post": _post(
                    "A question, spoken or written, to a written answer",
                    "application/json",
                    response,
                    {"application/json": anything, EVENT_STREAM: texts[EVENT_STREAM]},
                )
            },
        },
        "components": {
            "schemas": components | {"Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _model(name: str) -> dict[str, Any]:
    served = {"enum": [name, None, ""]}
    theirs = {"type": "string", "pattern": f"^{OPENAI_MODELS.pattern}$"}
    return {"anyOf": [served, theirs], "description": "Every name of OpenAI's, and no name, mean the served model."}


def _voice(task: Task) -> dict[str, Any]:
    names = list(dict.fromkeys((*task.voices, DEFAULT_VOICE, *OPENAI_VOICES)))
    either: list[dict[str, Any]] = [{"enum": [*names, None, ""]}, {"$ref": _REF.format(name=VoiceId.__name__)}]
    if takes_descriptions(task):
        either.append({"type": "string", "maxLength": DESCRIPTION})
    return {"anyOf": either, "description": "GET /v1/audio/voices says which of ours OpenAI's names mean."}


def _undone(endpoint: EndpointName) -> dict[str, Any]:
    """The fields that do nothing here, each with what it may be."""
    found: dict[str, Any] = {
        name: {"description": f"It changes no answer: {reason}."} for name, reason in NO_EFFECT[endpoint].items()
    }
    found |= {name: {"description": f"A hint without effect. {hint.told}"} for name, hint in HINTS[endpoint].items()}
    for name, rule in ONLY_AT[endpoint].items():
        found[name] = {"description": rule.told, "enum": [None, *rule.values]}
    return found


def _get(what: str, content: dict[str, Any], open_: bool = False) -> dict[str, Any]:
    return {"summary": what, "responses": _responses(content)} | ({"security": []} if open_ else {})


def _post(what: str, media: str, schema: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {media: {"schema": schema}}}
    return {"summary": what, "requestBody": body, "responses": _responses(content)}


def _responses(content: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}}
    refusals = {status: {"description": why, "content": error} for status, why in _REFUSALS.items()}
    return {"200": {"description": "What was asked for", "content": content}} | refusals
