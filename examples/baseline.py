"""Answers of other programs, in files that `voxrill eval --peer NAME=FILE` scores beside a bundle's answers.

    pip install "voxrill[eval,pebble]"
    python examples/baseline.py asr recordings -o sphinx.jsonl        # pocketsphinx
    python examples/baseline.py chat questions.jsonl -o cascade.jsonl # a recogniser and Pebble's table of answers
    python examples/baseline.py tts texts.txt -o flite.jsonl          # flite; its sounds go to flite/
    python examples/baseline.py hear wavs -o heard.jsonl              # a recogniser, for `eval tts --judge-file`
    voxrill eval asr --data recordings --peer sphinx=sphinx.jsonl

With `--whisper MODEL`, Whisper is the recogniser (`pip install faster-whisper`). MODEL is a folder with its weights, or
a name such as tiny.en, which faster-whisper downloads.

In: the data of an evaluation. Out: JSON Lines of `id`, `text` (for speech: `sound`) and `seconds`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soxr

import voxrill
from voxrill.runtime.apps.evaluation.items import Item
from voxrill.runtime.apps.evaluation.judges import Judge, Sphinx
from voxrill.runtime.apps.evaluation.prompts import read_questions, read_texts
from voxrill.runtime.apps.evaluation.recordings import file_name, read_recordings
from voxrill.runtime.apps.evaluation.tasks import sound_of
from voxrill.runtime.apps.evaluation.words import normaliser
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.sound_folder import sound_files
from voxrill.runtime.bundle.builtin import open_builtin

Answer = Callable[[Item], dict[str, Any]]
"""The fields of an item's line, without `id`."""


class Whisper:
    """English Whisper by faster-whisper, in INT8 on the CPU, with its own defaults (a beam of five).

    Args:
        model: a folder with `model.bin`, or a name, for which faster-whisper downloads it.
    """

    def __init__(self, model: str) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(model, device="cpu", compute_type="int8")

    def __call__(self, samples: Floats, rate: int) -> str:
        """The words in samples (n,) at `rate` Hz."""
        segments, _ = self._model.transcribe(soxr.resample(samples, rate, SAMPLE_RATE), language="en")
        return "".join(segment.text for segment in segments).strip()


def read_sounds(folder: Path) -> list[Item]:
    """The sounds of a folder; their names without suffix are their ids."""
    return [Item(sound.stem, audio=sound) for sound in sound_files(folder)]


READERS: dict[str, Callable[[Path], list[Item]]] = {
    "asr": read_recordings,
    "chat": read_questions,
    "tts": read_texts,
    "hear": read_sounds,
}


def answerer(task: str, out: Path, ears: Callable[[list[str] | None], Judge]) -> Answer:
    """A function that answers an item. `ears` makes the recogniser; it gets all possible texts, or None."""
    if task == "tts":
        folder = out.with_suffix("")
        folder.mkdir(exist_ok=True)
        return lambda item: spoken(item, folder)
    if task == "chat":
        return from_table(voxrill.pebble_world(), ears)
    return transcriber(ears(None))


def transcriber(hear: Judge) -> Answer:
    """Answers with the words in a sound and its length."""

    def answer(item: Item) -> dict[str, Any]:
        samples = sound_of(item)
        return heard(samples, hear) | {"duration": len(samples) / SAMPLE_RATE}

    return answer


def from_table(world: dict[str, str], ears: Callable[[list[str] | None], Judge]) -> Answer:
    """A cascade: a recogniser, then a table of questions and their answers."""
    alike, hear = normaliser("english"), ears(list(world))
    table = {alike(question): answer for question, answer in world.items()}
    refusal = open_builtin().manifest.taught.refusal
    return lambda item: heard(sound_of(item), lambda samples, rate: table.get(alike(hear(samples, rate)), refusal))


def heard(samples: Floats, hear: Judge) -> dict[str, Any]:
    """The words in a sound at `SAMPLE_RATE`, and the time that hearing them took."""
    began = time.perf_counter()
    text = hear(samples, SAMPLE_RATE)
    return {"text": text, "seconds": time.perf_counter() - began}


def spoken(item: Item, folder: Path) -> dict[str, Any]:
    """Speech of a text by flite; the judge of the evaluation hears it."""
    sound = folder / f"{file_name(item.id)}.wav"
    began = time.perf_counter()
    subprocess.run(["flite", "-voice", "slt", "-t", item.prompt, "-o", str(sound)], check=True)
    return {"sound": str(sound.relative_to(folder.parent)), "seconds": time.perf_counter() - began}


def main() -> None:
    """Command line of this example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=READERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--whisper", metavar="MODEL", help="the Whisper that hears, instead of pocketsphinx")
    args = parser.parse_args()
    answer = answerer(args.task, args.out, (lambda texts: Whisper(args.whisper)) if args.whisper else Sphinx)
    with open(args.out, "w", encoding="utf-8") as file:
        for item in READERS[args.task](args.data):
            file.write(json.dumps({"id": item.id, **answer(item)}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
