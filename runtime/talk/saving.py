"""Turns as files: the question and the answer as WAV, and what was said and when as JSON.

In: turns that are over. Out: in a folder `turn-0001-question.wav`, `turn-0001-answer.wav` (as far as it was heard),
`turn-0001.json`, and so on. Turns that are there already are never overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import msgspec

from voxrill.runtime.audio.protocols import RATE
from voxrill.runtime.audio.sound_writer import write_sound
from voxrill.runtime.errors import AudioFileError, UsageError
from voxrill.runtime.talk.events import Notice
from voxrill.runtime.talk.reply import TalkTurn


class Saver:
    """Writes turns into `directory`.

    Args:
        directory: created if it is not there.
        sample_rate: Hz of answers.
        show: takes a notice when a turn could not be written.

    Raises:
        UsageError: the folder cannot be made.
    """

    def __init__(self, directory: Path, sample_rate: int, show: Callable[[Notice], None]) -> None:
        self._directory = directory
        self._sample_rate = sample_rate
        self._show = show
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot save into {directory}: {error.strerror}", "Give another folder") from None
        self._before = len(list(directory.glob("turn-*.json")))

    def keep(self, turn: TalkTurn) -> None:
        """Write a turn that is over."""
        name = f"turn-{self._before + turn.number:04d}"
        try:
            self._write(turn, name)
        except (AudioFileError, OSError) as error:
            self._show(Notice(f"{name} could not be saved: {error}"))

    def _write(self, turn: TalkTurn, name: str) -> None:
        answer = turn.answer.waveform()[: turn.heard]
        if turn.utterance is not None:
            write_sound(self._directory / f"{name}-question.wav", turn.utterance.samples, RATE)
        if len(answer):
            write_sound(self._directory / f"{name}-answer.wav", answer, self._sample_rate)
        about = {
            "typed": turn.typed,
            "answer": turn.answer.text,
            "interrupted": turn.heard is not None,
            "error": str(turn.error) if turn.error else None,
            "trace": asdict(turn.trace),
        }
        (self._directory / f"{name}.json").write_bytes(msgspec.json.encode(about) + b"\n")
