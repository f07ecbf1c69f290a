"""Sounds with silence or a quiet room around their words, for every way in to be tried with."""

import json
import zlib

import numpy as np

from tests.places import CLIPS
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio

AROUND = [(0.0, None), *((seconds, room) for seconds in (0.5, 1.0, 3.0) for room in (None, -50.0))]
"""Seconds on both sides, and the level of the room's noise in all of it, dB of full scale; None: digital silence."""

NAMES = [f"{seconds:g} s of {'silence' if room is None else 'room'}" for seconds, room in AROUND]

SAID = [
    clip
    for clip in json.loads((CLIPS / "held_out.json").read_text("utf-8"))
    if clip["words"] and clip["kind"] != "typed"
]
"""Held-out clips that say a command that Pebble knows."""


def room_noise(samples: int, level: float, seed: int) -> np.ndarray:
    """Noise (samples,) as rooms have it, deeper more of it (pink), at `level` dB of full scale."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 20)), samples)
    return (noise / noise.std() * 10 ** (level / 20)).astype(np.float32)


def surrounded(clip: dict, around: tuple[float, float | None]) -> np.ndarray:
    """A clip's samples at 16 kHz with `around` around them."""
    seconds, room = around
    quiet = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    sound = np.concatenate([quiet, read_audio(CLIPS / clip["file"]), quiet])
    return sound if room is None else sound + room_noise(len(sound), room, zlib.crc32(clip["file"].encode()))
