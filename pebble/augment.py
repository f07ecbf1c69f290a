"""What happens to a voice on its way to a microphone: noise, babble, rooms, telephones, pace and level.

In: a clean waveform at 16 kHz. Out: the waveform as a device would hear it. It is seeded, so that a set can be made
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000
Waveform = NDArray[np.float32]
Random = np.random.Generator


WHISPERED = 0.12
"""Share of the training clips that are whispered."""
WHISPER_WINDOW = 512
PITCH_PERIOD = 40
"""Samples: the envelope of a spectrum keeps nothing that repeats this slowly. A voice repeats every 40 to 200."""


@dataclass(frozen=True)
class Surroundings:
    """What else can be heard: clips of other voices, and recordings of real noise, if there are any."""

    babble: list[Waveform]
    noises: list[Waveform] = field(default_factory=list)


def heard(
    waveform: Waveform, around: Surroundings, chance: Random, silence: int | None = None, as_spoken: bool = False
) -> Waveform:
    """A training version of a clip: silence around it, and each effect with some probability.

    silence: most samples of it on each side; without it a fifth of the clips have up to two seconds. as_spoken: pace
    and pitch stay as they are.
    """
    if not as_spoken:
        waveform = _spoken_otherwise(waveform, chance)
    longest = silence or (2 * RATE if chance.random() < 0.2 else 4800)
    waveform = padded(waveform, int(chance.integers(0, longest)), int(chance.integers(800, longest)))
    place = chance.random()
    if place < 0.25:
        waveform = reverberated(waveform, chance.uniform(0.1, 0.4), chance.uniform(0.05, 0.3), chance)
    elif place < 0.4:
        waveform = far_away(waveform, chance)
    elif place < 0.5:
        waveform = telephone(waveform)
    level = chance.uniform(0.2, 1.0)
    if chance.random() < 0.6:
        kinds = ("white", "pink", "babble", *(("real",) * 3 if around.noises else ()))
        waveform = noisy(waveform, kinds[chance.integers(len(kinds))], chance.uniform(3, 30), around, chance)
    else:
        hiss = chance.standard_normal(len(waveform)) * chance.uniform(1e-5, 1e-3)
        waveform = (waveform + hiss).astype(np.float32)
    return (waveform * level).astype(np.float32)


def _spoken_otherwise(waveform: Waveform, chance: Random) -> Waveform:
    """Some clips whispered, and half of them at another pace and pitch."""
    if chance.random() < WHISPERED:
        waveform = whispered(waveform, chance)
    if chance.random() < 0.5:
        waveform = soxr.resample(waveform, RATE, int(RATE * chance.uniform(0.85, 1.18)))
    return waveform


def quiet_room(waveform: Waveform, chance: Random) -> Waveform:
    """A clean evaluation version: a little silence around the clip and a trace of noise."""
    waveform = padded(waveform, 2400, 3200)
    return (waveform + chance.standard_normal(len(waveform)) * 1e-4).astype(np.float32)


def whispered(waveform: Waveform, chance: Random) -> Waveform:
    """The clip whispered: noise with the spectral envelope of the voice. Some clips keep a little of the voice.

    The envelope is the cepstrum's slow part. A whisper has no pitch, its formants lie higher, and its low tones are
    weak (Jovicic 1998; Morris and Clements 2002).
    """
    size, hop = WHISPER_WINDOW, WHISPER_WINDOW // 4
    length = -(-len(waveform) // size) * size + 2 * size
    sound = np.zeros(length, np.float32)
    sound[size : size + len(waveform)] = waveform
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))

    def spectra(samples: NDArray[np.floating]) -> NDArray[np.complexfloating]:
        return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * window)

    cepstra = np.fft.irfft(np.log(np.abs(spectra(sound)) + 1e-4))
    cepstra[:, PITCH_PERIOD : size - PITCH_PERIOD + 1] = 0
    envelope = np.exp(np.fft.rfft(cepstra).real)
    bins = np.arange(envelope.shape[1])
    lower = np.minimum(bins / chance.uniform(1.0, 1.12), bins[-1] - 1)
    below = lower.astype(int)
    envelope = envelope[:, below] * (1 - lower % 1) + envelope[:, below + 1] * (lower % 1)
    bright = (np.clip(bins / bins[-1] * 8, 0.05, 2.0)) ** chance.uniform(0.0, 0.8)
    frames = np.fft.irfft(spectra(chance.standard_normal(length)) * envelope * bright) * window
    made = np.zeros(length)
    for shift in range(4):  # every fourth frame begins where the one before it ends
        row = frames[shift::4].ravel()
        made[shift * hop : shift * hop + len(row)] += row
    made = made[size : size + len(waveform)]
    made *= np.sqrt(np.mean(waveform**2) / (np.mean(made**2) + 1e-12))
    voice = chance.uniform(0.1, 0.5) if chance.random() < 0.4 else 0.0
    return (made + voice * waveform).astype(np.float32)


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


def far_away(waveform: Waveform, chance: Random) -> Waveform:
    """The clip from the other end of a room: strong echoes, and high tones that the air and furniture swallow."""
    waveform = reverberated(waveform, chance.uniform(0.3, 0.9), chance.uniform(0.2, 0.6), chance)
    spectrum = np.fft.rfft(waveform)
    corner = chance.uniform(1500, 5000)
    spectrum /= np.sqrt(1 + (np.fft.rfftfreq(len(waveform), 1 / RATE) / corner) ** 2)
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32)


def telephone(waveform: Waveform) -> Waveform:
    """The clip through a telephone: only 300 to 3400 Hz."""
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32)


def noisy(waveform: Waveform, kind: str, snr_db: float, around: Surroundings, chance: Random) -> Waveform:
    """The clip with white noise, pink noise, other voices (babble) or recorded noise (real), `snr_db` below it."""
    noise = chance.standard_normal(len(waveform))
    if kind == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), len(noise))
    elif kind == "babble":
        babble = around.babble
        voices = [np.resize(babble[chance.integers(len(babble))], len(waveform)) for _ in range(4)]
        noise = np.sum([np.roll(voice, chance.integers(len(waveform))) for voice in voices], 0)
    elif kind == "real":
        recorded = around.noises[chance.integers(len(around.noises))]
        noise = np.resize(np.roll(recorded, chance.integers(len(recorded))), len(waveform))
    gain = np.sqrt(np.mean(waveform**2) / (np.mean(noise**2) + 1e-9)) * 10 ** (-snr_db / 20)
    mixed: Waveform = (waveform + noise * gain).astype(np.float32)
    return mixed
