"""What every player has in common: a reply's sound on its way out, and what was played of it.

In: samples at the model's rate, from the thread that makes them. Out: samples at the player's own rate, for the thread
that plays them. `fill` is all that the second thread calls.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from voxrill.runtime.audio.jitter import JitterPolicy
from voxrill.runtime.audio.onset import Onset
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.reply_sound import ReplySound
from voxrill.runtime.audio.resampler import Resampler

FADE = 0.003
"""Seconds of fading in or out: short, but long enough not to click."""


class ReplyPlayer:
    """The part of a `Player` that knows no device.

    Args:
        sample_rate: the model's, Hz.
        clock: seconds.
    """

    def __init__(self, sample_rate: int, clock: Callable[[], float]) -> None:
        self._model_rate = sample_rate
        self._clock = clock
        self._onset = Onset(sample_rate)
        self._reply = ReplySound(sample_rate, JitterPolicy(None, 0.0))
        self._reply.finish(np.empty(0, np.float32))

    def _begin_reply(self, own_rate: int, rate: float | None, expected_seconds: float) -> None:
        """Begin a reply that is played at `own_rate` Hz."""
        self._onset = Onset(self._model_rate)
        self._resampler = Resampler(self._model_rate, own_rate)
        self._reply = ReplySound(own_rate, JitterPolicy(rate, expected_seconds))

    def push(self, samples: Floats) -> None:
        """Append to the reply: (n,) at the model's rate."""
        if self._reply.first_queued is None:
            self._reply.first_queued = self._clock()
        sounding = self._onset(samples)
        self._reply.skipped = self._onset.skipped / self._model_rate
        self._reply.push(self._resampler(sounding))

    def finish(self) -> None:
        """The reply is complete: play what there is."""
        self._reply.finish(self._resampler.rest())

    def hold(self, held: bool) -> None:
        """Fade this reply out and hold it, or let it go on."""
        self._reply.held = held

    def stop(self) -> int:
        """Be silent, after a short fade. Returns how many samples of this reply were played, at the model's rate."""
        self._reply.stopped = True
        return self.played()

    def played(self) -> int:
        """Samples of this reply, at the model's rate, that have left for the device or were left out as silence."""
        return self._onset.skipped + round(self._reply.taken * self._model_rate / self._reply.rate)

    def underruns(self) -> int:
        """How often there was not enough of this reply to play."""
        return self._reply.underruns

    def busy(self) -> bool:
        """Whether something of this reply is still to be played."""
        return not self._reply.over

    def first_queued(self) -> float | None:
        """When the first sample of this reply was pushed."""
        return self._reply.first_queued

    def first_played(self) -> float | None:
        """When the first sample of this reply left for the device."""
        return self._reply.first_played

    def _set_fades(self, rate: int, frames: int) -> None:
        """Prepare for calls of `_fill` with `frames` samples at `rate` Hz."""
        self._fade_out = np.zeros(frames, np.float32)
        steps = round(FADE * rate)
        self._fade_out[:steps] = np.linspace(1.0, 0.0, steps)
        self._fade_in = 1.0 - self._fade_out

    def _fill(self, out: Floats) -> int:
        """In the thread that plays: fill `out` (frames,), silence after the sound. Returns the samples of sound."""
        # `begin` may put another reply in place at any moment: this call keeps to the one that it found.
        reply = self._reply
        quiet = reply.stopped or reply.held
        filled = 0 if quiet and reply.silent else reply.fill(out)
        if filled and reply.first_played is None:
            reply.first_played = self._clock()
        out[filled:] = 0.0
        if quiet != reply.silent:  # this is the first call since it changed: fade
            np.multiply(out, self._fade_out if quiet else self._fade_in, out=out)
            reply.silent = quiet
        return filled
