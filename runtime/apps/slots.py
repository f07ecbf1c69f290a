"""The slots of a grammar: the values that a command may have in one place, and how each value is said.

In: a slot as the file declares it: a list of values, words for each value, or a range of whole numbers. Out: the forms
of every value.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from voxrill.runtime.apps.numbers import LARGEST, number_words
from voxrill.runtime.errors import UsageError
from voxrill.runtime.malformed import explained

Value = str | int

Declared = list[Value] | dict[str, list[str] | int]
"""A slot in the file: values; or the words for each value; or `from`, `to` and perhaps `step`."""

MOST_VALUES = 10_000
"""Numbers of a range at most."""


Forms = Mapping[Value, list[str]]
"""The values of a slot, and how each may be said."""


class _Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    """The whole numbers from `first` to `last`, every `step`-th."""

    first: int
    last: int
    step: int = 1


def slot_forms(name: str, slot: Declared) -> Forms:
    """The values of the slot `name`, and how each may be said.

    Raises:
        UsageError: it has no values, a value twice, or a value that cannot be said.
    """
    if isinstance(slot, list):
        values: dict[Value, list[str]] = {}
        for value in slot:
            if value in values:
                raise UsageError(f"the slot {name} has the value {value!r} twice", "Leave one out")
            values[value] = said(value)
    elif any(isinstance(value, int) for value in slot.values()):
        values = {value: said(value) for value in _numbers(name, slot)}
    else:
        values = {value: forms for value, forms in slot.items() if isinstance(forms, list)}
    if not values or not all(values.values()):
        raise UsageError(f"the slot {name} has nothing to say", "Give it values, each with words")
    for form in (form for forms in values.values() for form in forms):
        if not form.strip() or "{" in form:
            raise UsageError(f"the slot {name} has {form!r} among its words", "Write words that can be said")
    return values


def _numbers(name: str, slot: dict[str, list[str] | int]) -> range:
    try:
        numbers = msgspec.convert(slot, _Range)
    except msgspec.ValidationError as error:
        wrong, _ = explained(error, _Range)
        raise UsageError(f"the slot {name} is not a range of numbers. {wrong}", "Write { from = 1, to = 60 }") from None
    if numbers.step < 1 or not 0 <= numbers.first <= numbers.last <= LARGEST:
        raise UsageError(
            f"the slot {name} has no numbers from {numbers.first} to {numbers.last} by {numbers.step}",
            f"Give numbers from 0 to {LARGEST}, the smaller one first, and a step of at least 1",
        )
    if (numbers.last - numbers.first) // numbers.step >= MOST_VALUES:
        raise UsageError(f"the slot {name} has more than {MOST_VALUES} numbers", "Give a larger step")
    return range(numbers.first, numbers.last + 1, numbers.step)


def said(value: Value) -> list[str]:
    """How a value may be said: as it is written; a number in words, or in digits.

    Raises:
        UsageError: a number that has no words.
    """
    if isinstance(value, str):
        return [value]
    if not 0 <= value <= LARGEST:
        raise UsageError(f"the number {value} has no words", f"Give whole numbers from 0 to {LARGEST}")
    return [number_words(value), str(value)]
