"""Merging what a client sends into what is in force, field by field.

In: frozen settings, and an object of JSON. Out: the settings with every field that can be, and an error for each that
cannot: it names the field and the values that work. A field that is absent stays as it is. Null means the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar

from voxrill.runtime.serve.api_errors import ApiError

T = TypeVar("T")

Errors = list[ApiError]

Field = Callable[[T, Any, str, Errors], T]
"""Takes the settings, the field's value, its name as a path, and the errors so far; returns the settings."""

Reader = Callable[[Any, str], Any]
"""Takes a value and its path; returns what is set.

Raises:
    ApiError: the value cannot be.
"""

_MOST_ERRORS = 16
"""Errors that are told of one event: each is an answer of its own."""

_SHOWN = 80
"""Characters of a client's value or name that are sent back."""


def refused(param: str, value: Any, works: str) -> ApiError:
    """The error of a value that cannot be. works: the values that can, as a sentence."""
    return ApiError(400, f"{param} cannot be {_short(value)}. {works}", "invalid_value", param)


def merge(now: T, given: Any, table: Mapping[str, Field[T]], param: str, errors: Errors) -> T:
    """`now` with the fields of the object `given`, each read as `table` says. What cannot be is added to `errors`."""
    if not isinstance(given, dict):
        errors.append(refused(param, given, "It must be an object."))
        return now
    for name, value in given.items():
        path = f"{param}.{name[:_SHOWN]}"
        if len(errors) > _MOST_ERRORS:
            return now
        if name not in table:
            known = ", ".join(table)
            errors.append(ApiError(400, f"There is no setting {path}. There are: {known}", "unknown_parameter", path))
            continue
        try:
            now = table[name](now, value, path, errors)
        except ApiError as error:
            errors.append(error)
    return now


def setting(name: str, read: Reader) -> Field[Any]:
    """The field `name` of the settings; null gives its default."""

    def change(now: Any, value: Any, param: str, _errors: Errors) -> Any:
        return replace(now, **{name: _default(now, name) if value is None else read(value, param)})

    return change


def part(table: Mapping[str, Field[T]]) -> Field[T]:
    """An object whose fields are settings like any others; null gives none of them."""

    def change(now: T, value: Any, param: str, errors: Errors) -> T:
        return now if value is None else merge(now, value, table, param, errors)

    return change


def only(*works: Any) -> Field[Any]:
    """A field that changes nothing here, and whose only values are these."""
    values = " or ".join(_short(value) for value in works)

    def change(now: Any, value: Any, param: str, _errors: Errors) -> Any:
        if value not in works:
            raise refused(param, value, f"This server takes {values}.")
        return now

    return change


def ignored(now: T, _value: Any, _param: str, _errors: Errors) -> T:
    """A field that changes nothing here, whatever it holds."""
    return now


def text(value: Any, param: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise refused(param, value, "It must be a string.")
    return value


def boolean(value: Any, param: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refused(param, value, "It must be true or false.")
    return value


def number(least: float, most: float) -> Reader:
    """A number from `least` to `most`."""

    def read(value: Any, param: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise refused(param, value, f"It must be a number from {least:g} to {most:g}.")
        return float(value)

    return read


def one_of(*works: str) -> Reader:
    """One of these strings."""

    def read(value: Any, param: str) -> str:
        if value not in works:
            raise refused(param, value, f"It must be {' or '.join(works)}.")
        return str(value)

    return read


def _default(settings: Any, name: str) -> Any:
    (found,) = (one for one in fields(settings) if one.name == name)
    return found.default if found.default_factory is MISSING else found.default_factory()


def _short(value: Any) -> str:
    """A value as JSON writes it, cut off where it is long."""
    names = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return names[value]
    shown = repr(value) if isinstance(value, str | int | float) else _kind(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, dict) else "a list" if value else "an empty list"
