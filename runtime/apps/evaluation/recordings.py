"""Recordings with their words, in the usual layouts of speech data.

In: a file or folder. Out: `Item`s whose `wanted` are the words. These layouts are tried, in this order:

- a manifest, JSON Lines of `audio_filepath` and `text`, perhaps with `offset` and `duration`. NeMo has such files, and
  the Open ASR leaderboard's `write_manifest` writes them. It is named, or is `manifest.jsonl` or `manifest.json` in the
  folder;
- `metadata.jsonl` of `file_name` and a text, the Hugging Face's AudioFolder;
- LibriSpeech: `ID.flac` beside `*.trans.txt`, whose lines are an ID and its words;
- a folder of sounds, each beside its words in a file of that name with `.txt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from voxrill.runtime.apps.evaluation.items import Item, check_items, name_of, number_of, read_json_lines, text_of
from voxrill.runtime.audio.sound_folder import sound_files
from voxrill.runtime.errors import DataError
from voxrill.runtime.input_file import read_text
from voxrill.runtime.printable import as_unicode

MANIFESTS = ("manifest.jsonl", "manifest.json", "metadata.jsonl")
"""Names that a folder's manifest may have."""

AUDIO = ("audio_filepath", "file_name", "audio")
"""Fields that may name the sound."""

LONGEST_NAME = 200
"""Bytes of the names of files that we make: systems allow 255, with the ending."""

LARGEST_WORDS = 16 << 20
"""Bytes of a file of transcripts at most; LibriSpeech's have some 10 kB."""

WORDS = ("text", "sentence", "normalized_text", "transcript", "transcription")
"""Fields that may hold the words: those of the Open ASR leaderboard."""


def file_name(name: str) -> str:
    """A name as a file's name of at most 200 bytes: letters, digits, `-`, `_` and inner dots stay."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip(".")
    return plain.encode()[:LONGEST_NAME].decode(errors="ignore") or "_"


def read_recordings(data: Path) -> list[Item]:
    """The recordings of a manifest or a folder.

    Raises:
        DataError: there are none, a sound has no words or does not exist, or a line cannot be read.
    """
    manifest = manifest_of(data)
    return check_items(list(_from_manifest(manifest) if manifest else _from_folder(data)), data)


def manifest_of(data: Path) -> Path | None:
    """`data` itself if it is a file, or the manifest in the folder; None if there is none.

    Raises:
        DataError: there is no such file or folder.
    """
    if not data.exists():
        raise DataError(f"there is no file or folder {data}", "Check --data")
    if not data.is_dir():
        return data
    return next((data / name for name in MANIFESTS if (data / name).is_file()), None)


def _from_manifest(manifest: Path) -> Iterator[Item]:
    for number, fields in read_json_lines(manifest):
        where = f"{manifest} line {number}"
        audio, words = text_of(fields, AUDIO, where), text_of(fields, WORDS, where)
        if audio is None or words is None:
            missing, names = ("sound", AUDIO) if audio is None else ("words", WORDS)
            raise DataError(f"{where} names no {missing}", f"Give one of the fields {', '.join(names)}")
        offset = number_of(fields, ("offset",), where) or 0.0
        yield Item(
            id=name_of(fields, ("id",), where) or (f"{audio}@{offset:g}" if "offset" in fields else audio),
            wanted=words,
            audio=manifest.parent / audio,
            offset=offset,
            duration=number_of(fields, ("duration",), where) if "offset" in fields else None,
            fields=fields,
        )


def _from_folder(folder: Path) -> Iterator[Item]:
    sounds = sound_files(folder)
    # LibriSpeech's lists hold the words of many sounds. If there is one list, no sound has a text file of its own.
    listed = dict(entry for file in sorted(folder.rglob("*.trans.txt")) for entry in _listed(file))
    for sound in sounds:
        beside = sound.with_suffix(".txt")
        words = listed.get(sound.with_suffix("")) if listed else _text(beside) if beside.is_file() else None
        if words is None:
            raise DataError(f"{sound} has no words", f"Put them into {beside.name} beside it, or give a manifest")
        yield Item(as_unicode(sound.relative_to(folder)), words.strip(), sound)


def _listed(file: Path) -> Iterator[tuple[Path, str]]:
    """The lines of LibriSpeech's transcripts: path without suffix, words."""
    for line in _text(file).splitlines():
        name, _, words = line.partition(" ")
        yield file.parent / name, words


def _text(file: Path) -> str:
    return read_text(file, LARGEST_WORDS)
