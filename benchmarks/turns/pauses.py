"""What a model says at every pause of an utterance, after so much silence.

In: utterances and models. Out: one line of JSON for each utterance, so that an interrupted measurement goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.turns.clips import Clip, SpokenClip, spoken
from voxrill.runtime.audio.endpointing import BEFORE, blocks
from voxrill.runtime.audio.protocols import BLOCK, Floats

ASKED = (2, 4, 6, 14)
"""Unvoiced blocks of 32 ms after which a model is asked."""


class AskedPause(msgspec.Struct, frozen=True):
    """A pause. length: its blocks, None at the end of the utterance. said: by model and blocks of silence."""

    length: int | None
    said: dict[str, dict[int, float]]


class AskedUtterance(msgspec.Struct, frozen=True):
    """An utterance. cpu: processor seconds of a judgement, by model, of all that were made."""

    file: str
    kind: str
    half: int
    stretch: float
    pauses: list[AskedPause]
    cpu: dict[str, list[float]]


Models = Mapping[str, Callable[[Floats], float]]


def judged(clip: Clip, stretch: float, models: Models) -> AskedUtterance | None:
    """Ask all models at all pauses of a clip; None where nobody speaks."""
    found = spoken(clip, stretch)
    if found is None:
        return None
    cpu: dict[str, list[float]] = {name: [] for name in models}
    pauses = [AskedPause(length, _said(found, last, length, models, cpu)) for last, length in found.pauses()]
    return AskedUtterance(clip.path.name, clip.kind, clip.half, stretch, pauses, cpu)


def _said(
    found: SpokenClip, last: int, length: int | None, models: Models, cpu: dict[str, list[float]]
) -> dict[str, dict[int, float]]:
    begin = max(0, found.first - blocks(BEFORE)) * BLOCK
    said: dict[str, dict[int, float]] = {name: {} for name in models}
    for silent in ASKED:
        if length is not None and silent > length:
            break
        heard = found.samples[begin : (last + 1 + silent) * BLOCK]
        for name, model in models.items():
            started = time.process_time()
            said[name][silent] = round(model(heard), 4)
            cpu[name].append(round(time.process_time() - started, 4))
    return said


def read_known(path: Path) -> list[AskedUtterance]:
    """What was measured before."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line, type=AskedUtterance) for line in lines if line.endswith(b"\n")]


def measure(
    clips: Sequence[Clip],
    stretches: Sequence[float],
    models: Models,
    path: Path,
    progress: Callable[[str, int, int], None],
) -> list[AskedUtterance]:
    """What all models say at all pauses. Utterances that stand in `path` are not measured again."""
    known = {(one.file, one.stretch): one for one in read_known(path)}
    if path.exists():  # a line that was cut off would spoil the next one
        written = path.read_bytes()
        path.write_bytes(written[: written.rfind(b"\n") + 1])
    wanted = [(clip, stretch) for stretch in stretches for clip in clips]
    with path.open("ab") as file:
        for done, (clip, stretch) in enumerate(wanted):
            progress("asking", done, len(wanted))
            key = (clip.path.name, stretch)
            if key in known:
                continue
            one = judged(clip, stretch, models)
            if one is not None:
                known[key] = one
                file.write(msgspec.json.encode(one) + b"\n")
                file.flush()
    keys = {(clip.path.name, stretch) for clip, stretch in wanted}
    return [one for key, one in known.items() if key in keys]
