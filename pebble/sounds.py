"""What a microphone hears when nobody speaks to it: rooms, hum and hiss, and music.

In: a seed. Out: a waveform at 16 kHz. Silence and steady noise are the same to Pebble, because its log-mel is
normalised and the level is lost: nothing was said. Music is unknown to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
Waveform = NDArray[np.float32]

SCALE = (0, 2, 4, 5, 7, 9, 11)
"""Semitones of the major scale."""


def silence(seed: int) -> Waveform:
    """Half a second to six seconds of nothing, hiss, a room's rumble or mains hum."""
    chance = np.random.default_rng(seed)
    length = int(RATE * chance.uniform(0.5, 6))
    kind = chance.integers(5)
    if kind == 0:
        return np.zeros(length, np.float32)
    spectrum = np.fft.rfft(chance.standard_normal(length))
    slope = (0.0, 0.5, 1.0, chance.uniform(0, 1))[kind - 1]
    noise = np.fft.irfft(spectrum / (np.arange(len(spectrum)) + 1) ** slope, length)
    noise /= np.abs(noise).max()
    if kind == 4:
        base = chance.choice([50, 60])
        seconds = np.arange(length) / RATE
        hum = sum(np.sin(2 * np.pi * base * n * seconds + chance.uniform(0, 6)) / n for n in range(1, 8))
        noise = noise + hum * chance.uniform(0.3, 2)
    return noise.astype(np.float32)


def music(seed: int) -> Waveform:
    """One and a half to eight seconds of chords, a tune above them and sometimes a beat."""
    chance = np.random.default_rng(seed)
    length = int(RATE * chance.uniform(1.5, 8))
    beat = int(RATE * chance.uniform(0.2, 0.6))
    root = chance.uniform(90, 260)
    bright = chance.uniform(0.4, 1.6)
    played = np.zeros(length + 2 * RATE)
    for number, start in enumerate(range(0, length, beat)):
        step = chance.integers(len(SCALE))
        chord = [SCALE[(step + i) % len(SCALE)] + 12 * ((step + i) // len(SCALE)) for i in (0, 2, 4)]
        if number % 4 == 0:
            for note in chord:
                _add(played, start, _tone(root * 2 ** (note / 12), 4 * beat, bright, chance), 0.4)
        _add(played, start, _tone(2 * root * 2 ** (chord[chance.integers(3)] / 12), beat, bright, chance), 0.6)
        if seed % 2:
            hit = chance.standard_normal(RATE // 10) * np.exp(-np.arange(RATE // 10) / (RATE * 0.015))
            _add(played, start, hit, 0.3)
    loudest: np.float64 = np.abs(played[:length]).max()
    return (played[:length] / loudest).astype(np.float32)


def _tone(frequency: float, length: int, bright: float, chance: np.random.Generator) -> NDArray[np.float64]:
    seconds = np.arange(min(length, 2 * RATE)) / RATE
    partials = [n for n in range(1, 12) if n * frequency < 7000]
    tone = sum(np.sin(2 * np.pi * n * frequency * seconds + chance.uniform(0, 6)) / n**bright for n in partials)
    envelope = np.minimum(seconds / 0.01, 1) * np.exp(-seconds * chance.uniform(1, 6))
    result: NDArray[np.float64] = tone * envelope
    return result


def _add(target: NDArray[np.float64], start: int, sound: NDArray[np.float64], level: float) -> None:
    end = min(len(target), start + len(sound))
    target[start:end] += level * sound[: end - start]
