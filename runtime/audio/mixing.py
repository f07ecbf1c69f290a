"""Several channels to one, without losing what a person hears.

The mean of the channels is what a mono loudspeaker plays. It fails where one channel is the other with its sign
turned, as from a microphone with two wires swapped: a person hears both, and the mean is silence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CANCELLED = 0.03
"""Power of the mean, relative to the loudest channel, below which the channels cancel each other: -15 dB. Channels that
have nothing in common come to -3 dB, a sound in one of two channels alone to -6 dB."""

_QUIET = 1e-6
"""Mean square, full scale 1, below which it does not matter: -60 dB."""


class ChannelMixer:
    """Mixes the blocks of one sound. cancelled: whether channels have cancelled each other in a block so far."""

    def __init__(self) -> None:
        self.cancelled = False

    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[frames, channels]` to `[frames]`: the mean, or the loudest channel where the mean would be silence."""
        if block.shape[1] <= 1:
            return block.reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused later, by name
            mean = np.asarray(block.mean(axis=1), dtype=np.float32)
            powers = np.square(block).mean(axis=0) if len(block) else np.zeros(block.shape[1])
            loudest = int(powers.argmax())
            if powers[loudest] > _QUIET and np.square(mean).mean() < _CANCELLED * powers[loudest]:
                self.cancelled = True
                return np.ascontiguousarray(block[:, loudest])
        return mean
