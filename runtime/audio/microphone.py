"""The microphone: native-rate sound from a PortAudio callback, as blocks of 512 samples at 16 kHz.

In: chunks from the device, the first channel only. Out: `Block`s. A device that vanishes is waited for: when it is
back, the next block's `at` shows how much was missed. Blocks come from `read`, which does all the work; the callback
only hands its chunk over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from voxrill.runtime.audio.protocols import BLOCK, RATE, Block
from voxrill.runtime.audio.resampler import Resampler
from voxrill.runtime.audio.ring_buffer import Chunk, RingBuffer
from voxrill.runtime.audio.streams import AudioSystem, DeviceStream, Notify, OpenStream

WAITING_CHUNKS = 1000
"""Chunks that may wait to be read; the model is never that long at a stretch in the thread that reads."""

GLANCE = 0.1
"""Seconds after which a silent device is looked at."""

PATIENCE = 60.0
"""Seconds that a lost device is waited for."""


_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True)
class _Feed:
    """What the device gives from one opening to its end: at `rate` Hz, beginning with sample `origin` at 16 kHz."""

    handover: RingBuffer
    rate: int
    origin: int


class DeviceMicrophone(OpenStream):
    """A `Microphone` on a sound device.

    Args:
        system: PortAudio.
        wanted: the device: its index, name or a part of it; None for the default.
        notify: told, in a sentence, when the device is lost or back.
        patience: seconds that a lost device is waited for.
    """

    def __init__(
        self,
        system: AudioSystem,
        wanted: str | None = None,
        notify: Notify = lambda _text: None,
        patience: float = PATIENCE,
    ) -> None:
        self._stream = DeviceStream(system, "input", wanted, self._prepare, self._move, notify, patience)
        self._clock = system.clock
        self._opened: float | None = None
        self._reading: _Feed | None = None
        self._expected = 0
        self._pending = _NOTHING
        self._at = 0

    def read(self, timeout: float) -> Block | None:
        """The next block; None after `timeout` seconds without one.

        Raises:
            AudioDeviceLost: the device has been gone for longer than `patience`.
        """
        until = self._clock() + timeout
        while len(self._pending) < BLOCK:
            left = until - self._clock()
            feed = self._feed
            chunk = feed.handover.take(min(left, GLANCE))
            if chunk is not None:
                self._take(feed, chunk)
            else:
                self._stream.ensure()
                if left <= GLANCE:
                    return None
        return self._block()

    def _move(self, data: Any) -> None:
        """PortAudio's side: (frames, channels)."""
        self._feed.handover.put(data[:, 0])

    def _prepare(self, rate: int, frames: int) -> None:
        """The device begins, perhaps again, and perhaps at another rate."""
        now = self._clock()
        self._opened = now if self._opened is None else self._opened
        origin = round((now - self._opened) * RATE)
        self._feed = _Feed(RingBuffer(frames, WAITING_CHUNKS, self._clock), rate, origin)

    def _take(self, feed: _Feed, chunk: Chunk) -> None:
        start = chunk.end - len(chunk.samples)
        if feed is not self._reading or start != self._expected:
            self._reading = feed
            self._resampler = Resampler(feed.rate, RATE)
            self._pending = _NOTHING  # it does not hang together with what comes now
            self._at = max(self._at, feed.origin + round(start * RATE / feed.rate))
        self._expected = chunk.end
        self._newest = feed.origin + chunk.end * RATE / feed.rate
        self._came = chunk.at
        self._pending = np.concatenate([self._pending, self._resampler(chunk.samples)])

    def _block(self) -> Block:
        """Cut a block off; its last sample is so much older than the last chunk as it lies before the chunk's end."""
        at = self._at
        samples, self._pending = self._pending[:BLOCK], self._pending[BLOCK:]
        self._at += BLOCK
        return Block(samples, at, self._came - (self._newest - self._at) / RATE)
