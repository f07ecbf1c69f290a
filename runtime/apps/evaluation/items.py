"""What is asked and what was answered, the same for every task; and JSON Lines, which most of it is read from.

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

    id: its name in the data, which a peer's answers are found by; wanted: the right words, empty where there are none;
    audio: what is heard, of it `duration` seconds (None: to its end) from `offset`; prompt: what is said there, or is
    to be said; group: which part of the data it belongs to; fields: everything that its line of the data says.
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

    text: the answer's words; of tts what the judge heard. heard: what the judge heard in a spoken answer. seconds: from
    the question, which was whole by then, to the end of the answer; first: to its first text, or of a spoken answer its
    first sound; audio_seconds: length of the sound that was heard, or said; error: why there is no answer.
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
        DataError: it cannot be read, or a line is no JSON object.
    """
    for number, line in lines_of(file, LONGEST_LINE):
        if line.strip():
            yield number, _object(line, f"{file} line {number}")


def text_of(fields: Fields, names: tuple[str, ...], where: str) -> str | None:
    """The first of the fields `names` that is there and not null; None if none is.

    Raises:
        DataError: it is no text.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            raise DataError(f"{where}: {name} is no text", 'Give it as a string, in "quotes"')
    return None


def name_of(fields: Fields, names: tuple[str, ...], where: str) -> str | None:
    """As `text_of`, of a name, which may be a whole number, too."""
    return text_of({name: str(value) if type(value) is int else value for name, value in fields.items()}, names, where)


def number_of(fields: Fields, names: tuple[str, ...], where: str) -> float | None:
    """The first of the fields `names` that is there and not null, as seconds; None if none is.

    Raises:
        DataError: it is no number, or below 0.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST:
            return float(value)
        if value is not None:
            raise DataError(f"{where}: {name} is {value!r}", "Give seconds as a number from 0 to a thousand million")
    return None


def check_items(items: list[Item], data: Path) -> list[Item]:
    """`items`, if they can be worked through.

    Raises:
        DataError: there are none, two have one name, or a sound is not there.
    """
    if not items:
        raise DataError(f"{data} holds nothing to evaluate with", "Look at docs/evaluation.md for what it may hold")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{data} has {item.id} twice", "Give each line an id of its own")
        seen.add(item.id)
        if item.audio is not None and not item.audio.is_file():
            raise DataError(f"{data} names {item.audio}, which is not there", "Paths are relative to the file's folder")
    return items


def _object(line: bytes, where: str) -> Fields:
    found = decoded(lambda: msgspec.json.decode(line), where, "Give JSON Lines, an object a line, in UTF-8")
    if not isinstance(found, dict):
        raise DataError(f"{where} is not a JSON object", 'Give a line such as {"id": "a", "text": "hello"}')
    return found
