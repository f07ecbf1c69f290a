"""Do microphone and loudspeaker work here, and does the microphone hear the loudspeaker?

In: an open microphone and loudspeaker, of the same classes as in a talk. Out: levels in dB of full scale, and what is
wrong with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.level import CLIPPED, level
from voxrill.runtime.audio.protocols import BLOCK, RATE, Floats, Microphone, Player
from voxrill.runtime.errors import AudioDeviceError

LISTEN_SECONDS = 1.0
ECHO_SECONDS = 2.0

DEAD = -90.0
"""dB of full scale below which a microphone hears nothing: it is switched off, muted, or not a microphone."""

ECHO_HEARD = 6.0
"""dB above the room's noise from which the loudspeaker counts as heard. The noise itself may vary by 3 dB."""

_READ_SECONDS = 3.0
"""Seconds to wait for a block. PulseAudio's first one has been seen to take most of a second."""


@dataclass(frozen=True)
class MicrophoneLevel:
    """What a microphone heard. level: loudness; peak: loudest sample; both in dB of full scale. clipped: samples."""

    level: float
    peak: float
    clipped: int

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.level < DEAD:
            return "it hears nothing: switch it on, unmute it, or choose another"
        if self.clipped:
            return "it clips: turn it down"
        return ""


def hear(microphone: Microphone, seconds: float = LISTEN_SECONDS) -> MicrophoneLevel:
    """Listen for some seconds.

    Raises:
        AudioDeviceError: it gives no sound.
    """
    return _heard(_samples(microphone, seconds))


def play(player: Player, samples: Floats) -> None:
    """Begin to play all of `samples` (n,), which are at the player's rate."""
    # A rate of 0: everything is made already, so that the player need not wait for more.
    player.begin(0.0, len(samples) / RATE)
    player.push(samples)
    player.finish()


def echo(microphone: Microphone, player: Player) -> tuple[MicrophoneLevel, MicrophoneLevel]:
    """What the microphone hears of the room, and what it hears while noise in the band of speech is played."""
    room = hear(microphone)
    play(player, _speech_noise(ECHO_SECONDS))
    during = hear(microphone, ECHO_SECONDS)
    player.stop()
    return room, during


def is_heard(room: MicrophoneLevel, during: MicrophoneLevel) -> bool:
    """Whether the microphone hears the loudspeaker."""
    return during.level > max(room.level, DEAD) + ECHO_HEARD


def _speech_noise(seconds: float) -> Floats:
    """Noise (n,) in the band of speech, at the loudness of an answer; always the same."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    spectrum = np.fft.rfft(noise)
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    spectrum[(hertz < 200) | (hertz > 4000)] = 0
    shaped = np.fft.irfft(spectrum, len(noise))
    return np.asarray((0.1 * shaped / shaped.std()).clip(-1, 1), np.float32)


def _samples(microphone: Microphone, seconds: float) -> Floats:
    blocks = []
    for _ in range(math.ceil(seconds * RATE / BLOCK)):
        block = microphone.read(_READ_SECONDS)
        if block is None:
            raise AudioDeviceError("the microphone gives no sound", "Connect it again, or choose another")
        blocks.append(block.samples)
    return np.concatenate(blocks)


def _heard(samples: Floats) -> MicrophoneLevel:
    sizes = np.abs(samples)
    return MicrophoneLevel(
        level=level(samples),
        peak=_decibels(float(sizes.max())),
        clipped=int(np.count_nonzero(sizes >= CLIPPED)),
    )


def _decibels(size: float) -> float:
    return 20 * math.log10(size) if size > 0 else -math.inf
