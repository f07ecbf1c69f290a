"""What segments cost, how soon text is seen, and whether memory grows: `python -m benchmarks.transcription PART`.

PART is words, latency or memory. In: Pebble and the held-out clips of tests/pebble. Out: figures as JSON lines.

words: clips in random order, 0.6 to 3 s of the clips' own noise between them, transcribed in segments; the same clips one by
one, each whole. latency: the same as a microphone that gives a block every 32 ms; from the block with a clip's last
voiced sample until an event holds its text. memory: such sound without end, as fast as it is transcribed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import psutil

import voxrill
from voxrill.runtime.apps.live_sound import LiveSound
from voxrill.runtime.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.apps.transcription import ModelRecogniser, Transcriber
from voxrill.runtime.talk.bench.measuring import percentile, voiced
from voxrill.runtime.talk.edges import BLOCK, BLOCK_SECONDS, Block, Floats

CLIPS = Path(__file__).parent.parent / "tests" / "pebble"
NOT_SPOKEN = ("typed",)
PAUSES = (0.6, 3.0)
"""Seconds between two clips."""
NOISE = 10 ** (-80 / 20)
"""Level of the noise in pauses: that of the clips."""

Clip = tuple[str, Floats]
"""Its words, and (n,) samples at 16 kHz."""


def clips() -> list[Clip]:
    """All clips that are sound, those without words included."""
    found = json.loads((CLIPS / "held_out.json").read_text(encoding="utf-8"))
    return [(one["words"], read_audio(CLIPS / one["file"])) for one in found if one["kind"] not in NOT_SPOKEN]


def meeting(chance: np.random.Generator, found: list[Clip]) -> Iterator[Clip]:
    """The clips in another order, each after a pause; a pause at the end."""
    for number in chance.permutation(len(found)):
        text, samples = found[number]
        yield text, np.concatenate([_pause(chance), samples])
    yield "", _pause(chance)


def _pause(chance: np.random.Generator) -> Floats:
    count = round(chance.uniform(*PAUSES) * SAMPLE_RATE)
    return (NOISE * chance.standard_normal(count)).astype(np.float32)


def words(meetings: int = 20) -> dict[str, Any]:
    """Word errors, in segments and whole."""
    model, found = voxrill.load(threads=1), clips()
    said = " ".join(text for text, _ in found if text)
    whole = jiwer.process_words(said, " ".join(model.transcribe(samples).text for _, samples in found))
    errors = total = 0
    for seed in range(meetings):
        parts = list(meeting(np.random.default_rng(seed), found))
        events = model.transcribe_stream((samples for _, samples in parts), tentative=False)
        heard = jiwer.process_words(" ".join(text for text, _ in parts if text), " ".join(one.text for one in events))
        errors += heard.substitutions + heard.deletions + heard.insertions
        total += len(said.split())
    return {"clips": len(found), "words": total, "whole": whole.wer, "segmented": errors / total}


if __name__ == "__main__":
    for part in sys.argv[1:]:
        print(json.dumps({"part": part, **{"words": words}[part]()}), flush=True)
