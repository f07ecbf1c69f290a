"""Test waveforms that are the same everywhere.

In: a length in samples and a seed. Out: float32 samples at 16 kHz (1-D), within about 1e-7 of each other on
any machine: everything is computed in float64 from a small integer generator and rounded once.

Why: golden outputs and tests must hear the same sound without shipping recordings.
"""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16_000


def integers(count: int, seed: int) -> np.ndarray:
    """Return ``count`` pseudo-random uint32 values (a 64-bit mix of index and seed; exact everywhere)."""
    mask = (1 << 64) - 1
    offset = np.uint64((seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & mask)
    value = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + offset
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((value ^ (value >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


def noise(n_samples: int, seed: int) -> np.ndarray:
    """Return white noise, float32 [n_samples], in -1..1."""
    return (integers(n_samples, seed) / 2.0**31 - 1).astype(np.float32)


def codes(frames: int, seed: int, codebooks: int = 8) -> np.ndarray:
    """Return made-up audio codes, int64 [codebooks, frames], in 0..2047."""
    values = integers(codebooks * frames, 7000 + seed) % np.uint32(2048)
    return values.astype(np.int64).reshape(codebooks, frames)


def speech_like(n_samples: int, seed: int = 0) -> np.ndarray:
    """Return a speech-like waveform, float32 [n_samples], peak below 1.

    Harmonics of a wandering pitch (90-250 Hz) under a slowly moving spectral tilt, with a syllable-like
    envelope (3-5 a second) that has pauses, and a little noise. A longer waveform starts like a shorter one.
    """
    knobs = integers(16, seed).astype(np.float64) / 2.0**32
    time = np.arange(n_samples, dtype=np.float64) / SAMPLE_RATE
    base = 110.0 + 90.0 * knobs[0]
    slow, fast = 0.31 + 0.2 * knobs[1], 1.7 + 0.8 * knobs[2]
    # Phase in turns: the integral of base * (1 + 0.12 sin(slow) + 0.05 sin(fast)).
    turns = base * (
        time
        + 0.12 * (1.0 - np.cos(2 * np.pi * slow * time)) / (2 * np.pi * slow)
        + 0.05 * (1.0 - np.cos(2 * np.pi * fast * time)) / (2 * np.pi * fast)
    )
    tone = np.zeros(n_samples, dtype=np.float64)
    for harmonic in range(1, 13):
        speed = 2 * np.pi * (0.9 + 0.37 * harmonic * knobs[3])
        sway = 1.0 + 0.6 * np.sin(speed * time + harmonic * knobs[4] * 6.0)
        tone += sway / harmonic * np.sin(2 * np.pi * np.mod(turns * harmonic + knobs[5] * harmonic, 1.0))
    rate = 3.0 + 2.0 * knobs[6]
    envelope = np.clip(0.15 + np.sin(2 * np.pi * (rate * time + knobs[7])), 0.0, 1.0)
    envelope *= 0.55 + 0.45 * np.sin(2 * np.pi * (0.23 * time + knobs[8]))
    noise = integers(n_samples, seed + 100_003).astype(np.float64) / 2.0**31 - 1.0
    wave: np.ndarray = 0.12 * envelope * tone + 0.003 * noise
    return wave.astype(np.float32)
