"""Evaluations, made from what a user names: data, peers, judge, options.

In: a model and paths. Out: an `Evaluation`. It computes nothing until somebody iterates it or asks for its rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

from voxrill.runtime.apps.evaluation.items import Item
from voxrill.runtime.apps.evaluation.judges import Judge, judge_named
from voxrill.runtime.apps.evaluation.peers import read_peer
from voxrill.runtime.apps.evaluation.prompts import read_questions, read_texts
from voxrill.runtime.apps.evaluation.recordings import file_name, read_recordings
from voxrill.runtime.apps.evaluation.running import Evaluation
from voxrill.runtime.apps.evaluation.tasks import Chatting, Hearing, ModelKeywords, Speaking, VoiceBench, judged_file
from voxrill.runtime.apps.evaluation.voicebench import read_voicebench
from voxrill.runtime.apps.evaluation.words import Normaliser, normaliser, suits
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.options import check_keywords
from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.printable import as_unicode
from voxrill.runtime.progress import Progress, no_progress

TaskName = Literal["asr", "tts", "chat", "voicebench"]

SEED = 0
"""The seed of sampling unless the caller gives one: a second run then gives the same figures."""

PATHS = ("out", "judge_file", "sounds")


class EvaluationKeywords(TypedDict, total=False):
    """Keyword arguments of an evaluation.

    peers: results of other programs, name to file; out: a file of results as JSON Lines, which a later run continues;
    normaliser: removes differences that do not count from texts, None for the one that suits the model's language;
    name: the name of our rows; limit: items of each group at most; system, max_new_tokens, seed: for the model. For
    tts: voice; judge, who hears it (see `JudgeName`); judge_file: what another recogniser heard in `sounds`; sounds: a
    folder to keep every sound in. For chat: output, "both" or "text"; judge. For voicebench: output; modality, "audio"
    or "text".
    """

    peers: Mapping[str, str | os.PathLike[str]]
    out: str | os.PathLike[str] | None
    normaliser: str | None
    name: str | None
    limit: int | None
    system: str | None
    max_new_tokens: int | None
    seed: int
    voice: str | None
    judge: str
    judge_file: str | os.PathLike[str] | None
    sounds: str | os.PathLike[str] | None
    output: str
    modality: str


@dataclass(frozen=True)
class Wish:
    """Options that every task takes.

    peers: each is `NAME=FILE`; out: a file of results as JSON Lines, which a later run continues; normaliser: removes
    differences that do not count from texts, None for the one that suits the model's language; name: the name of our
    rows, None for the bundle's; limit: items of each group at most; options: for the model.
    """

    peers: Sequence[str] = ()
    out: Path | None = None
    normaliser: str | None = None
    name: str | None = None
    limit: int | None = None
    options: ModelKeywords = field(default_factory=lambda: ModelKeywords(seed=SEED))
    progress: Progress = no_progress


def asr(model: Engine, items: Sequence[Item], wish: Wish) -> Evaluation:
    """Transcribe recordings whose words are known."""
    return _evaluation(Hearing("asr", model, *_common(model, items, wish)), wish, {})


def tts(
    model: Engine,
    items: Sequence[Item],
    wish: Wish,
    *,
    voice: str | None = None,
    judge: str = "pocketsphinx",
    judge_file: Path | None = None,
    sounds: Path | None = None,
) -> Evaluation:
    """Say texts, and have a judge hear them.

    Args:
        model: speaks.
        items: the texts.
        wish: options of every task.
        voice: the model's voice.
        judge: see `JudgeName`.
        judge_file: JSON Lines of what another recogniser heard in `sounds`; then there is no other judge.
        sounds: a folder to keep every sound in, as ID.wav.
    """
    named = "none" if judge_file is not None else judge
    hears = judge_named(named, model, [item.wanted for item in items])
    judged = hears is not None or judge_file is not None
    if not judged and sounds is None:
        raise UsageError("no judge would hear the speech", "Give a --judge, or keep the sounds: --sounds FOLDER")
    if sounds is not None:
        _check_names(items)
        sounds.mkdir(parents=True, exist_ok=True)
    task = Speaking("tts", model, *_common(model, items, wish), hears, judged, voice, sounds)
    made = _evaluation(task, wish, {"judge": named, "voice": voice, "sounds": sounds and as_unicode(sounds)}, hears)
    if judge_file is not None:
        made.heard = read_peer(f"judge={judge_file}", items, task.normalise).outcomes
    return made


def chat(model: Engine, items: Sequence[Item], wish: Wish, *, output: str = "both", judge: str = "none") -> Evaluation:
    """Answer questions whose answers are known, aloud (output "both") or in text; a judge hears what is said aloud."""
    if judge != "none" and output == "text":
        raise UsageError("a judge hears sound, and the output is text", "Give --output both, or no --judge")
    hears = judge_named(judge, model, [item.wanted for item in items])
    task = Chatting("chat", model, *_common(model, items, wish), _output(output), hears)
    return _evaluation(task, wish, {"output": output, "judge": judge}, hears)


def voicebench(
    model: Engine, items: Sequence[Item], wish: Wish, *, output: str = "text", modality: str = "audio"
) -> Evaluation:
    """Answer VoiceBench's subsets, in text or aloud; the text is scored."""
    task = VoiceBench("voicebench", model, *_common(model, items, wish), _output(output), modality == "text")
    return _evaluation(task, wish, {"output": output, "modality": modality})


@dataclass(frozen=True)
class Kind:
    """A task: how to read its data, how to make its evaluation, and the keywords that only this task takes."""

    read: Callable[..., list[Item]]
    make: Callable[..., Evaluation]
    takes: tuple[str, ...] = ()


KINDS: Mapping[TaskName, Kind] = {
    "asr": Kind(read_recordings, asr),
    "tts": Kind(read_texts, tts, ("voice", "judge", "judge_file", "sounds")),
    "chat": Kind(read_questions, chat, ("output", "judge")),
    "voicebench": Kind(read_voicebench, voicebench, ("output", "modality")),
}

_OF_ALL = ("peers", "out", "normaliser", "name", "limit", *ModelKeywords.__annotations__)
"""Keywords that every task takes."""


def evaluate(
    model: Engine, task: TaskName, data: str | os.PathLike[str], **wishes: Unpack[EvaluationKeywords]
) -> Evaluation:
    """The evaluation of `model` that `Model.evaluate` describes.

    Raises:
        UsageError: there is no such task.
        TypeError: the task does not take a keyword.
    """
    if task not in KINDS:
        raise UsageError(f"there is no evaluation {task!r}", f"Give one of: {', '.join(KINDS)}")
    kind = KINDS[task]
    check_keywords("evaluate", wishes, (*_OF_ALL, *kind.takes))
    given: dict[str, Any] = {**wishes}
    given |= {name: Path(given[name]) for name in PATHS if given.get(name) is not None}
    given["peers"] = [f"{name}={file}" for name, file in given.get("peers", {}).items()]
    common = {name: given.pop(name) for name in Wish.__dataclass_fields__ if name in given}
    options: Any = {"seed": SEED} | {name: given.pop(name) for name in ModelKeywords.__annotations__ if name in given}
    items = kind.read(Path(data), **{name: given[name] for name in ("modality",) if name in given})
    return kind.make(model, items, Wish(options=options, **common), **given)


def _common(model: Engine, items: Sequence[Item], wish: Wish) -> tuple[Sequence[Item], Normaliser, ModelKeywords]:
    return _first_of_each(items, wish.limit), normaliser(_normaliser_name(model, wish)), wish.options


def _normaliser_name(model: Engine, wish: Wish) -> str:
    return suits(model.manifest.tasks.language) if wish.normaliser is None else wish.normaliser


def _evaluation(
    task: Hearing | Speaking | Chatting | VoiceBench, wish: Wish, settings: dict[str, Any], judge: Judge | None = None
) -> Evaluation:
    name = wish.name or task.model.manifest.name
    peers = [read_peer(peer, task.items, task.normalise, judge and judged_file(judge)) for peer in wish.peers]
    names = [name, *(peer.name for peer in peers)]
    if len(set(names)) < len(names):
        raise UsageError(f"two rows would have one name: {', '.join(names)}", "Give each --peer a name of its own")
    return Evaluation(task, name, _normaliser_name(task.model, wish), settings, peers, wish.out, progress=wish.progress)


def _check_names(items: Sequence[Item]) -> None:
    """Refuse items whose sounds would overwrite each other."""
    names: dict[str, str] = {}
    for item in items:
        other = names.setdefault(file_name(item.id).casefold(), item.id)
        if other != item.id:
            raise DataError(f"{item.id} and {other} would be one file: {file_name(item.id)}.wav", "Give other ids")


def _output(name: str) -> Output:
    if name in ("text", "both"):
        return cast(Output, name)
    raise UsageError(f"--output is {name!r}", "Give text or both")


def _first_of_each(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """The first `limit` items of each group."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return [item for members in groups.values() for item in members[:limit]]
