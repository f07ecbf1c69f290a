"""A folder of documents: which files it holds, and their content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from voxrill.runtime.apps.documents.reader import LARGEST, READABLE, Unreadable


def file_names(folder: Path) -> Iterator[str]:
    """Every file's path within the folder, with slashes; hidden ones and what lies behind linked folders left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(folder).as_posix()


def status(path: Path) -> os.stat_result:
    """Size and time of a document.

    Raises:
        Unreadable: it is no document, or too large.
    """
    if path.suffix.lower() not in READABLE:
        raise Unreadable(f"not {', '.join(READABLE)}")
    try:
        os.fsencode(path).decode()
        found = path.stat()
    except UnicodeDecodeError:
        raise Unreadable("its name is not UTF-8") from None
    except OSError as error:
        raise Unreadable(str(error.strerror)) from None
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("not a regular file")  # reading a pipe would wait for ever
    if found.st_size > LARGEST:
        raise Unreadable(f"larger than {LARGEST >> 20} MB")
    return found


def content(path: Path) -> bytes:
    """All of a document.

    Raises:
        Unreadable: the system does not let us.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(str(error.strerror)) from None
