"""Libraries that write to stdout, which is for data, are kept from it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_STDOUT = Lock()
"""Graphs are loaded by several threads, which have one stdout."""


@contextmanager
def silent_stdout() -> Iterator[None]:
    """Nothing is written to stdout meanwhile, not even by libraries in C."""
    with _STDOUT:
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
