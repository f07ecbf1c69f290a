"""The answers of a cascade, as a file that `voxrill eval --peer cascade=FILE` scores beside a bundle's.

    pip install "voxrill[eval,pebble]"
    python examples/baseline.py asr recordings -o cascade.jsonl       # pocketsphinx
    python examples/baseline.py chat questions.jsonl -o cascade.jsonl # pocketsphinx, and Pebble's table of answers
    python examples/baseline.py tts texts.txt -o flite.jsonl          # flite, into flite/ beside it
    voxrill eval asr --data recordings --peer cascade=cascade.jsonl

In: the data of an evaluation. Out: JSON Lines of `id`, `text` (or, of speech, `sound`) and `seconds`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import voxrill
from voxrill.runtime.apps.evaluation.items import Item
from voxrill.runtime.apps.evaluation.judges import Sphinx
from voxrill.runtime.apps.evaluation.prompts import read_questions, read_texts
from voxrill.runtime.apps.evaluation.recordings import read_recordings
from voxrill.runtime.apps.evaluation.tasks import sound_of
from voxrill.runtime.audio_file import SAMPLE_RATE
from voxrill.runtime.builtin import REFUSAL

READERS: dict[str, Callable[[Path], list[Item]]] = {
    "asr": read_recordings,
    "chat": read_questions,
    "tts": read_texts,
}


def answerer(task: str, out: Path) -> Callable[[Item], dict[str, Any]]:
    """What answers an item of a task: the fields of its line, less `id`."""
    if task == "tts":
        folder = out.with_suffix("")
        folder.mkdir(exist_ok=True)
        return lambda item: spoken(item, folder)
    world = voxrill.pebble_world() if task == "chat" else None
    ears = Sphinx(None if world is None else list(world))

    def heard(item: Item) -> dict[str, Any]:
        samples = sound_of(item)
        began = time.perf_counter()
        words = ears(samples, SAMPLE_RATE)
        text = words if world is None else world.get(words, REFUSAL)
        seconds = time.perf_counter() - began
        return {"text": text, "seconds": seconds} | ({"duration": len(samples) / SAMPLE_RATE} if world is None else {})

    return heard


def spoken(item: Item, folder: Path) -> dict[str, Any]:
    """A text by flite; the judge of the evaluation hears it."""
    sound = folder / f"{item.id}.wav"
    began = time.perf_counter()
    subprocess.run(["flite", "-voice", "slt", "-t", item.prompt, "-o", str(sound)], check=True)
    return {"sound": str(sound.relative_to(folder.parent)), "seconds": time.perf_counter() - began}


def main() -> None:
    """Command line of this example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=READERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    answer = answerer(args.task, args.out)
    with open(args.out, "w", encoding="utf-8") as file:
        for item in READERS[args.task](args.data):
            file.write(json.dumps({"id": item.id, **answer(item)}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
