"""Questions and answers as every task has them, and JSON Lines, the format that most of them are read from.

In: a file of JSON Lines. Out: its objects, with their line numbers. Units: seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from voxrill.runtime.errors import DataError
from voxrill.runtime.input_file import decoded, lines_of

Fields = dict[str, Any]

LONGEST_LINE = 4 << 20
"""Bytes of a line of JSON Lines at most: a transcript of a week."""

LONGEST = 1e9
"""Seconds that a number in the data may say: 30 years."""


@dataclass(frozen=True)
class Item:
    """One thing to answer.

    id: its name in the data, by which a peer's answers are found; wanted: the right words, empty if there are none;
    audio: the sound, from the second `offset` on and `duration` seconds long (None: to its end); prompt: the words in
    that sound, or the words to say; group: the part of the data that it belongs to; fields: everything in its line of
    the data.
    """

    id: str
    wanted: str = ""
    audio: Path | None = None
    offset: float = 0.0
    duration: float | None = None
    prompt: str = ""
    group: str = ""
    fields: Fields = field(default_factory=dict)


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer, ours or a peer's.

    text: the answer's words; for tts, what the judge heard. heard: what the judge heard in a spoken answer. seconds:
    from the end of the question to the end of the answer; first: from there to the first text, or to the first sound of
    a spoken answer; audio_seconds: the length of the sound that was heard or said; error: why there is no answer.
    """

    id: str
    text: str = ""
    heard: str | None = None
    seconds: float | None = None
    first: float | None = None
    audio_seconds: float | None = None
    error: str = ""


def read_json_lines(file: Path) -> Iterator[tuple[int, Fields]]:
    """The objects of a file, each with the number of its line; empty lines are skipped.

    Raises:
        DataError: it cannot be read, or a line is not a JSON object.
    """
    for number, line in lines_of(file, LONGEST_LINE):
        if line.strip():
            yield number, _object(line, f"{file} line {number}")


def text_of(fields: Fields, names: tuple[str, ...], where: str) -> str | None:
    """The first of the fields `names` that is not missing or null; None if there is none.

    Raises:
        DataError: it is not text.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            raise DataError(f"{where}: {name} is not text", 'Give it as a string, in "quotes"')
    return None


def name_of(fields: Fields, names: tuple[str, ...], where: str) -> str | None:
    """As `text_of`, for a name, which may also be a whole number."""
    return text_of({name: str(value) if type(value) is int else value for name, value in fields.items()}, names, where)


def number_of(fields: Fields, names: tuple[str, ...], where: str) -> float | None:
    """The first of the fields `names` that is not missing or null, in seconds; None if there is none.

    Raises:
        DataError: it is not a number, or is negative or too large.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST:
            return float(value)
        if value is not None:
            raise DataError(f"{where}: {name} is {value!r}", "Give seconds as a number from 0 to a thousand million")
    return None


def check_items(items: list[Item], data: Path) -> list[Item]:
    """`items`, checked.

    Raises:
        DataError: there are none, two have the same name, or a sound does not exist.
    """
    if not items:
        raise DataError(f"{data} holds nothing to evaluate", "docs/guides/evaluate.md says what it may hold")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{data} has {item.id} twice", "Give each line a different id")
        seen.add(item.id)
        if item.audio is not None and not item.audio.is_file():
            raise DataError(
                f"{data} names {item.audio}, which does not exist", "Paths are relative to the file's folder"
            )
    return items


def _object(line: bytes, where: str) -> Fields:
    found = decoded(lambda: msgspec.json.decode(line), where, "Give JSON Lines, an object a line, in UTF-8")
    if not isinstance(found, dict):
        raise DataError(f"{where} is not a JSON object", 'Give a line such as {"id": "a", "text": "hello"}')
    return found
