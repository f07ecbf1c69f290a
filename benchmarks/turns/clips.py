"""The recordings: people who say one thing, with the pauses that they make in it.

In: a folder with a `manifest.csv` (columns file, speaker, kind). Out: waveforms at 16 kHz in which every pause inside
the utterance is longer or shorter by a factor, followed by three seconds of noise as loud as the recording's quietest.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.talk.questions import HELD_OUT
from benchmarks.talk.questions import LIST as OWN_LIST
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, RATE, Floats
from voxrill.runtime.audio.segments import in_blocks
from voxrill.runtime.audio.voice_activity import VoiceActivity
from voxrill.runtime.errors import DataError

KINDS = ("coffee", "read")
"""Spoken orders, and sentences read aloud."""

OWN_KIND = "own"
"""Commands that the built-in model knows, from its held-out clips, each with a hesitation."""

HESITATION = 0.4
"""Seconds that its speaker, who is a machine, hesitates in an own command."""

LIST = "manifest.csv"

NOT_OWN = ("music", "silence", "typed", "outside")

AFTER = 3.0
"""Seconds of silence after an utterance: longer than any policy waits."""

_WHOLE = EndpointOptions(endpoint=20.0, longest=120.0)
"""Pauses are found by the rules of the live loop, but none of them ends the utterance."""


@dataclass(frozen=True)
class Clip:
    """A recording. half: 0 to choose with, 1 to report on; a speaker is in one of them, where speakers are known."""

    kind: str
    path: Path
    half: int


@dataclass(frozen=True)
class SpokenClip:
    """An utterance in blocks of 32 ms. first: its first voiced block; voiced: whether a block is, from there on."""

    samples: Floats
    first: int
    voiced: Sequence[bool]

    def pauses(self) -> Iterator[tuple[int, int | None]]:
        """Each silence: the last voiced block before it, and its length in blocks; None for the last one."""
        last = None
        for number, voiced in enumerate(self.voiced, self.first):
            if voiced:
                if last is not None and number - last > 1:
                    yield last, number - last - 1
                last = number
        if last is not None:
            yield last, None


def find_clips(people: Path) -> list[Clip]:
    """The recordings of `KINDS`.

    Raises:
        DataError: there is no list, or none of them.
    """
    try:
        with (people / LIST).open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row["kind"] in KINDS]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        problem = f"{people / LIST} cannot be read ({error})"
        raise DataError(problem, "Give a folder that benchmarks/README.md describes") from None
    if not rows:
        raise DataError(f"{people} has no recordings of the kinds {', '.join(KINDS)}", "Put some into its list")
    return [Clip(row["kind"], people / row["file"], _half(row)) for row in rows]


def own_clips() -> list[Clip]:
    """The held-out clips of the built-in model; none outside a checkout."""
    if not (HELD_OUT / OWN_LIST).is_file():
        return []
    entries = msgspec.json.decode((HELD_OUT / OWN_LIST).read_bytes())
    return [Clip(OWN_KIND, HELD_OUT / one["file"], 1) for one in entries if one["kind"] not in NOT_OWN]


def _hesitating(samples: Floats, level: Callable[[float], Floats]) -> Floats:
    """Silence at the quietest place in the middle half of a command."""
    spoken_part = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 30)
    start, stop = spoken_part[0], spoken_part[-1]
    inner = range(start + (stop - start) // 4, start + 3 * (stop - start) // 4, 160)
    place = min(inner, key=lambda at: float(np.square(samples[at - 480 : at + 480]).mean()))
    return np.concatenate([samples[:place], level(HESITATION), samples[place:]])


def _half(row: dict[str, str]) -> int:
    known = row["speaker"] if row["kind"] == "read" else row["file"]  # who ordered is not known
    return hashlib.sha256(known.encode()).digest()[0] % 2


def spoken(clip: Clip, stretch: float) -> SpokenClip | None:
    """A clip's utterance with its pauses `stretch` times as long; None where nobody speaks."""
    samples = read_audio(clip.path, RATE)
    level = _quiet(samples)
    if clip.kind == OWN_KIND:
        samples = _hesitating(samples, level)
    found = _voiced(np.concatenate([samples, level(AFTER)]))
    if found is None or stretch == 1:
        return found
    pieces: list[Floats] = []
    end = 0
    for last, length in found.pauses():
        if length is None:
            continue
        start, stop = (last + 1) * BLOCK, (last + 1 + length) * BLOCK
        middle = (start + stop) // 2
        change = round((stretch - 1) * (stop - start))
        pieces += [found.samples[end : middle + min(0, change) // 2], level(max(0, change) / RATE)]
        end = middle - min(0, change) // 2
    return _voiced(np.concatenate([*pieces, found.samples[end:]]).astype(np.float32))


def _quiet(samples: Floats) -> Callable[[float], Floats]:
    """Makes seconds of noise as loud as the quietest 64 ms of a recording."""
    whole = samples[: len(samples) // (2 * BLOCK) * 2 * BLOCK].reshape(-1, 2 * BLOCK)
    level = float(np.sqrt(np.square(whole).mean(axis=1)).min()) if len(whole) else 0.0
    generator = np.random.default_rng(0)
    return lambda seconds: generator.normal(0, level, round(seconds * RATE)).astype(np.float32)


def _voiced(samples: Floats) -> SpokenClip | None:
    voice, endpointer = VoiceActivity(), Endpointer(_WHOLE)
    first: int | None = None
    marks: list[bool] = []
    for block in in_blocks([samples]):
        decision = endpointer.hear(voice(block))
        if decision == "began" and first is None:
            first = endpointer.first
            marks = [True] * (endpointer.number - first)
        elif first is not None:
            marks.append(endpointer.last == endpointer.number - 1)
    return None if first is None else SpokenClip(samples, first, marks)


def seconds(blocks: int) -> float:
    """The silence after the last sound, of so many unvoiced blocks."""
    return blocks * BLOCK_SECONDS + EndpointOptions.hold
