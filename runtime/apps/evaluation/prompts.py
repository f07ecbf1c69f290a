"""Texts to say, and spoken questions with their right answers.

In: a file with a text in each line, or JSON Lines. Out: `Item`s.
"""

from __future__ import annotations

from pathlib import Path

from voxrill.runtime.apps.evaluation.items import Fields, Item, check_items, name_of, read_json_lines, text_of
from voxrill.runtime.apps.evaluation.recordings import AUDIO, WORDS, manifest_of
from voxrill.runtime.errors import DataError
from voxrill.runtime.input_file import read_text

PROMPT = ("prompt", "question")
"""Fields that may hold the words of a question."""

LARGEST_TEXTS = 64 << 20
"""Bytes of a file of texts at most."""

ANSWER = ("reference", "answer", "reply", "output")
"""Fields that may hold the right answer."""


def read_texts(data: Path) -> list[Item]:
    """Texts to say: JSON Lines of `text` and perhaps `id`, or the lines of a `.txt` file, named by their numbers.

    Raises:
        DataError: there are none, or a line cannot be read.
    """
    if data.is_dir():
        raise DataError(f"{data} is a folder", "Give a file with a text in each line, or JSON Lines")
    if data.suffix in (".jsonl", ".json"):
        found = [_named(number, fields, data) for number, fields in read_json_lines(data)]
    else:
        found = [(str(number), line) for number, line in enumerate(_lines(data), 1) if line.strip()]
    return check_items([Item(name, text.strip(), prompt=text.strip()) for name, text in found], data)


def read_questions(data: Path) -> list[Item]:
    """Questions with their right answers: JSON Lines, or a folder with a manifest of them.

    A line has a sound (`audio_filepath`, `file_name` or `audio`), a written question (`prompt`), or both: then the
    model gets the sound. It also has the right answer (`reference`, `answer` or `reply`).

    Raises:
        DataError: there are none, or a line lacks something.
    """
    manifest = manifest_of(data)
    if manifest is None:
        raise DataError(f"{data} has no manifest of questions", "Put a manifest.jsonl there, or give one")
    items = []
    for number, fields in read_json_lines(manifest):
        item = question_of(number, fields, manifest)
        if item.wanted == "":
            raise DataError(f"{manifest} line {number} has no right answer", f"Give one of: {', '.join(ANSWER)}")
        items.append(item)
    return check_items(items, data)


def question_of(number: int, fields: Fields, manifest: Path, group: str = "", prefix: str = "") -> Item:
    """The question of one line; its name begins with `prefix`.

    Raises:
        DataError: it has neither sound nor words.
    """
    where = f"{manifest} line {number}"
    audio, prompt = text_of(fields, AUDIO, where), text_of(fields, PROMPT, where)
    if audio is None and prompt is None:
        raise DataError(f"{where} has no question", f"Give one of: {', '.join((*AUDIO, *PROMPT))}")
    return Item(
        id=prefix + (name_of(fields, ("id",), where) or audio or str(number)),
        wanted=text_of(fields, ANSWER, where) or "",
        audio=manifest.parent / audio if audio else None,
        prompt=prompt or "",
        group=group,
        fields=fields,
    )


def _named(number: int, fields: Fields, data: Path) -> tuple[str, str]:
    where = f"{data} line {number}"
    text = text_of(fields, WORDS, where)
    if not text or not text.strip():
        raise DataError(f"{where} has nothing to say", f"Give one of: {', '.join(WORDS)}")
    return name_of(fields, ("id",), where) or str(number), text


def _lines(data: Path) -> list[str]:
    return read_text(data, LARGEST_TEXTS).splitlines()
