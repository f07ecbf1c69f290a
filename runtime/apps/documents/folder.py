"""A folder of documents: which files it holds, and their content. Nothing outside the folder is read.

A link may lead to another file of the folder, and nowhere else. Pipes, devices and sockets are not opened: reading them
may wait for ever, or never end.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from voxrill.runtime.apps.documents.reader import LARGEST, READABLE, Unreadable

DEEPEST = 100
"""Folders within each other at most. `os.walk` calls itself for each, and Python 3.11 allows 1,000 such calls."""

# Windows has neither flag. There a file's name cannot be a pipe, and only an administrator makes links.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_FILE = os.O_RDONLY | _NO_LINK | _NO_WAIT | getattr(os, "O_BINARY", 0)
_FOLDER = os.O_RDONLY | _NO_LINK | getattr(os, "O_DIRECTORY", 0)


@dataclass
class Listing:
    """A folder's files by their path within it, with slashes; and what was not looked into, with the reason."""

    files: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def list_files(folder: Path) -> Listing:
    """The files of a folder and of the folders in it; hidden files and folders are left out."""
    found = Listing()

    def fail(error: OSError) -> None:
        found.refused[_within(folder, error.filename)] = str(error.strerror)

    for parent, folders, files in os.walk(folder, onerror=fail):
        deep = len(Path(parent).relative_to(folder).parts) >= DEEPEST
        for name in filter(_shown, folders):
            if os.path.islink(path := os.path.join(parent, name)):
                found.refused[_within(folder, path)] = "a link to a folder"
            elif deep:
                found.refused[_within(folder, path)] = f"more than {DEEPEST} folders deep"
        folders[:] = [] if deep else sorted(filter(_shown, folders))
        found.files += [_within(folder, os.path.join(parent, name)) for name in sorted(filter(_shown, files))]
    return found


def _shown(name: str) -> bool:
    return not name.startswith(".")


def _within(folder: Path, path: str) -> str:
    return Path(path).relative_to(folder).as_posix()


def status(folder: Path, name: str) -> os.stat_result:
    """Size and time of a document.

    Raises:
        Unreadable: it is not a document, is too large, or lies outside the folder.
    """
    if Path(name).suffix.lower() not in READABLE:
        raise Unreadable(f"not {', '.join(READABLE)}")
    try:
        os.fsencode(name).decode()
        return _checked(os.lstat(_resolved(folder, name)))
    except UnicodeDecodeError:
        raise Unreadable("its name is not UTF-8") from None
    except OSError as error:
        raise Unreadable(str(error.strerror)) from None


def content(folder: Path, name: str) -> bytes:
    """All of a document.

    Raises:
        Unreadable: the system refuses, or the file is now something that `status` refuses.
    """
    try:
        with open(_opened(folder, _resolved(folder, name)), "rb") as file:
            _checked(os.fstat(file.fileno()))
            whole = file.read(LARGEST + 1)  # it may be growing
    except OSError as error:
        raise Unreadable(str(error.strerror)) from None
    if len(whole) > LARGEST:
        raise Unreadable(_too_large())
    return whole


def _resolved(folder: Path, name: str) -> Path:
    """Where a file lies when its links are followed.

    Raises:
        Unreadable: it lies outside the folder.
        OSError: it does not exist, or the links go in a circle.
    """
    real = Path(os.path.realpath(folder / name, strict=True))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise Unreadable("a link to a place outside the folder")
    return real


def _opened(folder: Path, real: Path) -> int:
    """A file descriptor of a path in the folder.

    Each part of the path is opened by itself and without following links. So nobody can put a link there between the
    check and the opening.
    """
    base = Path(os.path.realpath(folder))
    if os.open not in os.supports_dir_fd:
        return os.open(real, _FILE)
    *folders, file = real.relative_to(base).parts
    at = os.open(base, _FOLDER)
    for part, flags in (*((one, _FOLDER) for one in folders), (file, _FILE)):
        try:
            below = os.open(part, flags, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def _checked(found: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("not a regular file")
    if found.st_size > LARGEST:
        raise Unreadable(_too_large())
    return found


def _too_large() -> str:
    return f"larger than {LARGEST >> 20} MB"
