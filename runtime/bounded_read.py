"""A file that a user names, read whole, and never more of it than a limit: it may be a pipe, or an endless device."""

from __future__ import annotations

from pathlib import Path

from voxrill.runtime.errors import DataError

MEGABYTE = 1 << 20


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
        raise DataError(f"{path} cannot be read: {error.strerror}", "Give a file that is there and readable") from None
    if len(content) > most:
        raise DataError(f"{path} is larger than {most / MEGABYTE:g} MB", "Give a smaller file") from None
    return content


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
