"""Some clips that Pebble never trained on, small enough to commit: `python held_out.py` writes them into tests/pebble.

In: the synthesisers. Out: 16-bit FLAC at 16 kHz, each as `evaluate.py` hears it in its clean condition, and
`held_out.json`: file, kind, text (what was said), words (what recognition should write) and reply of each. The clips
are the first of each kind, no matter how well Pebble hears them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from augment import quiet_room
from data import around_evaluation_jobs, evaluation_jobs
from rich.progress import track
from synthesise import EVALUATED_ONLY, RATE, SOUNDS, SynthesisJob, clip
from world import FIRST, OUTSIDE, REFUSAL

from voxrill.runtime.atomic_write import write_text

FOLDER = Path(__file__).parent.parent / "tests" / "pebble"
COUNTS = {"known": 10, "new": 10, **dict.fromkeys(EVALUATED_ONLY, 2), OUTSIDE: 6, "music": 4, "silence": 4, "typed": 4}
LONGEST_SOUND = 4.0
"""Most seconds of music or noise. Longer clips are skipped, because FLAC hardly compresses them."""


@dataclass(frozen=True)
class Chosen:
    """A clip: its kind, its job, and its number in its set."""

    kind: str
    job: SynthesisJob
    number: int


def candidates() -> Iterator[Chosen]:
    """The clips of both evaluation sets whose kind is in `COUNTS`."""
    held_out = {s.command: s.held_out for s in FIRST}
    for number, job in enumerate(evaluation_jobs()):
        if job.text not in held_out:
            kind = OUTSIDE
        elif job.voice in EVALUATED_ONLY:
            kind = job.voice
        else:
            kind = "new" if held_out[job.text] else "known"
        yield Chosen(kind, job, number)
    for number, job in enumerate(around_evaluation_jobs()):
        if job.voice in SOUNDS or job.text in held_out:
            yield Chosen(job.voice if job.voice in SOUNDS else "typed", job, number)


def chosen() -> list[Chosen]:
    """The first of each kind."""
    found: dict[str, list[Chosen]] = {kind: [] for kind in COUNTS}
    for one in candidates():
        if len(found[one.kind]) < COUNTS[one.kind] and not _too_long(one.job):
            found[one.kind].append(one)
    return [one for same in found.values() for one in same]


def _too_long(job: SynthesisJob) -> bool:
    return job.voice in SOUNDS and len(SOUNDS[job.voice](job.seed)) > LONGEST_SOUND * RATE


def described(one: Chosen, file: str) -> dict[str, str]:
    """A clip's entry in `held_out.json`."""
    replies = {s.command: s.reply for s in FIRST}
    about = {"file": file, "kind": one.kind, "voice": one.job.voice}
    if one.kind in SOUNDS:
        return {**about, "text": "", "words": "", "reply": REFUSAL if one.kind == "music" else ""}
    words = "" if one.kind == OUTSIDE else one.job.text
    return {**about, "text": one.job.text, "words": words, "reply": replies.get(one.job.text, REFUSAL)}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for place, one in enumerate(track(chosen(), "speaking")):
        file = f"{place:02}-{one.kind.replace(':', '-')}.flac"
        waveform = clip(one.job).astype(np.float32) / np.float32(32768)
        heard = quiet_room(waveform, np.random.default_rng(one.number))
        soundfile.write(folder / file, heard, RATE, "PCM_16")
        entries.append(described(one, file))
    write_text(folder / "held_out.json", json.dumps(entries, indent=1) + "\n")
    size = sum((folder / entry["file"]).stat().st_size for entry in entries)
    print(f"{len(entries)} clips, {size / 1e6:.2f} MB, in {folder}")


if __name__ == "__main__":
    main()
