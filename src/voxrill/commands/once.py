"""What is said once on each machine, after the first command that went well: what the built-in model is.

A file in the user's state folder remembers that it was said. Where no file can be written, it is said each time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_waiting = ""


def wait_to_say(text: str) -> None:
    """Say this when the command has gone well; an empty text takes back what waits."""
    global _waiting
    _waiting = text


def say_waiting() -> None:
    """Say what waits, unless it was said before. A command that runs until it is ended calls this when it begins."""
    text = _waiting
    wait_to_say("")
    if not text:
        return  # before any import: this runs at the end of every command
    from voxrill.commands.output import err

    said = said_file()
    if not os.path.exists(said):  # unlike Path.exists, it does not raise where the home may not be entered
        err.print(text, style="dim", soft_wrap=True)
        with suppress(OSError):
            said.parent.mkdir(parents=True, exist_ok=True)
            said.touch()


def said_file() -> Path:
    """The file that remembers. Its content does not count."""
    import platformdirs

    return Path(platformdirs.user_state_dir("voxrill", appauthor=False)) / "pebble-was-introduced"
