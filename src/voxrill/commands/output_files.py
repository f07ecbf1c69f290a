"""Files that commands write: what may be replaced, said once for all commands.

- No output is one of the command's inputs, by whatever name or link: reading would destroy it. `--force` changes
  nothing about that.
- What Voxrill made and can make again is replaced: a sound that it spoke, a plot, a report, a snapshot. Such files say
  who made them. So `voxrill speak ... -o a.wav` may be run as often as one likes, and never costs a recording.
- Everything else that exists is only replaced with `--force`: files of others; transcripts and recipes, which people
  correct by hand; bundles and golden vectors, which take long to make.
- A list of results (JSON Lines) is gone on with. It knows what it is of, and refuses files that are no such list.
- A device or a pipe, such as /dev/stdout, has nothing to lose, and is written to.

cp replaces anything without a word, and ffmpeg asks. A question cannot be answered in a script, and silence has cost
recordings; so an error names `--force`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxrill.commands.output import STDOUT
from voxrill.runtime.audio.sound_writer import check_sound_name, made_by_us
from voxrill.runtime.errors import UsageError
from voxrill.runtime.upkeep.snapshot import MAGIC
from voxrill.runtime.version import MAKER

_MARKS = (
    MAGIC,
    *(
        mark + MAKER.encode()
        for mark in (b"Software\0", b"<dc:title>", b"/Creator (", b'"generator" content="', b'{"generator":"')
    ),
)
"""Where a snapshot, a plot (PNG, SVG, PDF), a report and a trace say who made them, near their beginning or end."""

_LOOKED_AT = 4096
"""Bytes at both ends of a file."""


def check_output(
    out: Path | str | None,
    inputs: Iterable[Any] = (),
    *,
    force: bool | None = None,
    resumed: bool = False,
    makes_folder: bool = False,
) -> None:
    """Refuse an output file that must not be written, before any work is done.

    Args:
        out: the file; None and `-` name none.
        inputs: what the command reads: paths; None and `-` among them are passed over.
        force: replace what Voxrill did not make; None where a command has no such option.
        resumed: a list of results, which is gone on with.
        makes_folder: the command makes the file's folder if there is none.

    Raises:
        UsageError: it is an input, exists and is not to be replaced, or its folder does not exist.
    """
    if out is None or str(out) == STDOUT:
        return
    path = Path(out)
    for one in inputs:
        if one is not None and _is_same(path, Path(one)):
            raise UsageError(f"{path} is also an input, {one}: writing would destroy it", "Give -o another name")
    if not makes_folder and not path.parent.is_dir():
        raise UsageError(
            f"{path} cannot be written: there is no folder {path.parent}", "Make it, or give -o another one"
        )
    if path.is_file() and not (force or resumed or _is_ours(path)):
        remedy = "or remove it first" if force is None else "or replace it with --force"
        raise UsageError(f"{path} exists already, and is not replaced unasked", f"Give another name, {remedy}")


def check_sound_output(out: str | None, inputs: Iterable[Any] = (), *, force: bool | None = None) -> None:
    """As `check_output`, of a sound file.

    Raises:
        AudioFileError: its suffix is none that can be written.
        UsageError: as for `check_output`.
    """
    if out is not None and out != STDOUT:
        check_sound_name(out)
        check_output(out, inputs, force=force)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file; links are followed. What does not exist is the same as nothing."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # ValueError: a NUL byte in a name
        return False


def _is_ours(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOOKED_AT))
            ends = head + file.read()
    except OSError:
        return False
    return any(mark in ends for mark in _MARKS) or made_by_us(path)
