"""A file that is written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write a file to; it takes the name when the block ends well, else it is gone."""
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
