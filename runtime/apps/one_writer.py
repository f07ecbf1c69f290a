"""One writer at a time: a second command with the same output is refused before it writes anything."""

from __future__ import annotations

import os
from pathlib import Path

from voxrill.runtime.bundle.atomic_folder import lock_folder, unlock
from voxrill.runtime.errors import UsageError


def lock_output(file: Path, out: Path) -> int | None:
    """A lock on `file`, in which the output `out` grows. It ends with `unlock`, or with this process.

    None where there is no such file, or the system has no locks.

    Raises:
        UsageError: another process holds it.
    """
    while file.is_file():
        try:
            lock = lock_folder(file)
        except BlockingIOError:
            raise UsageError(
                f"{out} is being written by another voxrill", "Wait until that is done, or give another --out"
            ) from None
        except FileNotFoundError:  # the other process has just finished
            continue
        if lock is None or _is_still(file, lock):
            return lock
        unlock(lock)
    return None


def _is_still(file: Path, lock: int) -> bool:
    """Whether the name is still of the file that was locked: the other process may have finished in between."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(lock))
    except FileNotFoundError:
        return False
