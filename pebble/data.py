"""Training and evaluation sets: who says which sentence, and the log-mel of the training sets.

In: `world`, `synthesise`, `augment`. Out: `Features`, memory-mapped from a cache folder. The log-mel is the runtime's,
so training hears exactly what the device hears. There are three sets. `train` is what people say to Pebble. `around` is
what else a device hears: second turns, long talk, music, silence. `words` has known words in random order: Pebble has
to listen to write them down, and cannot guess.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from augment import heard
from numpy.typing import NDArray
from rich.progress import track
from synthesise import EVALUATED_ONLY, FLITE_TRAINED, SynthesisJob, make_clips, style
from world import FOLLOW_UPS, OUTSIDE_WORDS, ROOMS, SENTENCES, WORDS, outside_sentence

from voxrill.runtime.atomic_write import atomic_write, write_text
from voxrill.runtime.audio.log_mel import LogMel

ESPEAK_TAKES = 34
FLITE_TAKES = 4
OUTSIDE_CLIPS = 1500
WORD_SALAD_CLIPS = 1500
PASSES = 2
"""Augmented versions of every training clip."""

MIXED_WORD_CLIPS = 6000
FOLLOW_UP_TAKES = 60
SOUND_CLIPS = 400
LONG_CLIPS = 120
FOLLOW_UPS_EVALUATED = TYPED_EVALUATED = SOUNDS_EVALUATED = 200
LONG_EVALUATED = 280
"""Only some of them last ten to thirty seconds."""
MUSIC = OUTSIDE_WORDS[0] + " music"
"""The text of a clip of music. Like every outside sentence, music is not transcribed, and is refused."""


@dataclass
class Features:
    """Log-mel of a set.

    mel: float16 (frames of all clips, 128), memory-mapped; ends: frame where each clip ends; answered: whether the
    clips have answers, or only words.
    """

    texts: list[str]
    voices: list[str]
    styles: list[str | None]
    answered: bool
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


def command_jobs() -> Iterator[SynthesisJob]:
    """Every trained sentence by many voices, random words, and sentences outside the world."""
    for number, sentence in enumerate(s for s in SENTENCES if not s.held_out):
        for take in range(ESPEAK_TAKES):
            yield SynthesisJob(sentence.command, "espeak", number * 1009 + take)
        for name in FLITE_TRAINED:
            for take in range(FLITE_TAKES):
                yield SynthesisJob(sentence.command, f"flite:{name}", number * 2003 + take)
    chance = np.random.default_rng(7)
    for number in range(WORD_SALAD_CLIPS):
        words = " ".join(chance.choice(WORDS, chance.integers(2, 7)))
        yield SynthesisJob(words, _trained_voice(number), 10**6 + number)
    for number in range(OUTSIDE_CLIPS):
        yield SynthesisJob(outside_sentence(number), _trained_voice(number), 2 * 10**6 + number)


def around_jobs() -> Iterator[SynthesisJob]:
    """Second turns, and sounds that are no command: up to half a minute of talk, music, silence."""
    for number, text in enumerate(FOLLOW_UPS):
        for take in range(FOLLOW_UP_TAKES):
            yield SynthesisJob(text, _trained_voice(take), 7 * 10**6 + 1009 * number + take)
    for number in range(LONG_CLIPS):
        yield SynthesisJob(long_talk(number), _trained_voice(number), 8 * 10**6 + number)
    for number in range(SOUND_CLIPS):
        yield SynthesisJob("", "silence", number)
        yield SynthesisJob(MUSIC, "music", number)


def word_jobs() -> Iterator[SynthesisJob]:
    """Random words, and trained sentences with one or two words replaced by any others."""
    chance = np.random.default_rng(13)
    known = [s.command.split() for s in SENTENCES if not s.held_out]
    for number in range(MIXED_WORD_CLIPS):
        if number % 2:
            words = list(known[chance.integers(len(known))])
            for place in chance.integers(len(words), size=2):
                words[place] = str(chance.choice(WORDS))
        else:
            words = [str(word) for word in chance.choice(WORDS, chance.integers(2, 8))]
        yield SynthesisJob(" ".join(words), _trained_voice(number // 2), 9 * 10**6 + number)


def long_talk(pick: int) -> str:
    """Ten to thirty seconds of talk that is not for Pebble."""
    return " ".join(outside_sentence(10**4 + 10 * pick + i) for i in range(4 + pick % 7))


def _trained_voice(number: int) -> str:
    return ("espeak", "espeak", "flite:rms", "flite:slt")[number % 4]


def evaluation_jobs() -> Iterator[SynthesisJob]:
    """Known and new sentences by voices that were never trained on, and new outside sentences."""
    known = [s for s in SENTENCES if not s.held_out]
    chance = np.random.default_rng(11)
    known = [known[i] for i in chance.permutation(len(known))[:200]]
    new = [s for s in SENTENCES if s.held_out]
    for number in range(200):
        yield SynthesisJob(known[number % len(known)].command, "espeak-held-out", 3 * 10**6 + number)
        yield SynthesisJob(new[number % len(new)].command, "espeak-held-out", 4 * 10**6 + number)
        yield SynthesisJob(outside_sentence(10**5 + number), "espeak-held-out", 5 * 10**6 + number)
    for voice in EVALUATED_ONLY:
        for number in range(70):
            yield SynthesisJob(known[number % len(known)].command, voice, 6 * 10**6 + number)


def around_evaluation_jobs() -> Iterator[SynthesisJob]:
    """The kinds of `around_jobs`, with new clips and voices; and commands for a typed addition."""
    for number in range(FOLLOW_UPS_EVALUATED):
        yield SynthesisJob(list(FOLLOW_UPS)[number % len(FOLLOW_UPS)], "espeak-held-out", 9 * 10**6 + number)
    commands = {s.command for s in SENTENCES if not s.held_out}
    short = [command for command in sorted(commands) if any(f"{command} in the {room}" in commands for room in ROOMS)]
    for number in range(TYPED_EVALUATED):
        yield SynthesisJob(short[number % len(short)], "espeak-held-out", 10 * 10**6 + number)
    voices = ("espeak-held-out", "espeak-held-out", "espeak-held-out", "flite:awb")
    for number in range(LONG_EVALUATED):
        yield SynthesisJob(long_talk(LONG_CLIPS + number), voices[number % len(voices)], 11 * 10**6 + number)
    for number in range(SOUNDS_EVALUATED):
        yield SynthesisJob("", "silence", SOUND_CLIPS + number)
        yield SynthesisJob(MUSIC, "music", SOUND_CLIPS + number)


def training_features(cache: Path) -> list[Features]:
    """The training sets."""
    return [
        _features(cache, "train", command_jobs, answered=True),
        _features(cache, "around", around_jobs, answered=True),
        _features(cache, "words", word_jobs, answered=False),
    ]


def _features(cache: Path, name: str, jobs: Callable[[], Iterator[SynthesisJob]], answered: bool) -> Features:
    """Augmented log-mel of a set: `PASSES` versions of every clip. They are made once."""
    clips = make_clips(jobs(), cache / f"{name}.npz", f"speaking the set {name!r}")
    mel_path, about_path = cache / f"{name}-mel.f16", cache / f"{name}-mel.json"
    if not about_path.is_file():
        babble = [clips.waveform(i) for i in range(0, len(clips), max(1, len(clips) // 200))]
        _work.update(clips=clips, babble=babble, log_mel=LogMel())
        tasks = [(index, seed) for seed in range(PASSES) for index in range(len(clips))]
        ends, total = [], 0
        with Pool(2) as pool, atomic_write(mel_path) as part, part.open("wb") as stream:
            for mel in track(pool.imap(_one, tasks, chunksize=32), f"log-mel of {name!r}", total=len(tasks)):
                stream.write(mel.tobytes())
                total += len(mel)
                ends.append(total)
        write_text(about_path, json.dumps({"ends": ends}))
    frames = np.array(json.loads(about_path.read_text())["ends"])
    mel = np.memmap(mel_path, np.float16, "r", shape=(int(frames[-1]), 128))
    styles = [style(job.voice, job.seed) for job in jobs()]
    return Features(clips.texts * PASSES, clips.voices * PASSES, styles * PASSES, answered, mel, frames)


_work: dict[str, Any] = {}
"""What the worker processes of `training_features` share."""


def _one(task: tuple[int, int]) -> NDArray[np.float16]:
    """Log-mel of one clip in one augmented version (runs in a worker)."""
    index, seed = task
    waveform = heard(_work["clips"].waveform(index), _work["babble"], np.random.default_rng([seed, index]))
    mel: NDArray[np.float32] = _work["log_mel"](waveform)
    return mel.astype(np.float16)
