"""Names of files as text: for a JSON reader whole, for a terminal with nothing in it that a terminal would obey.

A name may hold any character but the slash and the null: escape codes that clear the screen or set its title, marks
that turn the reading direction round, line breaks that fake another line of output.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_CONTROLS = "\x00-\x1f\x7f-\x9f"
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # of writing: marks, embeddings, overrides, isolates
_BREAKS = "\u2028\u2029"

_OBEYED = re.compile(f"[{_CONTROLS}{_DIRECTIONS}{_BREAKS}\ud800-\udfff]")
_OBEYED_IN_TEXT = re.compile(rf"(?![\n\t]){_OBEYED.pattern}")


def as_unicode(name: str | Path) -> str:
    """A file's whole name for JSON; bytes of it that are not UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")


def printable(name: str | Path) -> str:
    r"""A file's name for a terminal, on one line; what the terminal would obey is shown as an escape, as `\x1b`."""
    return _OBEYED.sub(_escaped, str(name))


def printable_text(text: str) -> str:
    """A text for a terminal: as `printable`, with its line breaks and tabs left in it."""
    return _OBEYED_IN_TEXT.sub(_escaped, text)


def safe_json(encoded: bytes) -> bytes:
    r"""JSON that says the same; what a terminal would obey is written as JSON's own escapes, as `\u009b`."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded  # an encoder has escaped the other controls already
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xD800 <= code <= 0xDFFF:
        return "\N{REPLACEMENT CHARACTER}"  # a byte that is not UTF-8, as Python keeps it in a name
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
