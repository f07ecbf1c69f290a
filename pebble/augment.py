"""What happens to a voice on its way to a microphone: noise, babble, rooms, telephones, pace and level.

In: a clean waveform at 16 kHz. Out: the waveform as a device would hear it. It is seeded, so that a set can be made
again.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000
Waveform = NDArray[np.float32]
Random = np.random.Generator


def heard(waveform: Waveform, babble: list[Waveform], chance: Random) -> Waveform:
    """A training version of a clip: silence around it, and each effect with some probability."""
    if chance.random() < 0.3:
        waveform = soxr.resample(waveform, RATE, int(RATE * chance.uniform(0.9, 1.1)))
    waveform = padded(waveform, int(chance.integers(0, 4800)), int(chance.integers(800, 4800)))
    if chance.random() < 0.35:
        waveform = reverberated(waveform, chance.uniform(0.1, 0.4), chance.uniform(0.05, 0.3), chance)
    if chance.random() < 0.1:
        waveform = telephone(waveform)
    if chance.random() < 0.6:
        kind = ("white", "pink", "babble")[chance.integers(3)]
        waveform = noisy(waveform, kind, chance.uniform(5, 30), babble, chance)
    else:
        hiss = chance.standard_normal(len(waveform)) * chance.uniform(1e-5, 1e-3)
        return ((waveform + hiss) * chance.uniform(0.2, 1.0)).astype(np.float32)
    return (waveform * chance.uniform(0.2, 1.0)).astype(np.float32)


def quiet_room(waveform: Waveform, chance: Random) -> Waveform:
    """A clean evaluation version: a little silence around the clip and a trace of noise."""
    waveform = padded(waveform, 2400, 3200)
    return (waveform + chance.standard_normal(len(waveform)) * 1e-4).astype(np.float32)


def padded(waveform: Waveform, before: int, after: int) -> Waveform:
    """The clip with `before` and `after` samples of silence around it."""
    return np.pad(waveform, (before, after))


def reverberated(waveform: Waveform, seconds: float, wet: float, chance: Random) -> Waveform:
    """The clip in a room whose echo falls by 60 dB in `seconds`; `wet` is the level of the echo."""
    length = int(RATE * seconds)
    tail = chance.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length) * wet
    tail[0] = 1.0
    size = len(waveform) + length
    mixed = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(tail, size), size)
    return mixed[: len(waveform)].astype(np.float32)


def telephone(waveform: Waveform) -> Waveform:
    """The clip through a telephone: only 300 to 3400 Hz."""
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32)


def noisy(waveform: Waveform, kind: str, snr_db: float, babble: list[Waveform], chance: Random) -> Waveform:
    """The clip with white noise, pink noise or other voices, `snr_db` below it."""
    noise = chance.standard_normal(len(waveform))
    if kind == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), len(noise))
    elif kind == "babble":
        voices = [np.resize(babble[chance.integers(len(babble))], len(waveform)) for _ in range(4)]
        noise = np.sum([np.roll(voice, chance.integers(len(waveform))) for voice in voices], 0)
    gain = np.sqrt(np.mean(waveform**2) / (np.mean(noise**2) + 1e-9)) * 10 ** (-snr_db / 20)
    mixed: Waveform = (waveform + noise * gain).astype(np.float32)
    return mixed
