"""People who do not talk to Pebble: recordings of a folder teach it to refuse, and their noise is mixed into clips.

In: a folder with `manifest.csv` (file, speaker, transcript, kind, seconds) and the clips it names, 16 kHz. None of them
says a sentence of the world. Out: a `ClipStore` of pieces of at most six seconds, the short ones most often, and the
noise. A fifth of the speakers is for development only. The folder is not part of the repository; clips of this kind
are in these public ones: Picovoice/speech-to-intent-benchmark, Picovoice/wake-word-benchmark, castorini/howl,
MycroftAI/Precise-Community-Data, LibriSpeech, Azure-Samples/cognitive-services-speech-sdk.
"""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from synthesise import RATE, ClipStore
from world import OUTSIDE_WORDS, WORDS

TALK = OUTSIDE_WORDS[0] + " talk"
"""The text of talk whose words are not known. Like every outside sentence it is not transcribed, and is refused."""
SHORT, LONGEST = 1.6, 6.0
"""Seconds: clips that come three times, and the longest piece of a clip."""
SHORT_TAKES = 3
DEVELOPMENT_PERCENT = 20

Recording = dict[str, str]


def recordings(folder: Path, development: bool) -> list[Recording]:
    """The rows of the manifest that are talk, of the speakers of one side."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["kind"] != "noise"]
    return [row for row in rows if _for_development(row) == development]


def _for_development(row: Recording) -> bool:
    """By speaker; by clip where the manifest only names a crowd."""
    crowd = not row["speaker"] or row["speaker"].startswith("crowd") or "community" in row["speaker"]
    named = row["file"] if crowd else row["speaker"]
    return int(hashlib.md5(named.encode()).hexdigest(), 16) % 100 < DEVELOPMENT_PERCENT


def people_clips(folder: Path, development: bool = False) -> ClipStore:
    """Pieces of the recordings, in an order of chance."""
    pieces = list(_pieces(folder, development))
    random.Random(23).shuffle(pieces)
    texts, voices, sounds = zip(*pieces, strict=True)
    return ClipStore(list(texts), list(voices), np.concatenate(sounds), np.cumsum([len(sound) for sound in sounds]))


def _pieces(folder: Path, development: bool) -> Iterator[tuple[str, str, NDArray[np.int16]]]:
    for row in recordings(folder, development):
        sound = read(folder / row["file"])
        words = row["transcript"].lower()
        # A word of the world said alone, such as a digit, is still written down. It is no command.
        text = words if row["kind"] == "letter" and words in WORDS else TALK
        voice = f"people:{row['kind']}"
        if len(sound) <= SHORT * RATE:
            yield from [(text, voice, sound)] * (1 if development else SHORT_TAKES)
            continue
        chance = random.Random(row["file"])
        at = 0
        while len(sound) - at > RATE // 2:
            length = int(RATE * chance.uniform(0.7, LONGEST)) if len(sound) > LONGEST * RATE else len(sound)
            yield text, voice, sound[at : at + length]
            at += length


def noises(folder: Path) -> list[NDArray[np.float32]]:
    """The recordings of noise."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        files = [row["file"] for row in csv.DictReader(lines) if row["kind"] == "noise"]
    return [read(folder / file).astype(np.float32) / np.float32(32768) for file in files]


def read(path: Path) -> NDArray[np.int16]:
    """A recording at 16 kHz, one channel."""
    sound, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == RATE, f"{path} has {rate} Hz"
    samples: NDArray[np.int16] = sound[:, 0]
    return samples
