"""Text to speech, many voices: the only source of Pebble's training and evaluation sound.

In: sentences of `world`. Out: a `ClipStore` for each set (int16 waveforms at 16 kHz with text and voice), in one .npz
that is made once. Training uses variants of espeak-ng, three flite voices, RHVoice, Pico, and two of festival. Other
espeak variants, flite's awb and two of festival are for evaluation only. It needs Debian's espeak-ng, flite, festival,
festvox-kallpc16k, festvox-us-slt-hts, festvox-kdlpc16k, festvox-rablpc16k, rhvoice, rhvoice-english and, from its
component non-free, libttspico-utils.
"""

from __future__ import annotations

import io
import random
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track
from sounds import music, silence

from voxrill.runtime.atomic_write import atomic_write

RATE = 16_000

ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029")
HELD_OUT_VARIANTS = ("Lee", "m4", "f4", "Andy", "linda", "klatt4")
VARIANTS = (
    "", "", "", "Alex", "Alicia", "Andrea", "Annie", "Denis", "Gene", "Henrique", "Hugo", "Jacky", "Marco", "Mario",
    "Michael", "Mike", "Storm", "adam", "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david",
    "ed", "edward", "f1", "f2", "f3", "f5", "grandma", "grandpa", "gustave", "iven", "john", "klatt", "klatt2",
    "klatt3", "m1", "m2", "m3", "m5", "m6", "m7", "m8", "marcelo", "max", "michel", "miguel", "norbert", "pablo",
    "paul", "pedro", "rob", "robert", "sandro", "shelby", "steph", "steph2", "steph3", "travis", "victor", "zac",
)  # fmt: skip
FLITE_TRAINED = ("rms", "slt", "kal16")
EVALUATED_ONLY = ("flite:awb", "festival:kal", "festival:hts")
FESTIVAL = {
    "kal": "voice_kal_diphone", "hts": "voice_cmu_us_slt_arctic_hts",
    "ked": "voice_ked_diphone", "rab": "voice_rab_diphone",
}  # fmt: skip
RECORDED = (
    "rhvoice:alan", "rhvoice:bdl", "rhvoice:clb", "rhvoice:slt", "pico:en-US", "pico:en-GB",
    "festival:ked", "festival:rab",
)  # fmt: skip
"""Voices made of recordings of eight people. They teach."""

SOUNDS = {"silence": silence, "music": music}
"""Sounds that are no voice, by their name in a job."""

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class SynthesisJob:
    """One clip to make: `voice` is espeak, espeak-held-out, ENGINE:NAME, or a name of `SOUNDS`."""

    text: str
    voice: str
    seed: int


@dataclass
class ClipStore:
    """A set of clips. sound: int16, all clips joined; ends: sample where each ends."""

    texts: list[str]
    voices: list[str]
    sound: NDArray[np.int16]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def waveform(self, index: int) -> Waveform:
        """One clip, float32."""
        start = self.ends[index - 1] if index else 0
        return self.sound[start : self.ends[index]].astype(np.float32) / np.float32(32768)

    def save(self, path: Path) -> None:
        """Write the whole set to `path`, or nothing."""
        with atomic_write(path) as part, part.open("wb") as stream:
            np.savez(stream, texts=self.texts, voices=self.voices, sound=self.sound, ends=self.ends)

    @classmethod
    def load(cls, path: Path) -> ClipStore:
        """Read what `save` wrote."""
        data = np.load(path)
        return cls(data["texts"].tolist(), data["voices"].tolist(), data["sound"], data["ends"])


def speak(text: str, voice: str, seed: int) -> tuple[Waveform, int]:
    """Synthesise `text`; the sound as the engine made it, and its rate in Hz."""
    engine, _, name = voice.partition(":")
    if engine in ("espeak", "espeak-held-out"):
        full, pace, pitch = delivery(voice, seed)
        return _run(["espeak-ng", "-v", full, "-s", str(pace), "-p", str(pitch), "--stdout", text])
    if engine == "flite":
        chance = random.Random(seed)
        stretch = 1.0 if seed < 0 else chance.uniform(0.85, 1.25)
        options = ["-voice", name, "--setf", f"duration_stretch={stretch:.2f}", "-t", text]
        return _run(["flite", *options, "-o", "/dev/stdout"])
    speed = random.Random(seed).uniform(0.85, 1.3)
    if engine == "festival":
        slow = "" if voice in EVALUATED_ONLY else f"(Parameter.set 'Duration_Stretch {1 / speed:.2f})"
        return _run(["text2wave", "-eval", f"(begin ({FESTIVAL[name]}) {slow})", "-o", "/dev/stdout"], text)
    with tempfile.TemporaryDirectory() as folder:  # these two write no WAV to stdout
        path = Path(folder) / "clip.wav"
        if engine == "rhvoice":
            _run_quietly(["RHVoice-test", "-p", name, "-r", f"{100 * speed:.0f}", "-o", str(path)], text)
        else:
            _run_quietly(["pico2wave", "-l", name, "-w", str(path), f'<speed level="{100 * speed:.0f}">{text}</speed>'])
        samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


def delivery(voice: str, seed: int) -> tuple[str, int, int]:
    """How an espeak job is spoken: espeak's voice, words a minute (125 to 215), pitch (20 to 80)."""
    chance = random.Random(seed)
    variant = chance.choice(VARIANTS if voice == "espeak" else HELD_OUT_VARIANTS)
    full = chance.choice(ACCENTS) + (f"+{variant}" if variant else "")
    return full, chance.randint(125, 215), chance.randint(20, 80)


def style(voice: str, seed: int) -> str | None:
    """Speaking style of a job: fast and high is excited, slow and low is calm; None in between or not known."""
    if not voice.startswith("espeak"):
        return None
    _, pace, pitch = delivery(voice, seed)
    if pace >= 180 and pitch >= 55:
        return "excited"
    return "calm" if pace <= 160 and pitch <= 45 else None


def _run_quietly(command: list[str], text: str = "") -> bytes:
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


def _run(command: list[str], text: str = "") -> tuple[Waveform, int]:
    """Run a synthesiser that writes a WAV to stdout. The header may lack the length."""
    raw = bytearray(_run_quietly(command, text))
    start = raw.find(b"data") + 8
    raw[start - 4 : start] = (len(raw) - start).to_bytes(4, "little")
    raw[4:8] = (len(raw) - 8).to_bytes(4, "little")
    samples, rate = soundfile.read(io.BytesIO(raw), dtype="float32")
    return samples, rate


def trimmed(waveform: Waveform, rate: int, floor: float = 0.01) -> Waveform:
    """Cut the silence at both ends, except for 10 ms before and 30 ms after."""
    loud = np.flatnonzero(np.abs(waveform) > floor * max(np.abs(waveform).max(initial=0.0), 1e-5))
    if not len(loud):
        return waveform
    return waveform[max(0, loud[0] - rate // 100) : loud[-1] + 3 * rate // 100]


def clip(job: SynthesisJob) -> NDArray[np.int16]:
    """One clip at 16 kHz, trimmed, peak 0.7."""
    if job.voice in SOUNDS:
        return (SOUNDS[job.voice](job.seed) * 0.7 * 32767).astype(np.int16)
    waveform, rate = speak(job.text, job.voice, job.seed)
    waveform = trimmed(soxr.resample(waveform, rate, RATE), RATE)
    waveform = waveform / max(np.abs(waveform).max(initial=0.0), 1e-4) * 0.7
    samples: NDArray[np.int16] = (waveform * 32767).astype(np.int16)
    return samples


def make_clips(jobs: Iterable[SynthesisJob], path: Path, what: str) -> ClipStore:
    """The clips of `jobs`, from `path` if they were made before."""
    if path.is_file():
        return ClipStore.load(path)
    jobs = list(jobs)
    with ThreadPoolExecutor(2) as pool:
        sounds = list(track(pool.map(clip, jobs), what, total=len(jobs)))
    ends = np.cumsum([len(sound) for sound in sounds])
    clips = ClipStore([j.text for j in jobs], [j.voice for j in jobs], np.concatenate(sounds), ends)
    path.parent.mkdir(parents=True, exist_ok=True)
    clips.save(path)
    return clips
