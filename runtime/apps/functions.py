"""Functions that a client declares, as a grammar: every call that can be made, and the words or the syntax of each.

In: OpenAI's function objects, with a JSON schema for the parameters. Out: sentences, each with the call it means. Two
keys beside OpenAI's say how a call is spoken, in the syntax of a file of commands (see `grammar`):

    {
        "name": "set_lights",
        "description": "Turns the lights of a room on or off.",
        "phrases": ["turn {state} the {room} lights", "{room} lights {state}"],
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "enum": ["kitchen", "living room"]},
                "state": {"type": "boolean", "words": {"true": ["on"], "false": ["off", "out"]}}
            },
            "required": ["room", "state"]
        }
    }

All possible calls are listed in advance, so the arguments always fit the schema. For that, the number of a parameter's
values must be known: an enum, a const, a boolean, or an integer with minimum and maximum.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voxrill.runtime.apps.grammar import (
    LONGEST_SENTENCE,
    Call,
    Command,
    CommandSentence,
    check_phrase,
    sentences,
    slots_in,
)
from voxrill.runtime.apps.slots import Forms, Value, said
from voxrill.runtime.errors import UsageError
from voxrill.runtime.malformed import explained

MOST_FUNCTIONS = 32
"""Functions of a client at most."""

MOST_CALLS = 5_000
"""Possible calls at most, of all functions together."""

MOST_PARAMETERS = 64
"""Parameters of one function at most."""

LONGEST_CALL = 1_000
"""Characters of a call in writing at most. The tree of calls takes as much memory for each as for the longest."""

Name = Annotated[
    str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$", description="1 to 64 letters without accents, digits, - and _")
]


class Function(msgspec.Struct, frozen=True):
    """A function. phrases: the ways to say it; a function without phrases is written as `written_call` has it."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    phrases: list[str] = []

    entry: ClassVar[str] = "a call"
    entries: ClassVar[str] = "ways to call the functions"

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"the function {self.name}"

    def part(self, name: str) -> str:
        """What errors call one of its parameters."""
        return f"the parameter {name} of {self.title}"

    def listed(self) -> str:
        """The function as a prompt shows it: JSON."""
        return json.dumps(
            {"name": self.name, "description": self.description or "", "parameters": self.parameters or {}}
        )


class Schema(Function, frozen=True):
    """A schema of JSON objects, which are listed as the calls of a function are."""

    entry: ClassVar[str] = "an object"
    entries: ClassVar[str] = "objects that fit the schema"

    @property
    def title(self) -> str:
        """See `Function`."""
        return f"the schema {self.name}"

    def part(self, name: str) -> str:
        """See `Function`."""
        return f"the property {name} of {self.title}"


class _Object(msgspec.Struct, forbid_unknown_fields=True, rename={"schema": "$schema", "defs": "$defs"}):
    """A schema of parameters. Calls have listed parameters only, so `additionalProperties` changes nothing."""

    type: Literal["object"] = "object"
    properties: dict[str, Any] = {}
    required: list[str] = []
    additionalProperties: Any = None
    description: str = ""
    title: str = ""
    schema: str = ""
    defs: dict[str, Any] = {}


class _Property(msgspec.Struct, forbid_unknown_fields=True):
    """A parameter's schema. words: the words for each value; the keys are the values as JSON, or as text."""

    type: Literal["string", "integer", "boolean"] | UnsetType = UNSET
    enum: Annotated[list[str | bool | int], Meta(min_length=1)] | UnsetType = UNSET
    const: str | bool | int | UnsetType = UNSET
    minimum: int | UnsetType = UNSET
    maximum: int | UnsetType = UNSET
    multipleOf: Annotated[int, Meta(ge=1)] = 1
    words: dict[str, list[str]] = {}
    description: str = ""
    title: str = ""
    default: Any = None
    examples: Any = None


_Schema = TypeVar("_Schema", _Object, _Property)


class Parameter(msgspec.Struct, frozen=True):
    """A function's parameter: its values, the words for each, and whether every call has it."""

    values: list[Value]
    words: dict[str, list[str]]
    required: bool
    fixed: bool


def parameters_of(function: Function) -> dict[str, Parameter]:
    """The function's parameters by name.

    Raises:
        UsageError: the values of a parameter cannot be listed; the message names function and parameter.
    """
    where = f"the parameters of {function.title}"
    schema = _converted(function.parameters or {}, _Object, where)
    for name in schema.required:
        if name not in schema.properties:
            raise UsageError(f"{where} require {name!r}, which is not one of them", "Add it to the properties")
    if len(schema.properties) > MOST_PARAMETERS:
        raise UsageError(f"{where} are {len(schema.properties)}", f"Give {MOST_PARAMETERS} at most")
    found: dict[str, Parameter] = {}
    for name, declared in schema.properties.items():
        found[name] = _parameter(_inlined(declared, schema.defs), function.part(name), name in schema.required)
        if sum(len(one.values) for one in found.values()) > MOST_CALLS:
            raise UsageError(f"{where} have more than {MOST_CALLS} values", "Give them fewer values")
    return found


def _inlined(declared: Any, defs: Mapping[str, Any]) -> Any:
    """A parameter's schema, with the definition that it refers to in its place: pydantic writes enums so."""
    reference = declared.get("$ref") if isinstance(declared, dict) else None
    definition = defs.get(reference.removeprefix(_DEFS)) if isinstance(reference, str) else None
    if not isinstance(definition, dict):
        return declared
    return definition | {key: value for key, value in declared.items() if key != "$ref"}


_DEFS = "#/$defs/"


def _parameter(declared: Any, where: str, required: bool) -> Parameter:
    schema = _converted(declared, _Property, where)
    values = _values(schema, where)
    keys = [_key(value) for value in values]
    # Two comparisons, as 1 == True in Python and "1" is not 1 in JSON.
    if len({json.dumps(value) for value in values}) < len(values) or len(set(values)) < len(values):
        raise UsageError(f"{where} has a value twice", "Leave one out")
    for key, words in schema.words.items():
        if key not in keys:
            raise UsageError(f"{where} has words for {key!r}, which is not a value of it", "Leave them out")
        if not words or not all(form.strip() and "{" not in form for form in words):
            raise UsageError(f"{where} has no words for {key!r}", "Write words that can be said")
    return Parameter(values, schema.words, required, schema.const is not UNSET)


def _values(schema: _Property, where: str) -> list[Value]:
    if schema.const is not UNSET:
        values: list[Value] = [schema.const]
    elif schema.enum is not UNSET:
        values = list(schema.enum)
    elif schema.type == "boolean":
        values = [True, False]
    elif schema.type == "integer":
        return _integers(schema, where)
    else:
        raise UsageError(f"{where} may be any text", "Give it an enum of the values that it may have")
    if schema.minimum is not UNSET or schema.maximum is not UNSET or schema.multipleOf != 1:
        raise UsageError(f"{where} has an enum or const, and bounds", "Leave the bounds out")
    kinds = {"string": str, "integer": int, "boolean": bool}
    if schema.type is not UNSET and any(type(value) is not kinds[schema.type] for value in values):
        raise UsageError(f"{where} has a value that is not of the type {schema.type}", "Leave it out")
    return values


def _integers(schema: _Property, where: str) -> list[Value]:
    if schema.minimum is UNSET or schema.maximum is UNSET:
        raise UsageError(f"{where} may be any integer", "Give it a minimum and a maximum")
    step = schema.multipleOf
    found = range(-(-schema.minimum // step) * step, schema.maximum + 1, step)  # -(-a // b) rounds up
    if not found:
        raise UsageError(f"{where} has no values", "Give a minimum that is at most the maximum")
    if found[-1] - found[0] >= MOST_CALLS * step:
        raise UsageError(f"{where} has more than {MOST_CALLS} values", "Give narrower bounds, or a larger multipleOf")
    return list(found)


def _converted(value: Any, kind: type[_Schema], where: str) -> _Schema:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{where} cannot become a grammar. {explained(error, kind)[0]}",
            "Give flat objects of enum, const, boolean, and integer with minimum and maximum",
        ) from None


def _key(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def spoken_calls(function: Function, most: int) -> Iterator[CommandSentence]:
    """Every way to say a call, `most` of them at most.

    Raises:
        UsageError: there are more, or a phrase does not say a parameter that is required.
    """
    if len(function.phrases) > most:
        raise UsageError(f"the function {function.name} has more than {most} phrases", "Give it fewer")
    parameters = parameters_of(function)
    always = {name: one.values[0] for name, one in parameters.items() if one.fixed and one.required}
    told = {slot for phrase in function.phrases for slot in slots_in(phrase)}
    slots = {name: _forms(name, function, one) for name, one in parameters.items() if name in told}
    for phrase in function.phrases:
        _check(function, phrase, parameters, always, slots)
    for sentence in sentences({function.name: Command(function.phrases)}, slots, most):
        values = always | dict(sentence.call.slots)
        arguments = {name: values[name] for name in parameters if name in values}
        yield CommandSentence(sentence.words, Call(function.name, arguments), sentence.phrase)


def _check(
    function: Function, phrase: str, parameters: Mapping[str, Parameter], always: Mapping[str, Value], slots: Any
) -> None:
    if len(phrase) > LONGEST_SENTENCE:
        raise UsageError(
            f"the function {function.name} has a phrase of more than {LONGEST_SENTENCE} characters", "Shorten it"
        )
    where = f"the function {function.name} has the phrase {phrase!r}, which"
    if not phrase.strip():
        raise UsageError(f"{where} is empty", "Leave it out")
    missing = [name for name in slots_in(phrase) if name not in parameters]
    if missing:
        raise UsageError(f"{where} says {missing[0]!r}, which is not a parameter", "Add it to the properties")
    for name, parameter in parameters.items():
        if parameter.required and name not in always and name not in slots_in(phrase):
            raise UsageError(f"{where} does not say {name!r}", f"Say {{{name}}} in it, or do not require it")
    check_phrase(function.name, phrase, slots)


def _forms(name: str, function: Function, parameter: Parameter) -> Forms:
    try:
        return {value: parameter.words.get(_key(value)) or _said(value) for value in parameter.values}
    except UsageError as error:
        raise UsageError(
            f"the parameter {name} of the function {function.name}: {error.message}", error.remedy
        ) from None


def _said(value: Value) -> list[str]:
    return [_key(value)] if isinstance(value, bool) else said(value)


def written_calls(function: Function, most: int) -> Iterator[CommandSentence]:
    """Every call as it is written, `most` of them at most.

    Raises:
        UsageError: there are more.
    """
    return _listed(function, most, written_call)


def json_objects(schema: Schema) -> Iterator[CommandSentence]:
    """Every object that fits a schema, as JSON.

    Raises:
        UsageError: there are too many.
    """
    return _listed(schema, MOST_CALLS, lambda call: json.dumps(call.slots))


def _listed(function: Function, most: int, write: Callable[[Call], str]) -> Iterator[CommandSentence]:
    parameters = parameters_of(function)
    choices: list[list[tuple[Value, ...]]] = [
        # An empty tuple stands for a parameter that is left out: None could be confused with a value.
        [(value,) for value in one.values] + ([] if one.required else [()])
        for one in parameters.values()
    ]
    if math.prod(map(len, choices)) > most:
        raise UsageError(
            f"there are more than {MOST_CALLS} {function.entries}; {function.name} alone has "
            f"{math.prod(map(len, choices))}",
            "Give its parameters fewer values",
        )
    for chosen in product(*choices):
        call = Call(function.name, {name: one[0] for name, one in zip(parameters, chosen, strict=True) if one})
        written = write(call)
        if len(written) > LONGEST_CALL:
            raise UsageError(
                f"{function.entry} of {function.title} has more than {LONGEST_CALL} characters", "Shorten its values"
            )
        yield CommandSentence(written, call, f"{function.name}(...)")


def written_call(call: Call) -> str:
    """A call as a model writes it: `set_lights(room="kitchen", state=true)`, values as in JSON."""
    arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in call.slots.items())
    return f"{call.command}({arguments})"
