"""Speech faster or slower, with its pitch kept: WSOLA (Verhelst and Roelands, 1993), piece by piece.

In: samples as they come. Out: about 1/speed times as many. Short segments of the sound, which overlap by half, are
taken closer together (slower) or further apart (faster) than they are laid. Each is moved a little, to where it
continues the one before best, so that the periods of the voice fit together. What is kept does not grow with the
sound.
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.protocols import Floats

SLOWEST, FASTEST = 0.25, 4.0
"""Speeds that can be asked for: OpenAI's."""

_HOP = 0.015
"""Seconds of output a segment adds: half of its length, as neighbours overlap by half. Some periods of any voice."""

_SEARCH = 0.008
"""Seconds by which a segment may be moved. Both ways together they are more than a period of a voice of 80 Hz."""

_CENTRED = 1e-3
"""How much less a segment at the end of the search counts: where all fit alike, as in silence, the tempo is even."""


class Tempo:
    """Changes the speed of one sound.

    Args:
        rate: Hz.
        speed: how many times as fast, within `SLOWEST` and `FASTEST`; at 1 the samples are handed on as they are.
    """

    def __init__(self, rate: int, speed: float) -> None:
        self._speed = speed
        self._hop, self._search = round(_HOP * rate), round(_SEARCH * rate)
        self._up = np.sin(np.pi / 2 * (np.arange(self._hop) + 0.5) / self._hop, dtype=np.float32) ** 2
        offsets = np.arange(-self._search, self._search + 1)
        self._penalty = _CENTRED * np.abs(offsets) / max(1, self._search)
        # All positions count from the beginning of the sound. `_kept` begins at `_begin`: a search before the
        # first sample finds silence.
        self._begin = -self._search
        self._kept: Floats = np.zeros(self._search, np.float32)
        self._next = 0.0  # where the next segment would lie if it were not moved
        self._continues = 0  # where the sound goes on after the segment before
        self._taken = self._made = 0

    def push(self, samples: Floats) -> Floats:
        """Take the next samples (n,); returns those that are certain by now."""
        if self._speed == 1:
            return samples
        self._taken += len(samples)
        self._kept = np.concatenate([self._kept, samples])
        made = self._segments(self._taken / self._speed)
        self._made += len(made)
        return made

    def finish(self) -> Floats:
        """End the sound; returns the samples that are left."""
        if self._speed == 1:
            return np.zeros(0, np.float32)
        whole = round(self._taken / self._speed)
        # Silence after the end, so that the last segments can be taken, too.
        self._kept = np.concatenate([self._kept, np.zeros(3 * self._hop + 2 * self._search, np.float32)])
        left = whole - self._made
        return self._segments(whole + self._hop)[:left]

    def _segments(self, most: float) -> Floats:
        """The output of all segments that lie in the sound so far, and make no more than `most` samples in all."""
        made = [np.zeros(0, np.float32)]
        count = self._made
        while count + self._hop <= most and max(
            round(self._next) + self._search, self._continues
        ) + 2 * self._hop <= self._begin + len(self._kept):
            made.append(self._segment())
            count += self._hop
        return np.concatenate(made)

    def _segment(self) -> Floats:
        """The next `_hop` samples: the sound before fades out while the best segment fades in."""
        wanted = round(self._next)
        fading = self._part(self._continues, self._hop)
        searched = self._part(wanted - self._search, 2 * self._search + self._hop)
        at = wanted - self._search + self._best(searched, fading)
        made: Floats = fading + self._up * (self._part(at, self._hop) - fading)
        self._continues = at + self._hop
        self._next += self._speed * self._hop
        self._forget(min(self._continues, round(self._next) - self._search))
        return made

    def _best(self, searched: Floats, fading: Floats) -> int:
        """Where in `searched` a part is most like `fading`: their correlation, over the part's own loudness."""
        likeness = np.correlate(searched, fading, "valid")
        powers = np.concatenate([[0.0], np.cumsum(np.square(searched, dtype=np.float64))])
        power = np.maximum(powers[len(fading) :] - powers[: -len(fading)], 1e-9)
        scale = np.sqrt(power * max(float(fading @ fading), 1e-9))
        return int(np.argmax(likeness / scale - self._penalty))

    def _part(self, begin: int, count: int) -> Floats:
        return self._kept[begin - self._begin :][:count]

    def _forget(self, before: int) -> None:
        """Samples before this position are not needed any more."""
        if before > self._begin:
            self._kept = self._kept[before - self._begin :]
            self._begin = before
