"""The loudspeaker: a reply's sound, resampled to the device's native rate, and played as soon as it will have no gap.

In: samples at the model's rate, as they are made. Out: sound, and what was played of it. The thread that pushes also
resamples, and decides when the reply may start. The callback only moves samples. When the device vanishes in the middle
of a reply, the reply waits for it, and then goes on where it was.
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
"""Seconds for which a reply waits for a lost device."""

FADE = 0.003
"""Seconds of fading in or out: short, but long enough not to click."""

TAPPED_CHUNKS = 100
"""Chunks of 10 ms that may wait at the tap."""


class Speaker(OpenStream):
    """A `Player` on a sound device.

    Args:
        system: PortAudio.
        sample_rate: the model's, Hz.
        wanted: the device: its index, name or a part of it; None for the default.
        notify: called with a sentence when the device is lost or back.
        patience: seconds for which a reply waits for a lost device.
        tapped: put all that is played, silence too, into `tap`, at the device's rate. After a loss, `tap` is another
            ring buffer.
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
        """Begin a reply. `rate` is seconds of computing per second of sound, None if it is not known.

        Raises:
            AudioDeviceLost: the device is gone, and did not come back in time.
        """
        self._stream.ensure()
        self._onset = Onset(self._model_rate)
        self._resampler = Resampler(self._model_rate, self.rate)
        self._reply = ReplySound(self.rate, JitterPolicy(rate, expected_seconds))
        self._late_before = self._stream.late

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
        """Underruns of this reply, and times that the device lost sound because the callback came too late."""
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
        """The device opens, perhaps again, and perhaps at another rate."""
        if self._reply.rate != rate:  # its sound was resampled for the rate before: it cannot go on
            self._reply.stopped = True
        if self._tapped:
            self.tap = RingBuffer(frames, TAPPED_CHUNKS, self._clock)
        self._fade_out = np.zeros(frames, np.float32)
        steps = round(FADE * rate)
        self._fade_out[:steps] = np.linspace(1.0, 0.0, steps)
        self._fade_in = 1.0 - self._fade_out

    def _move(self, data: Any) -> None:
        """In PortAudio's thread: fill (frames, channels)."""
        # `begin` may put another reply in place at any moment: this call keeps to the one that it found.
        reply, first = self._reply, data[:, 0]
        quiet = reply.stopped or reply.held
        filled = 0 if quiet and reply.silent else reply.fill(first)
        if filled and reply.first_played is None:
            reply.first_played = self._clock()
        first[filled:] = 0.0
        if quiet != reply.silent:  # this is the first call since it changed: fade
            np.multiply(first, self._fade_out if quiet else self._fade_in, out=first)
            reply.silent = quiet
        data[:, 1:] = data[:, :1]
        if self.tap is not None:
            self.tap.put(first)
