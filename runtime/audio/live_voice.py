"""Voice activity for a microphone that listens all day: little work while it is quiet, and a glance at what begins.

In: blocks (512,) of a live stream, and the samples of the block under way. Out: the probability of speech, and whether
somebody seems to begin. Sound that is as quiet as the room is not given to the network. While an answer is played, a
sound that rises above the room is looked at before its block is whole.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, Floats
from voxrill.runtime.audio.voice_activity import VoiceActivity

PIECE = 128
"""Samples of a piece of a block: 8 ms. Glances are taken after each."""

_QUIETEST = -80.0
"""dB of full scale: below it a room is not told from a switched-off microphone, and is quiet."""

_RISES = 1.0 * BLOCK_SECONDS
"""dB by which a room may become louder from block to block: 1 dB a second. It becomes quieter at once."""

_ROOM = 3.0
"""dB above the room up to which a piece counts as the room's own. Pieces of white noise reach 2 dB.
With 44 clips of people in white noise as loud as they, every turn was found that is found without this gate, and began
at most 3 blocks away; in a quiet room at most 1. The network was asked for 37 % of the blocks there, mostly speech."""

_CALM = 0.05
"""Probability below which the network says that nobody speaks."""

_SETTLED = 31
"""Calm blocks as quiet as the room, a second, after which the network is asked no more."""

_KEPT = 4
"""Quiet blocks that the network is given late, when it becomes louder."""

ONSET = 10.0
"""dB above the room from which a piece may be the beginning of speech."""

ONSET_VOICE = 0.03
"""Probability from which it is taken for one, too. With both, 20 held-out commands in 3 phases were noticed 8 ms after
their first sound (median; 28 ms at most); by whole blocks and 0.15, after 56 ms (108 ms). In 107 s of kitchens, babble,
animals, music and clatter, 23 a minute were taken for a beginning, most of them by voices."""


class LiveVoice:
    """The detector of one live stream, a `VoiceDetector`.

    Args:
        network: tells speech from other sound; None for silero's.

    asked: blocks that the network was given so far.
    """

    def __init__(self, network: VoiceActivity | None = None) -> None:
        self._network = network or VoiceActivity()
        self._room: float | None = None
        self.asked = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was heard; what the room is like is kept."""
        self._network.reset()
        self._calm = 0
        self._probability = 0.0
        self._skipped: deque[Floats] = deque(maxlen=_KEPT)

    def __call__(self, samples: Floats) -> float:
        """The probability that `samples` (512,), the stream's next, hold speech."""
        pieces = samples.reshape(-1, PIECE)
        powers = np.einsum("ij,ij->i", pieces, pieces) / PIECE
        quiet = _decibels(powers.max()) <= self._follow_room(_decibels(powers.mean())) + _ROOM
        if quiet and self._calm >= _SETTLED:
            self._skipped.append(samples)
            return self._probability
        self._catch_up()
        self._probability = self._ask(samples)
        self._calm = self._calm + 1 if quiet and self._probability < _CALM else 0
        return self._probability

    def begins(self, fresh: Floats) -> bool:
        """Whether somebody seems to begin. fresh: samples (n,) since the last block, at most 512, a multiple of 128."""
        newest = fresh[-PIECE:]
        if self._room is None or _decibels(np.dot(newest, newest) / PIECE) < self._room + ONSET:
            return False
        self._catch_up()
        return self._network.glance(fresh) >= ONSET_VOICE

    def _follow_room(self, loudness: float) -> float:
        """How loud the room is, dB of full scale."""
        self._room = loudness if self._room is None else min(loudness, self._room + _RISES)
        return self._room

    def _catch_up(self) -> None:
        """Give the network the last of what it was not given."""
        while self._skipped:
            self._ask(self._skipped.popleft())

    def _ask(self, samples: Floats) -> float:
        self.asked += 1
        return self._network(samples)


def _decibels(power: float) -> float:
    """A mean square in dB of full scale, as loud as the quietest room at least."""
    return max(_QUIETEST, 10 * math.log10(power)) if power > 0 else _QUIETEST


assert BLOCK % PIECE == 0
