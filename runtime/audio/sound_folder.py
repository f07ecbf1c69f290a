"""The sounds of a folder, by the suffixes of the kinds that can be read; and what else lies there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from voxrill.runtime.audio.sound_kinds import SOUND_FILES
from voxrill.runtime.errors import DataError


def sound_files(folder: Path) -> list[Path]:
    """All sounds under `folder`, by name; a file is itself. Names that begin with a dot are passed over.

    Raises:
        DataError: there are none.
    """
    if not folder.is_dir():
        return [folder]
    found = [path for path in _files(folder) if _is_sound(path)]
    if not found:
        raise DataError(f"{folder} is a folder without sounds", f"Put sounds there: {', '.join(SOUND_FILES)}")
    return found


def other_files(folder: Path) -> list[Path]:
    """The files under `folder` that `sound_files` leaves out, except `NAME.txt` beside a sound: it holds the words."""
    files = list(_files(folder)) if folder.is_dir() else []
    sounds = {path.with_suffix("") for path in files if _is_sound(path)}
    return [path for path in files if not _is_sound(path) and not _is_text_of(path, sounds)]


def _files(folder: Path) -> Iterator[Path]:
    """Files that are not hidden, nor in a hidden folder, by name; no devices or pipes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() in SOUND_FILES


def _is_text_of(path: Path, sounds: set[Path]) -> bool:
    return path.suffix.lower() == ".txt" and path.with_suffix("") in sounds
