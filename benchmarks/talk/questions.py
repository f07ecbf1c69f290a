"""The questions that the virtual user asks.

In: a folder of sound files, with or without a `held_out.json` that has the right answers. Out: questions at the wire's
rate. Without a folder, Pebble's held-out clips are used, which only a checkout has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.talk.asking import SpokenQuestion
from benchmarks.talk.measuring import voiced
from benchmarks.talk.sound_server import WIRE_RATE
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.sound_kinds import SOUND_FILES
from voxrill.runtime.errors import DataError, UsageError

LIST = "held_out.json"

HELD_OUT = Path(__file__).resolve().parents[2] / "tests" / "pebble"

SILENCE = 0.2
"""Seconds of silence at the end of joined questions."""

_NOT_SPOKEN = ("music", "silence", "typed")


class _QuestionEntry(msgspec.Struct):
    file: str
    kind: str
    reply: str


def read_questions(folder: Path | None, count: int) -> list[SpokenQuestion]:
    """`count` questions: those of the folder, in turn.

    Raises:
        DataError: the folder holds none.
        AudioFileError: a file is no sound.
    """
    if folder is None and not HELD_OUT.is_dir():
        raise UsageError("there are no questions to ask", "Give a folder of spoken questions: --questions FOLDER")
    folder = folder or HELD_OUT
    if (folder / LIST).is_file():
        entries = msgspec.json.decode((folder / LIST).read_bytes(), type=list[_QuestionEntry])
        replies: dict[str, str | None] = {one.file: one.reply for one in entries if one.kind not in _NOT_SPOKEN}
    else:
        replies = {path.name: None for path in sorted(folder.glob("*")) if path.suffix.lower() in SOUND_FILES}
    if not replies:
        raise DataError(f"{folder} holds no sounds", f"Put spoken questions there, as {', '.join(SOUND_FILES)}")
    questions = [SpokenQuestion(name, read_audio(folder / name, WIRE_RATE), reply) for name, reply in replies.items()]
    return list(islice(cycle(questions), count))


def joined(questions: Sequence[SpokenQuestion], seconds: float) -> list[SpokenQuestion]:
    """Questions of `seconds` of speech: each continues with the following ones, without a pause, and is then cut."""
    speech = [question.samples[slice(*(voiced(question.samples, WIRE_RATE) or (0, 0)))] for question in questions]
    length, silence = round(seconds * WIRE_RATE), np.zeros(round(SILENCE * WIRE_RATE), np.float32)
    found = []
    for number, question in enumerate(questions):
        whole = np.concatenate([*speech[number:], *speech[:number]])
        found.append(SpokenQuestion(question.name, np.concatenate([whole[:length], silence])))
    return found
