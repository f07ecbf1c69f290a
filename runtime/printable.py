"""Names of files as text that a terminal or a JSON reader can take."""

from __future__ import annotations

import os
from pathlib import Path


def printable(name: str | Path) -> str:
    """A file's name as text; bytes of it that are not UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")
