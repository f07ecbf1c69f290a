"""Every field of OpenAI's requests that the structs in `requests` do not have, and what is done with each.

Nothing that a client asks for is ignored silently. There are four kinds of fields:

- A field that does what it says is in a struct.
- `NO_EFFECT`: a field that changes no answer here, with the reason.
- `HINTS`: a hint that this model cannot follow. The answer comes, and a header says so.
- `ONLY_AT`: a field that is taken only at the values that ask for nothing. Any other value is refused with a sentence
  that says what works.

null always means absent. A test compares this table with the fields that OpenAI's SDK knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from voxrill.runtime.serve.api_errors import ApiError

EndpointName = Literal["chat", "response", "transcription", "speech"]

_CACHE = "the server keeps the states of conversations by itself"
_CALLER = "it names the caller"

NO_EFFECT: Mapping[EndpointName, Mapping[str, str]] = {
    "chat": {
        "metadata": "it belongs to stored answers, and none are stored",
        "parallel_tool_calls": "an answer makes one call at most",
        "prediction": "it would only save time",
        "prompt_cache_key": _CACHE,
        "prompt_cache_options": _CACHE,
        "prompt_cache_retention": _CACHE,
        "safety_identifier": _CALLER,
        "user": _CALLER,
    },
    "response": {
        "context_management": "the server forgets the oldest turns by itself",
        "max_tool_calls": "an answer makes one call at most",
        "metadata": "it belongs to stored answers, and none are stored",
        "parallel_tool_calls": "an answer makes one call at most",
        "prompt_cache_key": _CACHE,
        "prompt_cache_options": _CACHE,
        "prompt_cache_retention": _CACHE,
        "safety_identifier": _CALLER,
        "stream_options": "they say how a stream is padded",
        "truncation": "the server forgets the oldest turns by itself",
        "user": _CALLER,
    },
    "transcription": {},
    "speech": {},
}
"""Fields that are taken at any value because they change no answer here, and why."""


@dataclass(frozen=True)
class OnlyAt:
    """A field that is followed at some values only. told: what a client hears about any other value."""

    values: tuple[Any, ...]
    told: str


_REASONS = OnlyAt(("none", {}), "This model does not reason.")
_STORED = OnlyAt((False,), "Answers are not stored.")
_TIER = OnlyAt(("auto", "default"), "A device has one tier.")

HINTS: Mapping[EndpointName, Mapping[str, OnlyAt]] = {
    "chat": {
        "reasoning_effort": _REASONS,
        "service_tier": _TIER,
        "store": _STORED,
        "verbosity": OnlyAt(("medium",), "Ask for short answers in the prompt."),
    },
    "response": {"reasoning": _REASONS, "service_tier": _TIER, "store": _STORED},
    "transcription": {
        "keywords": OnlyAt(([],), "This model cannot be given words to listen for."),
        "prompt": OnlyAt(("",), "This model writes what it hears, and takes no prompt."),
    },
    "speech": {},
}
"""Wishes without which an answer is still of use. It comes at any value, and a header says what has no effect."""

_PENALTY = OnlyAt((0,), "This model draws its words without penalties. Leave it out, or send 0.")
_SPEAKERS = OnlyAt(([],), "This server does not tell speakers apart. Leave it out.")

ONLY_AT: Mapping[EndpointName, Mapping[str, OnlyAt]] = {
    "chat": {
        "frequency_penalty": _PENALTY,
        "function_call": OnlyAt(("none", "auto"), "This is the old name. Send tool_choice."),
        "functions": OnlyAt(([],), "This is the old name. Send tools."),
        "logit_bias": OnlyAt(({},), "Words cannot be made likelier or less likely. Leave it out."),
        "logprobs": OnlyAt((False,), "Probabilities are not given with answers. Leave it out, or send false."),
        "moderation": OnlyAt((), "This server has no moderation model. Leave it out."),
        "n": OnlyAt((1,), "A request gets one answer. Send it again, with another seed, for another answer."),
        "presence_penalty": _PENALTY,
        "top_logprobs": OnlyAt((0,), "Probabilities are not given with answers. Leave it out, or send 0."),
        "web_search_options": OnlyAt((), "This server does not look into the web. Leave it out."),
    },
    "response": {
        "access_programs": OnlyAt((), "This server has none. Leave it out."),
        "background": OnlyAt((False,), "An answer is made at once. Leave it out, or send false."),
        "background_options": OnlyAt((), "An answer is made at once. Leave it out."),
        "conversation": OnlyAt((), "Conversations are not stored. Send the earlier messages in input."),
        "image": OnlyAt((), "This model makes no images. Leave it out."),
        "include": OnlyAt(([],), "There is nothing to include. Leave it out."),
        "moderation": OnlyAt((), "This server has no moderation model. Leave it out."),
        "previous_response_id": OnlyAt((), "Answers are not stored. Send the earlier messages in input."),
        "prompt": OnlyAt((), "Prompts are not stored. Send the text in instructions."),
        "top_logprobs": OnlyAt((0,), "Probabilities are not given with answers. Leave it out, or send 0."),
    },
    "transcription": {
        "include": OnlyAt(([],), "Probabilities are not given with transcripts. Leave it out."),
        "known_speaker_names": _SPEAKERS,
        "known_speaker_references": _SPEAKERS,
    },
    "speech": {},
}
"""Fields that are taken only at values that ask for nothing."""

_SHOWN = 60
"""Characters of a client's value that are shown to it."""

_LONGEST = 1000
"""Bytes of a value that are compared: the values in the table are shorter."""


def undone(endpoint: EndpointName) -> list[str]:
    """The fields of an endpoint that do nothing here."""
    return [*NO_EFFECT[endpoint], *HINTS[endpoint], *ONLY_AT[endpoint]]


def check_undone(
    endpoint: EndpointName, given: Mapping[str, msgspec.Raw | str | list[str]], warn: Callable[[str], None]
) -> None:
    """Refuse what a client asks for and does not get.

    Args:
        endpoint: the endpoint that was asked.
        given: the fields in `undone` that came: JSON that is not decoded yet, or a form's texts.
        warn: takes a sentence about each hint that is not followed.

    Raises:
        ApiError: a field has a value that asks for something.
    """
    for name, value in given.items():
        rule = ONLY_AT[endpoint].get(name) or HINTS[endpoint].get(name)
        if rule is None:
            continue
        plain = _decoded(value) if isinstance(value, msgspec.Raw) else value
        if plain is None or any(_same(plain, one) for one in rule.values):
            continue
        if name in HINTS[endpoint]:
            warn(f"{name} has no effect. {rule.told}")
        else:
            raise ApiError(400, f"The field {name} cannot be {_shown(plain)}. {rule.told}", "unsupported_value", name)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else "used like this"


def _decoded(value: msgspec.Raw) -> Any:
    """The value of JSON; its text if that is long, or a number that Python cannot hold."""
    text = bytes(value)
    try:
        return msgspec.json.decode(text if len(text) <= _LONGEST else b'"a long value"')
    except msgspec.ValidationError:
        return text.decode()


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; in Python False == 0, too."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
