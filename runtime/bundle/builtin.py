"""Pebble, the small model that ships inside the package: its bundle, and all it knows.

In: the package data under `src/voxrill/pebble/`, of which `bundle/` is an ordinary bundle and `world.json` a list of
`{"say", "reply"}`. Out: the opened `Bundle`; the world as a dict.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec

from voxrill.runtime.bundle.bundle import Bundle, open_bundle
from voxrill.runtime.bundle.manifest import Manifest
from voxrill.runtime.errors import BundleError

REFUSAL = "sorry i only know the house"
"""What Pebble answers to everything outside its world."""

PEBBLE_TURNS = 0
"""Turns that the built-in model remembers. It was taught single commands: of 20 held-out ones asked in one conversation
it answered 3 rightly when it remembered them all, and 20 when it remembered none."""

LABELS = {
    "intent": (
        "calls", "facts", "heating", "lights", "music", "navigation", "openings", "outside", "sums", "talk", "timer"
    ),
    "style": ("calm", "excited"),
}  # fmt: skip
"""The labels that Pebble was taught to answer with, by what they name."""

_SOURCE = "voxrill/pebble"


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


def is_pebble(manifest: Manifest) -> bool:
    """Whether a bundle is Pebble's, in whatever precision."""
    return manifest.source.name == _SOURCE


def pebble_world() -> dict[str, str]:
    """Every command the built-in model knows, and its answer.

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
