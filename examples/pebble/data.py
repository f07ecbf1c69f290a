"""Training and evaluation sets: which sentence is said by whom, and the training set's log-mel.

In: `world`, `synthesise`, `augment`. Out: `Features` memory-mapped from a cache folder; the log-mel is the runtime's
own, so training hears exactly what the device hears.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from augment import heard
from numpy.typing import NDArray
from rich.progress import track
from synthesise import EVALUATED_ONLY, FLITE_TRAINED, Job, make_clips
from world import SENTENCES, WORDS, outside_sentence

from voxrill.runtime.log_mel import LogMel

ESPEAK_TAKES = 34
FLITE_TAKES = 4
OUTSIDE_CLIPS = 1500
WORD_SALAD_CLIPS = 1500
PASSES = 2
"""Augmented versions of every training clip."""


@dataclass
class Features:
    """Log-mel of a set. mel: float16 (frames of all clips, 128), memory-mapped; ends: frame where each clip ends."""

    texts: list[str]
    voices: list[str]
    mel: NDArray[np.float16]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def frames(self, index: int) -> int:
        """Log-mel frames of one clip."""
        return int(self.ends[index] - (self.ends[index - 1] if index else 0))

    def get(self, index: int) -> NDArray[np.float32]:
        """Log-mel (frames, 128) of one clip."""
        return self.mel[self.ends[index] - self.frames(index) : self.ends[index]].astype(np.float32)


def training_jobs() -> Iterator[Job]:
    """Every trained sentence by many voices, strings of random words, and sentences outside the world."""
    for number, sentence in enumerate(s for s in SENTENCES if not s.held_out):
        for take in range(ESPEAK_TAKES):
            yield Job(sentence.command, "espeak", number * 1009 + take)
        for name in FLITE_TRAINED:
            for take in range(FLITE_TAKES):
                yield Job(sentence.command, f"flite:{name}", number * 2003 + take)
    chance = np.random.default_rng(7)
    for number in range(WORD_SALAD_CLIPS):
        words = " ".join(chance.choice(WORDS, chance.integers(2, 7)))
        yield Job(words, ("espeak", "espeak", "flite:rms", "flite:slt")[number % 4], 10**6 + number)
    for number in range(OUTSIDE_CLIPS):
        voice = ("espeak", "espeak", "flite:rms", "flite:slt")[number % 4]
        yield Job(outside_sentence(number), voice, 2 * 10**6 + number)


def evaluation_jobs() -> Iterator[Job]:
    """Known and new sentences by voices never trained on, and outside sentences that were not trained on either."""
    known = [s for s in SENTENCES if not s.held_out]
    chance = np.random.default_rng(11)
    known = [known[i] for i in chance.permutation(len(known))[:200]]
    new = [s for s in SENTENCES if s.held_out]
    for number in range(200):
        yield Job(known[number % len(known)].command, "espeak-held-out", 3 * 10**6 + number)
        yield Job(new[number % len(new)].command, "espeak-held-out", 4 * 10**6 + number)
        yield Job(outside_sentence(10**5 + number), "espeak-held-out", 5 * 10**6 + number)
    for voice in EVALUATED_ONLY:
        for number in range(70):
            yield Job(known[number % len(known)].command, voice, 6 * 10**6 + number)


def training_features(cache: Path) -> Features:
    """Augmented log-mel of the training set, `PASSES` versions of every clip; made once."""
    clips = make_clips(training_jobs(), cache / "train.npz", "speaking the training set")
    mel_path, about_path = cache / "train-mel.f16", cache / "train-mel.json"
    if not about_path.is_file():
        babble = [clips.waveform(i) for i in range(0, len(clips), max(1, len(clips) // 200))]
        _work.update(clips=clips, babble=babble, log_mel=LogMel())
        tasks = [(index, seed) for seed in range(PASSES) for index in range(len(clips))]
        ends, total = [], 0
        with Pool(2) as pool, mel_path.open("wb") as stream:
            for mel in track(pool.imap(_one, tasks, chunksize=32), "log-mel of the training set", total=len(tasks)):
                stream.write(mel.tobytes())
                total += len(mel)
                ends.append(total)
        about = {"texts": clips.texts * PASSES, "voices": clips.voices * PASSES, "ends": ends}
        about_path.write_text(json.dumps(about))
    about = json.loads(about_path.read_text())
    ends = np.array(about["ends"])
    mel = np.memmap(mel_path, np.float16, "r", shape=(int(ends[-1]), 128))
    return Features(about["texts"], about["voices"], mel, ends)


_work: dict[str, Any] = {}
"""What the workers of `training_features` share."""


def _one(task: tuple[int, int]) -> NDArray[np.float16]:
    """Log-mel of one clip in one augmented version (runs in a worker)."""
    index, seed = task
    waveform = heard(_work["clips"].waveform(index), _work["babble"], np.random.default_rng([seed, index]))
    mel: NDArray[np.float32] = _work["log_mel"](waveform)
    return mel.astype(np.float16)
