"""JSON or TOML that does not fit its struct, in words: the field, what is wrong with it, and what it may be.

In: msgspec's error, and the struct. Out: a sentence and the name of the field. msgspec's own messages are written for
programmers: "Expected `array` of length >= 1 - at `$.messages`".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

_PATH = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")

_CAME = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""What msgspec calls a value's kind, in plain words."""

_LONGEST = 60
"""Characters of a client's value that are shown."""


def explained(error: Exception, kind: Any) -> tuple[str, str | None]:
    """What is wrong and what to send, in two sentences; and the field's name, None for the whole body.

    Args:
        error: raised by msgspec when it decoded a body.
        kind: the struct that the body should be, or several as a union.
    """
    if isinstance(error, RecursionError):
        return "The body is nested too deeply. Send fewer lists within lists.", None
    if isinstance(error, UnicodeDecodeError) or "UTF-8" in str(error):  # msgspec's own error since 0.23
        return "The body is not UTF-8. Send JSON in UTF-8.", None
    if not isinstance(error, msgspec.ValidationError):
        wrong = re.sub(r"^JSON is malformed: ", "", str(error))
        return f"The body is not JSON ({wrong[:1].lower()}{wrong[1:]}). Send a JSON object.", None
    found = _PATH.search(str(error))
    path = found[1] if found else ""
    return _explained(_PATH.sub("", str(error)), path, inspect.type_info(kind))


def _explained(message: str, path: str, root: inspect.Type) -> tuple[str, str | None]:
    if message.startswith("Object "):  # it lacks a field, or has one too many: the path names the object
        field, missing = _quoted(message), "missing" in message
        name, known = f"{path}.{field}".lstrip("."), [*_fields(_at(root, path))]
        if missing:
            return f"The field {name} is missing. Give {_allowed(_at(root, f'{path}.{field}'))}.", name
        close = get_close_matches(field, known, 1)
        remedy = f"Perhaps {close[0]} is meant." if close else "Leave it out."
        return f"There is no field {field[:_LONGEST]!r}. {remedy}", name[:_LONGEST]
    types = _at(root, path)
    wrong = _wrong(message)
    if not path:
        return f"The body {wrong}. Send a JSON object.", None
    name = path.lstrip(".")
    return f"The field {name} {wrong}. Give {_allowed(types)}.", name


def _quoted(message: str) -> str:
    return message.partition("`")[2].rpartition("`")[0]


def _wrong(message: str) -> str:
    """What is wrong with a value."""
    if message.startswith("Invalid"):  # an enum's or a tag's value
        return f"is {message.partition('value ')[2][:_LONGEST]}"
    if match := re.search(r"got `(\w+)`", message):
        return f"is {_CAME.get(match[1], match[1])}"
    if match := re.search(r"`array` of length (>=|<=) (\d+)", message):
        return f"has {'fewer' if match[1] == '>=' else 'more'} than {match[2]} {_entries(int(match[2]))}"
    if match := re.search(r"`str` of length (>=|<=) (\d+)", message):
        return f"is {'shorter' if match[1] == '>=' else 'longer'} than {match[2]} characters"
    if match := re.search(r"(>=|<=|>|<) (\S+)$", message):
        return {"<=": "is more than", ">=": "is less than", ">": "is not more than", "<": "is not less than"}[
            match[1]
        ] + f" {_number(match[2])}"
    if "matching regex" in message:
        return "has characters that it may not have"
    return "is too large a number" if "out of range" in message else "is of another kind"


def _number(text: str) -> str:
    return text.removesuffix(".0")


def _entries(count: int) -> str:
    return "entry" if count == 1 else "entries"


def _at(root: inspect.Type, path: str) -> list[inspect.Type]:
    """The types that the value at a path may have."""
    types = [*_plain([root])]
    for step in _STEP.finditer(path):
        types = [*_plain(_field(types, step[1]) if step[1] else _items(types))]
    return types


def _plain(types: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    """Without unions."""
    for one in types:
        if isinstance(one, inspect.UnionType):
            yield from _plain(one.types)
        else:
            yield one


def _structs(types: Iterable[inspect.Type]) -> Iterator[inspect.StructType]:
    for one in types:
        inner = one.type if isinstance(one, inspect.Metadata) else one
        if isinstance(inner, inspect.StructType):
            yield inner


def _field(types: list[inspect.Type], name: str) -> Iterator[inspect.Type]:
    tags = [one.tag for one in _structs(types) if one.tag_field == name]
    if tags:
        yield inspect.LiteralType(tuple(dict.fromkeys(tag for tag in tags if tag is not None)))
    for struct in _structs(types):
        yield from (field.type for field in struct.fields if field.encode_name == name)


def _fields(types: list[inspect.Type]) -> Iterator[str]:
    for struct in _structs(types):
        yield from (field.encode_name for field in struct.fields)


def _items(types: list[inspect.Type]) -> Iterator[inspect.Type]:
    for one in types:
        inner = one.type if isinstance(one, inspect.Metadata) else one
        if isinstance(inner, inspect.ListType | inspect.VarTupleType):
            yield inner.item_type
        elif isinstance(inner, inspect.DictType):
            yield inner.value_type


def _allowed(types: list[inspect.Type]) -> str:
    """What a value may be."""
    return " or ".join(dict.fromkeys(_words(one) for one in types if not isinstance(one, inspect.NoneType)))


def _words(one: Any) -> str:
    """One type in plain words. The description of a pattern says what it means."""
    if isinstance(one, inspect.Metadata):
        meant = (one.extra_json_schema or {}).get("description")
        return str(meant) if meant and getattr(one.type, "pattern", None) else _words(one.type)
    if isinstance(one, inspect.LiteralType):
        names = ", ".join(map(str, one.values))
        return names if len(one.values) == 1 else f"one of: {names}"
    if isinstance(one, inspect.IntType | inspect.FloatType):
        kind = "a whole number" if isinstance(one, inspect.IntType) else "a number"
        if one.gt is not None or one.lt is not None:
            limits = {"above": one.gt, "at least": one.ge, "below": one.lt, "at most": one.le}
            known = [f"{word} {_number(str(limit))}" for word, limit in limits.items() if limit is not None]
            return f"{kind} {' and '.join(known)}"
        return kind + _bounds(one.ge, one.le, " from {} to {}", " of at least {}", " of at most {}")
    if isinstance(one, inspect.StrType):
        return "a text" + _counted(one, "characters")
    if isinstance(one, inspect.ListType | inspect.VarTupleType):
        return f"a list{_counted(one, 'entries')}, each entry {_allowed([*_plain([one.item_type])])}"
    if isinstance(one, inspect.BoolType):
        return "true or false"
    return "an object" if isinstance(one, inspect.StructType | inspect.DictType) else "a value"


def _counted(one: Any, what: str) -> str:
    phrases = (f" of {{}} to {{}} {what}", f" of at least {{}} {what}", f" of at most {{}} {what}")
    return _bounds(one.min_length or None, one.max_length, *phrases)


def _bounds(least: float | None, most: float | None, both: str, only_least: str, only_most: str) -> str:
    """A phrase for the bounds that there are; a bound of 2⁶³ is none that a person needs to know."""
    if most is not None and most >= (1 << 63) - 1:
        most = None
    if least is not None and least == most:
        return f" that is {_number(str(least))}"
    if least is not None and most is not None:
        return both.format(_number(str(least)), _number(str(most)))
    if least is not None:
        return only_least.format(_number(str(least)))
    return "" if most is None else only_most.format(_number(str(most)))
