"""Pebble, the small model that ships inside the package: its bundle, and all it knows.

In: the package data under `src/voxrill/pebble/`: an ordinary bundle in `bundle/`, and a list of `{"say", "reply"}` in
`world.json`. Out: the opened `Bundle`; the world as a dict.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec

from voxrill.runtime.bundle.bundle import Bundle, open_bundle
from voxrill.runtime.errors import BundleError

BUILTIN = "pebble"
"""The name by which the built-in model is loaded. A folder of that name is `./pebble`."""


class _Entry(msgspec.Struct):
    say: str
    reply: str


def open_builtin() -> Bundle:
    """Open Pebble's bundle.

    Raises:
        BundleError: this installation lacks it, or it was changed.
    """
    try:
        return open_bundle(_folder() / "bundle")
    except BundleError as error:
        raise _broken(error.message) from None


def pebble_world() -> dict[str, str]:
    """Every command that the built-in model knows, and its answer.

    Raises:
        BundleError: this installation lacks the list, or it was changed.
    """
    path = _folder() / "world.json"
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=list[_Entry])
    except (OSError, msgspec.MsgspecError) as error:
        raise _broken(f"{path} cannot be read ({error})") from None
    return {entry.say: entry.reply for entry in entries}


def _folder() -> Path:
    return Path(str(resources.files("voxrill"))) / "pebble"


def _broken(reason: str) -> BundleError:
    return BundleError(
        f"the built-in model is not whole: {reason}",
        "Install it again: pip install --force-reinstall voxrill; or name another bundle: --bundle FOLDER",
    )
