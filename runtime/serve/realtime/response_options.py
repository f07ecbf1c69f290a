"""response.create: the options of one response.

In: the session's settings, and the client's object. Out: the settings of this response, and what else it asks for. All
that the object does not name is as in the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.realtime.merging import Errors, Field, merge, part, refused, setting, text
from voxrill.runtime.serve.realtime.messages import ItemReference, MessageItem, converted
from voxrill.runtime.serve.realtime.session_update import session_fields
from voxrill.runtime.serve.realtime.settings import Settings

_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512
"""Pairs of a response's metadata, and characters of their two halves: OpenAI's limits."""

_MOST_INPUT = 64
"""Items that a response may bring with it."""

_AS_IN_SESSION = (
    "instructions",
    "output_modalities",
    "max_output_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "prompt",
    "reasoning",
    # The names from before 2025
    "modalities",
    "voice",
    "output_audio_format",
    "max_response_output_tokens",
    "temperature",
)

Input = MessageItem | ItemReference


@dataclass(frozen=True)
class ResponseOptions:
    """Options of one response.

    metadata: is sent back with the response. in_conversation: whether the response becomes part of the conversation.
    input: what is answered instead of the conversation, None for the conversation.
    """

    settings: Settings
    metadata: dict[str, str] | None = None
    in_conversation: bool = True
    input: tuple[Input, ...] | None = None


def response_options(session: Settings, given: Any, model: Engine) -> ResponseOptions:
    """The options that a client gives.

    Raises:
        ApiError: one of them cannot be. Nothing is answered then.
    """
    now, errors = ResponseOptions(session), list[ApiError]()
    if given is not None:
        now = merge(now, given, _fields(model), "response", errors)
    if errors:
        raise errors[0]
    if now.input is not None and now.in_conversation:
        raise ApiError(
            400,
            'A response with input of its own is not part of the conversation. Add "conversation": "none".',
            "invalid_value",
            "response.input",
        )
    return now


def _fields(model: Engine) -> Mapping[str, Field[ResponseOptions]]:
    fields = session_fields(model)
    said = {"voice": _of_session(fields["voice"]), "format": _of_session(fields["output_audio_format"])}
    return {
        **{name: _of_session(fields[name]) for name in _AS_IN_SESSION},
        "audio": part({"output": part(said)}),
        "metadata": setting("metadata", _metadata),
        "conversation": _conversation,
        "input": _input,
    }


def _of_session(field: Field[Settings]) -> Field[ResponseOptions]:
    """A field of the session; null means what the session says."""

    def change(now: ResponseOptions, value: Any, param: str, errors: Errors) -> ResponseOptions:
        return now if value is None else replace(now, settings=field(now.settings, value, param, errors))

    return change


def _metadata(value: Any, param: str) -> dict[str, str]:
    works = (
        f"It must be an object of strings: {_MOST_PAIRS} at most, keys of {_LONGEST_KEY} and values of "
        f"{_LONGEST_VALUE} characters at most."
    )
    if not isinstance(value, dict) or len(value) > _MOST_PAIRS:
        raise refused(param, value, works)
    for key, one in value.items():
        if not isinstance(one, str) or len(key) > _LONGEST_KEY or len(one) > _LONGEST_VALUE:
            raise refused(param, value, works)
    return value


def _conversation(now: ResponseOptions, value: Any, param: str, _errors: Errors) -> ResponseOptions:
    if value is not None and text(value, param) not in ("auto", "none"):
        raise refused(param, value, 'It must be "auto" or "none".')
    return replace(now, in_conversation=value != "none")


def _input(now: ResponseOptions, value: Any, param: str, _errors: Errors) -> ResponseOptions:
    if value is None:
        return replace(now, input=None)
    if isinstance(value, list) and len(value) > _MOST_INPUT:
        raise refused(param, value, f"It may have {_MOST_INPUT} items at most.")
    return replace(now, input=tuple(converted(value, list[Input], param)))
