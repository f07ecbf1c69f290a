"""Keep libraries from writing to stdout, which is for data."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_STDOUT = Lock()
"""Several threads load graphs, and the process has one stdout."""


@contextmanager
def silent_stdout() -> Iterator[None]:
    """In this block nothing is written to stdout, not even by libraries in C."""
    with _STDOUT:
        # The descriptor itself is changed, since C libraries do not use sys.stdout; what both hold back is flushed
        # first.
        sys.stdout.flush()
        libc, kept = ctypes.CDLL("ucrtbase" if os.name == "nt" else None), os.dup(1)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            libc.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
