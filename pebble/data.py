"""Training and evaluation sets: who says which sentence, and the log-mel of the training sets.

In: `world`, `synthesise`, `augment`. Out: `Features`, memory-mapped from a cache folder. The log-mel is the runtime's,
so training hears exactly what the device hears. There are three sets. `train` is what people say to Pebble. `around` is
what else a device hears: second turns, long talk, music, silence. `words` has known words in random order: Pebble has
to listen to write them down, and cannot guess.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from augment import Surroundings, Waveform, heard
from natural import JOE, RESERVED, shard_paths
from numpy.typing import NDArray
from people import noises, people_clips
from rich.progress import track
from synthesise import EVALUATED_ONLY, FLITE_TRAINED, RECORDED, ClipStore, SynthesisJob, make_clips, style
from world import (
    FIRST,
    FOLLOW_UPS,
    LISTED,
    OUTSIDE_WORDS,
    ROOMS,
    SENTENCES,
    WORDS,
    drawn,
    meant,
    neighbour,
    outside_sentence,
    talk,
)

from voxrill.runtime.atomic_write import atomic_write, write_text
from voxrill.runtime.audio.log_mel import LogMel

ESPEAK_TAKES = 8
FLITE_TAKES = 1
DRAWN_CLIPS = 12_000
OUTSIDE_CLIPS = 1500
WORD_SALAD_CLIPS = 1500
PASSES, NATURAL_PASSES = 2, 3
"""Augmented versions of every training clip."""
WORKERS = 1
NATURAL_TIMES = 3
"""How often natural voices come in a round, because they are few and nearest to people."""
RECORDED_TIMES = 2
"""How often voices made of recordings come in a round."""
AROUND_TIMES = 4
"""How often silence, music and talk come in a round."""
STYLE_CLIPS, STYLE_TIMES = 1500, 6
"""How many clips have a style, and how often they come in a round."""
PEOPLE_TIMES = 2
"""How often people come in a round."""
NATURAL_TRAINED = ("natural", "natural-first")

MIXED_WORD_CLIPS = 3000
RECORDED_CLIPS = 4000
NATURAL_CLIPS = 12_000
NATURAL_DEVELOPMENT_CLIPS = 200
RESERVED_CLIPS, RESERVED_KNOWN = 60, 300
"""Clips of each voice that only judges, and the known sentences that they choose from. Two of five are new."""
FOLLOW_UP_TAKES = 30
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
    clips have answers, or only words; times: how often each comes in a round of training.
    """

    texts: list[str]
    voices: list[str]
    styles: list[str | None]
    answered: bool
    mel: NDArray[np.float16]
    ends: NDArray[np.int64]
    times: int = 1

    def __len__(self) -> int:
        return len(self.texts)

    def frames(self, index: int) -> int:
        """Log-mel frames of one clip."""
        return int(self.ends[index] - (self.ends[index - 1] if index else 0))

    def get(self, index: int) -> NDArray[np.float32]:
        """Log-mel (frames, 128) of one clip."""
        return self.mel[self.ends[index] - self.frames(index) : self.ends[index]].astype(np.float32)


def command_jobs() -> Iterator[SynthesisJob]:
    """What formant and diphone voices say: the first world by many voices, and the widened one by chance."""
    for number, sentence in enumerate(s for s in FIRST if not s.held_out):
        for take in range(ESPEAK_TAKES):
            yield SynthesisJob(sentence.command, "espeak", number * 1009 + take)
        for name in FLITE_TRAINED:
            for take in range(FLITE_TAKES):
                yield SynthesisJob(sentence.command, f"flite:{name}", number * 2003 + take)
    chance = random.Random(5)
    sentence = SENTENCES[0]
    for number in range(DRAWN_CLIPS):
        near = neighbour(sentence, chance) if number % 2 else None
        said, sentence = (near.command, near) if near else drawn(chance)
        yield SynthesisJob(said, _trained_voice(number // 2), 12 * 10**6 + number)
    for number in range(WORD_SALAD_CLIPS):
        words = " ".join(chance.choice(WORDS) for _ in range(chance.randint(2, 6)))
        yield SynthesisJob(words, _trained_voice(number), 10**6 + number)
    for number in range(OUTSIDE_CLIPS):
        text = talk(2 * 10**6 + number) if number % 2 else outside_sentence(number)
        yield SynthesisJob(text, _trained_voice(number // 2), 2 * 10**6 + number)


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
    known = [s.command.split() for s in FIRST if not s.held_out]
    for number in range(MIXED_WORD_CLIPS):
        if number % 2:
            words = list(known[chance.integers(len(known))])
            for place in chance.integers(len(words), size=2):
                words[place] = str(chance.choice(WORDS))
        else:
            words = [str(word) for word in chance.choice(WORDS, chance.integers(2, 8))]
        yield SynthesisJob(" ".join(words), _trained_voice(number // 2), 9 * 10**6 + number)


def style_jobs() -> Iterator[SynthesisJob]:
    """Sentences in a style. Only these teach it: whatever changes pace and pitch elsewhere would teach it wrongly."""
    chance, number, made = random.Random(43), 14 * 10**6, 0
    while made < STYLE_CLIPS:
        number += 1
        if style("espeak", number):
            made += 1
            yield SynthesisJob(drawn(chance)[0], "espeak", number)


def recorded_jobs() -> Iterator[SynthesisJob]:
    """What voices made of recordings say: the mix of the natural ones, with other sentences."""
    voices = random.Random(37)
    for number, text in enumerate(_mix(RECORDED_CLIPS, random.Random(29))):
        yield SynthesisJob(text, voices.choice(RECORDED), 13 * 10**6 + number)


def long_talk(pick: int) -> str:
    """Ten to thirty seconds of talk that is not for Pebble."""
    return " ".join(outside_sentence(10**4 + 10 * pick + i) for i in range(4 + pick % 7))


def _trained_voice(number: int) -> str:
    return ("espeak", "espeak", "flite:rms", "flite:slt")[number % 4]


def evaluation_jobs() -> Iterator[SynthesisJob]:
    """Known and new sentences by voices that were never trained on, and new outside sentences."""
    known = [s for s in FIRST if not s.held_out]
    chance = np.random.default_rng(11)
    known = [known[i] for i in chance.permutation(len(known))[:200]]
    new = [s for s in FIRST if s.held_out]
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
    commands = {s.command for s in FIRST if not s.held_out}
    short = [command for command in sorted(commands) if any(f"{command} in the {room}" in commands for room in ROOMS)]
    for number in range(TYPED_EVALUATED):
        yield SynthesisJob(short[number % len(short)], "espeak-held-out", 10 * 10**6 + number)
    voices = ("espeak-held-out", "espeak-held-out", "espeak-held-out", "flite:awb")
    for number in range(LONG_EVALUATED):
        yield SynthesisJob(long_talk(LONG_CLIPS + number), voices[number % len(voices)], 11 * 10**6 + number)
    for number in range(SOUNDS_EVALUATED):
        yield SynthesisJob("", "silence", SOUND_CLIPS + number)
        yield SynthesisJob(MUSIC, "music", SOUND_CLIPS + number)


def natural_jobs() -> Iterator[SynthesisJob]:
    """What natural voices say, in a mix that any first part of the set has too."""
    for number, text in enumerate(_mix(NATURAL_CLIPS, random.Random(17))):
        yield SynthesisJob(text, "natural", 20 * 10**6 + number)


def _mix(count: int, chance: random.Random) -> Iterator[str]:
    """What a set of voices says.

    Of 20 clips 7 are drawn from the world, 7 differ from the clip before in one word, 2 differ from a sentence in words
    of any kind, 2 are random words of the world, and 2 are talk outside it.
    """
    sentence = SENTENCES[0]
    for number in range(count):
        kind = number % 20
        if kind < 14:
            near = neighbour(sentence, chance) if kind % 2 else None
            said, sentence = (near.command, near) if near else drawn(chance)
        elif kind < 16:
            said = with_other_words(drawn(chance)[0], chance)
        elif kind < 18:
            said = " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 6)))
        else:
            said = talk(number) if kind == 18 else chance.choice((*FOLLOW_UPS, talk(number)))
        yield said


def with_other_words(said: str, chance: random.Random) -> str:
    """A sentence with one or two words replaced by any of the world, so that it is no sentence any more."""
    while True:
        words = said.split()
        for _ in range(chance.randint(1, 2)):
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        changed = " ".join(words)
        if not meant(changed):
            return changed


def natural_development_jobs() -> Iterator[SynthesisJob]:
    """Known and new sentences, and talk, by voices that are in no training clip."""
    chance = random.Random(19)
    new = [s for s in SENTENCES if s.held_out]
    for number in range(NATURAL_DEVELOPMENT_CLIPS):
        said = (drawn(chance)[0], chance.choice(new).command, chance.choice(FIRST).command, talk(10**6 + number))
        yield SynthesisJob(said[number % 4], "natural-development", 30 * 10**6 + number)


def natural_reserved_jobs() -> Iterator[SynthesisJob]:
    """Known and new sentences by the voices that only judge."""
    chance = random.Random(31)
    known = chance.sample([s for s in LISTED if not s.held_out], RESERVED_KNOWN)
    new = [s for s in SENTENCES if s.held_out]
    for number in range(RESERVED_CLIPS):
        for place, voice in enumerate((*RESERVED, JOE)):
            seed = 10 * number + place
            sentence = chance.choice(new) if number % 5 > 2 else known[seed % len(known)]
            yield SynthesisJob(sentence.command, f"natural:{voice}", 40 * 10**6 + seed)


NATURAL_SETS = {
    "natural": natural_jobs,
    "natural-development": natural_development_jobs,
    "natural-reserved": natural_reserved_jobs,
}
"""Sets that `natural.py` makes, by name."""


def recorded_clips(cache: Path) -> ClipStore:
    """The clips of the voices made of recordings."""
    return make_clips(recorded_jobs(), cache / "recorded.npz", "speaking the set 'recorded'")


def training_features(cache: Path, people: Path | None = None, natural: bool = True) -> list[Features]:
    """The training sets: as many natural voices as were made so far, and people if there is a folder of them.

    natural: without it, neither natural voices nor those made of recordings.
    """
    noise = noises(people) if people else []
    sets = [
        _features(cache, "train", command_jobs, noise),
        replace(_features(cache, "around", around_jobs, noise), times=AROUND_TIMES),
        replace(_features(cache, "words", word_jobs, noise), answered=False),
        _styles(cache, noise),
    ]
    if natural:
        recorded = clip_features(recorded_clips(cache), cache / "recorded", PASSES, noise)
        sets.append(replace(recorded, times=RECORDED_TIMES))
    for folder in NATURAL_TRAINED if natural else ():
        for path in shard_paths(cache / folder):
            features = clip_features(ClipStore.load(path), path.with_suffix(""), NATURAL_PASSES, noise)
            sets.append(replace(features, times=NATURAL_TIMES))
    if people:
        store = people_clips(people)
        sets.append(replace(clip_features(store, cache / "people", PASSES, noise), times=PEOPLE_TIMES))
    return sets


def _features(cache: Path, name: str, jobs: Callable[[], Iterator[SynthesisJob]], noise: list[Waveform]) -> Features:
    """Augmented log-mel of a set of jobs. The clips and the log-mel are made once."""
    clips = make_clips(jobs(), cache / f"{name}.npz", f"speaking the set {name!r}")
    return clip_features(clips, cache / name, PASSES, noise)


def _styles(cache: Path, noise: list[Waveform]) -> Features:
    """Clips in a style, whose pace and pitch stay as they are."""
    clips = make_clips(style_jobs(), cache / "styles.npz", "speaking the set 'styles'")
    features = clip_features(clips, cache / "styles", 1, noise, as_spoken=True)
    return replace(features, styles=[style(job.voice, job.seed) for job in style_jobs()], times=STYLE_TIMES)


def clip_features(
    clips: ClipStore, path: Path, passes: int, noise: list[Waveform], as_spoken: bool = False
) -> Features:
    """`passes` augmented versions of every clip, in the files whose names begin with `path`. They are made once."""
    mel_path, about_path = path.with_name(f"{path.name}-mel.f16"), path.with_name(f"{path.name}-mel.json")
    if not about_path.is_file():
        babble = [clips.waveform(i) for i in range(0, len(clips), max(1, len(clips) // 200))]
        _work.update(clips=clips, around=Surroundings(babble, noise), log_mel=LogMel(), as_spoken=as_spoken)
        tasks = [(index, seed) for seed in range(passes) for index in range(len(clips))]
        ends, total = [], 0
        with Pool(WORKERS) as pool, atomic_write(mel_path) as part, part.open("wb") as stream:
            for mel in track(pool.imap(_one, tasks, chunksize=16), f"log-mel of {path.name!r}", total=len(tasks)):
                stream.write(mel.tobytes())
                total += len(mel)
                ends.append(total)
        write_text(about_path, json.dumps({"ends": ends}))
    frames = np.array(json.loads(about_path.read_text())["ends"])
    mel = np.memmap(mel_path, np.float16, "r", shape=(int(frames[-1]), 128))
    count = len(clips) * passes
    return Features(clips.texts * passes, clips.voices * passes, [None] * count, True, mel, frames)


_work: dict[str, Any] = {}
"""What the worker processes of `clip_features` share."""


def _one(task: tuple[int, int]) -> NDArray[np.float16]:
    """Log-mel of one clip in one augmented version (runs in a worker)."""
    index, seed = task
    chance = np.random.default_rng([seed, index])
    waveform = heard(_work["clips"].waveform(index), _work["around"], chance, as_spoken=_work["as_spoken"])
    mel: NDArray[np.float32] = _work["log_mel"](waveform)
    return mel.astype(np.float16)
