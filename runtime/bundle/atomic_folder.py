"""A folder that is written whole or not at all.

In: the name a folder is to have. Out: a hidden folder beside it, which takes the name when it is complete. A reader
sees the old folder or the new one, and never none: Linux exchanges the two names in one step. A run that was killed
leaves only its hidden folder, and the next run removes that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voxrill.runtime.errors import BundleError

if sys.platform != "win32":
    import fcntl

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Numbers of Linux's renameat2: relative to the current folder; swap the two names."""

_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV)
"""What kernels and file systems answer that cannot exchange names."""


def _no_check() -> None:
    pass


@contextmanager
def atomic_folder(target: Path, check: Callable[[], None] = _no_check) -> Iterator[Path]:
    """A hidden folder beside `target` to fill; it takes the name when the block ends well, else it is removed.

    Args:
        target: the folder to write; one that is there is replaced.
        check: called just before that, for a last look at what is about to be replaced; once more if another run was
            first.

    Raises:
        OSError: it cannot be written.
    """
    put_back(target)
    with hidden_folder(target) as partial:
        yield partial
        flush(partial)
        check()
        if not _renamed(partial, target):
            check()
            _replace(partial, target)
        _flush_name(target)


@contextmanager
def hidden_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, of a name of its own; it is removed when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    _clear(target)
    partial, lock = _claimed(target)
    try:
        yield partial
    finally:
        remove(partial)  # after an exchange this is the old folder
        unlock(lock)


@contextmanager
def write_errors(target: Path, unharmed: str) -> Iterator[None]:
    """Turn what goes wrong in the block into a `BundleError`; `unharmed` says what is still as it was.

    Raises:
        BundleError: a full disk, no permission, or Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise BundleError("interrupted: nothing was written", f"Run the same command again; {unharmed}") from None
    except OSError as error:
        raise BundleError(
            f"{target} cannot be written ({error.strerror or error})",
            f"Free some space or choose another place; {unharmed}",
        ) from None


def put_back(target: Path) -> None:
    """Give `target` its old content again.

    Where names cannot be exchanged, a run that is killed between its two renames leaves the old content aside.
    """
    aside = aside_of(target)
    if aside.exists() and not target.exists():
        aside.rename(target)


def lock_folder(folder: Path, wait: bool = False) -> int | None:
    """A lock on a folder. It ends with `unlock` or with this process. None where the system has no locks.

    Raises:
        BlockingIOError: another process holds it.
        OSError: there is no such folder.
    """
    if sys.platform == "win32":
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(lock)
        raise
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    return lock


def unlock(lock: int | None) -> None:
    """End a lock."""
    if lock is not None:
        os.close(lock)


def flush(path: Path) -> None:
    """Write a file, or all files in a folder, to the disk before this returns: after a power cut they are there."""
    if os.name != "posix":  # Windows flushes only files that are open for writing
        return
    for inner in sorted(path.rglob("*")) if path.is_dir() else ():
        if not inner.is_symlink():
            _flush_one(inner)
    _flush_one(path)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _claimed(target: Path) -> tuple[Path, int | None]:
    """A new hidden folder beside `target`, and the lock that tells others that it is in use."""
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        partial.mkdir()
        lock = None
        with suppress(FileNotFoundError):  # another run may clear it away before it is locked
            lock = lock_folder(partial, wait=True)
            if partial.exists():
                return partial, lock
        unlock(lock)


def _clear(target: Path) -> None:
    """Remove the hidden folders that killed runs left: no process has a lock on them."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial")
    if not target.parent.is_dir():
        return
    for path in [path for path in target.parent.iterdir() if ours.fullmatch(path.name) and path.is_dir()]:
        with suppress(OSError):  # in use, or cleared away by another process
            lock = lock_folder(path)
            if lock is not None:
                remove(path)
                unlock(lock)


def _renamed(partial: Path, target: Path) -> bool:
    """Give `partial` the name of `target`; False if the name is taken."""
    if os.path.lexists(target):
        return False
    try:
        partial.rename(target)
    except OSError:
        if os.path.lexists(target):  # another run was there first
            return False
        raise
    return True


def _replace(partial: Path, target: Path) -> None:
    if not exchange(partial, target):
        aside = aside_of(target)
        target.rename(aside)
        try:
            partial.rename(target)
        finally:
            put_back(target)
        remove(aside)


def aside_of(target: Path) -> Path:
    """Where the old folder lies for a moment, if names cannot be exchanged."""
    return target.with_name(f".{target.name}.old")


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step; False where that cannot be done.

    Raises:
        OSError: one of them is missing, or must not be renamed.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or a C library without it
        return False
    if not renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _flush_name(path: Path) -> None:
    """Write the name of a file or folder to the disk, so that a rename outlives a power cut."""
    if os.name == "posix":
        _flush_one(path.parent)


def _flush_one(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
