"""A file that is written whole or not at all: the one way in which Voxrill replaces a file."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME_KEPT = 40
"""Characters of the final name that the hidden name shows: a name may have 255 bytes, and a character up to 4."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write a file to. It takes the name `path` when the block ends well.

    When the block ends with an exception, the hidden file is removed, and `path` is as it was. Every call has a hidden
    name of its own, so that two processes may write the same file. The data is on the disk before the name changes.
    A symbolic link stays a link: the file that it points to is replaced, and keeps its permissions. A device or a pipe
    has no contents to protect: the block is given `path` itself.

    Raises:
        OSError: the file cannot be written.
    """
    if is_special(path):
        yield path
        return
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:_NAME_KEPT]}.{secrets.token_hex(4)}.part")
    try:
        yield part
        if target.is_file():
            shutil.copymode(target, part)
        _sync(part)
        os.replace(part, target)
        _sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; see `atomic_write`."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def is_special(path: Path) -> bool:
    """Whether something other than a file or a folder has this name. `/dev/stdout` may be any of the three."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _sync(file: Path) -> None:
    with open(file, "r+b") as written:  # Windows syncs only what is open for writing
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk too. Windows and some network disks cannot, and need not."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
