"""The loudspeaker: a reply's sound, resampled to the device's native rate and played when it will not stutter.

In: samples at the model's rate, as they are made. Out: sound, and what was truly played. The thread that pushes
resamples and decides when the reply may start; the callback only moves samples. A device that vanishes is waited for
in the middle of a reply, which then goes on where it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from voxrill.runtime.audio.jitter import JitterPolicy
from voxrill.runtime.audio.onset import Onset
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.reply_sound import ReplySound
from voxrill.runtime.audio.resampler import Resampler
from voxrill.runtime.audio.ring_buffer import RingBuffer
from voxrill.runtime.audio.streams import AudioSystem, DeviceStream, Notify, OpenStream

PATIENCE = 10.0
"""Seconds that a reply waits for a lost device."""

FADE = 0.003
"""Seconds: short, but no click."""

TAPPED_CHUNKS = 100
"""Chunks of 10 ms that may wait at the tap."""


class Speaker(OpenStream):
    """A `Player` on a sound device.

    Args:
        system: PortAudio.
        sample_rate: the model's, Hz.
        wanted: the device: its index, name or a part of it; None for the default.
        notify: told, in a sentence, when the device is lost or back.
        patience: seconds that a reply waits for a lost device.
        tapped: hand all that is played, silence too, over to `tap`, at the device's rate; another one after a loss.
    """

    def __init__(
        self,
        system: AudioSystem,
        sample_rate: int,
        wanted: str | None = None,
        notify: Notify = lambda _text: None,
        patience: float = PATIENCE,
        tapped: bool = False,
    ) -> None:
        self._stream = DeviceStream(system, "output", wanted, self._prepare, self._move, notify, patience, self.busy)
        self._clock = system.clock
        self._model_rate = sample_rate
        self._late_before = 0
        self._onset = Onset(sample_rate)
        self._reply = ReplySound(sample_rate, JitterPolicy(None, 0.0))
        self._reply.finish(np.empty(0, np.float32))
        self.tap: RingBuffer | None = None
        self._tapped = tapped

    def begin(self, rate: float | None, expected_seconds: float) -> None:
        """A new reply; `rate` is seconds of computing per second of sound, None if it is not known.

        Raises:
            AudioDeviceLost: the device is gone, and did not come back in time.
        """
        self._stream.ensure()
        self._onset = Onset(self._model_rate)
        self._resampler = Resampler(self._model_rate, self.rate)
        self._reply = ReplySound(self.rate, JitterPolicy(rate, expected_seconds))
        self._late_before = self._stream.late

    def push(self, samples: Floats) -> None:
        """More of the reply, (n,) at the model's rate."""
        if self._reply.first_queued is None:
            self._reply.first_queued = self._clock()
        sounding = self._onset(samples)
        self._reply.skipped = self._onset.skipped / self._model_rate
        self._reply.push(self._resampler(sounding))

    def finish(self) -> None:
        """No more of this reply comes: play what there is."""
        self._reply.finish(self._resampler.rest())

    def hold(self, held: bool) -> None:
        """Fade this reply out and hold it, or let it go on."""
        self._reply.held = held

    def stop(self) -> int:
        """Silence, after a short fade; the samples of this reply that were played, at the model's rate."""
        self._reply.stopped = True
        return self.played()

    def played(self) -> int:
        """Samples of this reply, at the model's rate, that have left for the device or were left out as silence."""
        return self._onset.skipped + round(self._reply.taken * self._model_rate / self._reply.rate)

    def underruns(self) -> int:
        """Times that this reply ran dry before its end, or that the device wanted it sooner than it could be moved."""
        return self._reply.underruns + self._stream.late - self._late_before

    def ensure(self) -> None:
        """While something of this reply is still to be played, wait for a device that is lost.

        Raises:
            AudioDeviceLost: the device is gone, and did not come back in time.
        """
        if self.busy():
            self._stream.ensure()

    def busy(self) -> bool:
        """Whether something of this reply is still to be played."""
        return not self._reply.over

    def first_queued(self) -> float | None:
        """When the first sample of this reply was pushed."""
        return self._reply.first_queued

    def first_played(self) -> float | None:
        """When the first sample of this reply left for the device."""
        return self._reply.first_played

    def _prepare(self, rate: int, frames: int) -> None:
        """A device of another rate than before cannot go on with a reply."""
        if self._reply.rate != rate:
            self._reply.stopped = True
        if self._tapped:
            self.tap = RingBuffer(frames, TAPPED_CHUNKS, self._clock)
        self._fade_out = np.zeros(frames, np.float32)
        steps = round(FADE * rate)
        self._fade_out[:steps] = np.linspace(1.0, 0.0, steps)
        self._fade_in = 1.0 - self._fade_out

    def _move(self, data: Any) -> None:
        """PortAudio's side: fill (frames, channels)."""
        reply, first = self._reply, data[:, 0]
        quiet = reply.stopped or reply.held
        filled = 0 if quiet and reply.silent else reply.fill(first)
        if filled and reply.first_played is None:
            reply.first_played = self._clock()
        first[filled:] = 0.0
        if quiet != reply.silent:
            np.multiply(first, self._fade_out if quiet else self._fade_in, out=first)
            reply.silent = quiet
        data[:, 1:] = data[:, :1]
        if self.tap is not None:
            self.tap.put(first)
