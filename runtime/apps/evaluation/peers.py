"""Answers that another program gave to the same data.

In: JSON Lines, a line for each answer: `id` and `text`, perhaps `seconds`. Other formats that are read: the file that
`voxrill eval -o` writes, the Open ASR leaderboard's results (`audio_filepath`, `pred_text`, `time`, `duration`), and
VoiceBench's (`prompt`, `response`). Out: an `Outcome` for each item with an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from voxrill.runtime.apps.evaluation.items import Fields, Item, Outcome, name_of, number_of, read_json_lines, text_of
from voxrill.runtime.apps.evaluation.words import Normaliser
from voxrill.runtime.errors import DataError, UsageError

NAMES = ("id", "file", *("audio_filepath", "file_name"), "prompt")
"""Fields that may name the item that a line answers; the first that a line has counts."""

TEXTS = ("pred_text", "response", "text")
"""Fields that may hold the answer. If a line has pred_text, its text is the Open ASR leaderboard's reference."""

SOUND = ("sound",)
"""The field that names the file of a spoken answer, for a judge."""

_UNNAMED = "sample_"
"""The Open ASR leaderboard's name for a sound without a name; its number from 0 follows."""


@dataclass(frozen=True)
class Peer:
    """A program's answers by item; others: the number of its lines that answer something else."""

    name: str
    outcomes: Mapping[str, Outcome]
    others: int


def read_peer(
    named: str,
    items: Sequence[Item],
    normalise: Normaliser,
    judge: Callable[[Path], tuple[str, float]] | None = None,
) -> Peer:
    """The peer of `NAME=FILE`.

    Args:
        named: its name, and the file of its answers.
        items: the questions.
        normalise: removes differences that do not count: an answer found by its number must have the right words.
        judge: hears the sound that a line names; returns its words and its length. None: only text counts.

    Raises:
        UsageError: that is not a name and a file.
        DataError: the file cannot be read, or is of other data than `items`.
    """
    name, _, file = named.partition("=")
    if not name or not file:
        raise UsageError(f"--peer is {named!r}", "Give a name and a file: --peer whisper=whisper.jsonl")
    path, find = Path(file), _finder(items)
    outcomes: dict[str, Outcome] = {}
    others = 0
    for number, fields in read_json_lines(path):
        where = f"{path} line {number}"
        item = find(name_of(fields, NAMES, where))
        if item is None:
            others += 1
        elif item.id in outcomes:
            raise DataError(f"{where} answers {item.id} again", "Leave one of the two out")
        elif "pred_text" in fields and normalise(str(fields.get("text", ""))) != normalise(item.wanted):
            raise DataError(f"{where} has other words than {item.id}", "Give answers to this data, in the same order")
        else:
            outcomes[item.id] = _outcome(item, fields, where, path.parent, judge)
    if not outcomes:
        raise DataError(f"{path} answers no item of the data", f"Each line needs one of: {', '.join(NAMES)}")
    return Peer(name, outcomes, others)


def _finder(items: Sequence[Item]) -> Callable[[str | None], Item | None]:
    """Finds an item by its name (also without folders and suffix), by its prompt, or by `sample_NUMBER`."""
    by_name: dict[str, Item | None] = {}
    for item in items:
        for name in {_stem(item.id), item.prompt} - {""}:
            by_name[name] = None if name in by_name else item  # not if two items have this name
    # The more certain names come last and replace the others.
    by_name |= {f"{_UNNAMED}{number}": item for number, item in enumerate(items)}
    by_name |= {item.id: item for item in items}
    return lambda name: None if name is None else by_name.get(name) or by_name.get(_stem(name))


def _stem(name: str) -> str:
    return PurePath(name).stem


def _outcome(
    item: Item, fields: Fields, where: str, folder: Path, judge: Callable[[Path], tuple[str, float]] | None
) -> Outcome:
    text, sound = text_of(fields, TEXTS, where), text_of(fields, SOUND, where)
    length = number_of(fields, ("audio_seconds", "duration"), where)
    if text is None and sound is not None and judge is not None:
        if not (folder / sound).is_file():
            raise DataError(f"{where} names {folder / sound}, which is not a file", "Paths begin in the file's folder")
        text, length = judge(folder / sound)
    if text is None and sound is not None:
        raise DataError(
            f"{where} names a sound, and there is no judge to hear it", "Give a --judge, or the text in the sound"
        )
    if text is None:
        raise DataError(f"{where} has no answer", f"Give one of: {', '.join(TEXTS)}")
    # A line with segments is from `voxrill transcribe FOLDER`: its seconds are the length of the sound.
    spent = None if "segments" in fields else number_of(fields, ("seconds", "time"), where)
    return Outcome(
        id=item.id,
        text=text,
        heard=text_of(fields, ("heard",), where),
        seconds=spent,
        first=number_of(fields, ("first",), where),
        audio_seconds=length,
    )
