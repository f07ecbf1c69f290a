"""A tone: sound for measurements that need no words."""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.audio_file import SAMPLE_RATE, Waveform

HZ, LEVEL = 220.0, 0.3  # Pebble answers it; at 440 Hz it has nothing to say
_SOFT = 0.02
"""Seconds of fading in and out."""


def tone(seconds: float = 1.0, hz: float = HZ) -> Waveform:
    """A pure tone (n,) at 16 kHz, float32, faded in and out."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    ends = np.clip(np.minimum(time, seconds - time) / _SOFT, 0, 1)
    return (LEVEL * ends * np.sin(2 * np.pi * hz * time)).astype(np.float32)
