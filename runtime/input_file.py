"""A file that a user names, read whole, and never more of it than a limit: it may be a pipe, or an endless device.

In: a path. Out: its content, or a `DataError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import msgspec

from voxrill.runtime.errors import DataError

MEGABYTE = 1 << 20

MOST_DOTS = 200
"""Dots of a line of TOML at most. Python's parser keeps every beginning of a dotted key: one of 200 kB took 40 GB."""

LARGEST_TOML = 4 * MEGABYTE
"""Bytes of a file in TOML at most: commands, a recipe, a device's profile."""

LARGEST_TEXT = MEGABYTE
"""Bytes of a text at most that belongs to one conversation or one sound: more than any model can take in."""

Decoded = TypeVar("Decoded")


def read_bytes(path: Path, most: int) -> bytes:
    """All bytes of a file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        DataError: it cannot be read, or has more.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > most:
        raise DataError(f"{path} is larger than {most / MEGABYTE:g} MB", "Give a smaller file")
    return content


def lines_of(path: Path, longest: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, from 1, each with its line break.

    Args:
        path: the file.
        longest: bytes that a line may have.

    Raises:
        DataError: it cannot be read, or a line has more.
    """
    try:
        with open(path, "rb") as file:
            for number in count(1):
                line = file.readline(longest + 1)
                if not line:
                    return
                if len(line) > longest:
                    raise DataError(
                        f"{path} line {number} has more than {longest / MEGABYTE:g} MB", "Give lines of a size to read"
                    )
                yield number, line
    except OSError as error:
        raise _unreadable(path, error) from None


def read_text(path: Path, most: int) -> str:
    """All text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        DataError: it cannot be read, has more, or is not text.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8: byte {error.start} is no part of it", "Give a text file in UTF-8"
        ) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror}", "Give a file that is there and readable")


def decoded(decode: Callable[[], Decoded], what: str, remedy: str) -> Decoded:
    """What a decoder of JSON or TOML makes of a content; whatever it refuses, `what` cannot be read.

    Args:
        decode: decodes it.
        what: names the file, perhaps with the line.
        remedy: what to do about it.

    Raises:
        DataError: it is malformed, has fields of another kind, or is nested too deeply.
    """
    try:
        return decode()
    except RecursionError:
        raise DataError(f"{what} cannot be read: it is nested too deeply", remedy) from None
    except ValueError as error:  # msgspec's own, a number of more than 4,300 digits, bytes that are not UTF-8
        raise DataError(f"{what} cannot be read: {error}", remedy) from None


def decoded_toml(text: str, kind: type[Decoded], what: str, remedy: str) -> Decoded:
    """A text in TOML as a struct, or a dict.

    Args:
        text: the TOML.
        kind: what it has to hold.
        what: names the file.
        remedy: what to do if it cannot be read.

    Raises:
        DataError: it is malformed, has fields of another kind, is nested too deeply, or has a line of too many dots.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MOST_DOTS:
            raise DataError(f"{what} cannot be read: line {number} has more than {MOST_DOTS} dots", "Break the line")
    return decoded(lambda: msgspec.toml.decode(text, type=kind), what, remedy)


def read_toml(path: Path, kind: type[Decoded], remedy: str) -> Decoded:
    """A file in TOML as a struct, or a dict.

    Args:
        path: the file.
        kind: what it has to hold.
        remedy: what to do if it is not that.

    Raises:
        DataError: it is too large, is not text, or see `decoded_toml`.
    """
    return decoded_toml(read_text(path, LARGEST_TOML), kind, str(path), remedy)
