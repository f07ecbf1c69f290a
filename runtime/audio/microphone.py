"""The microphone: native-rate sound from a PortAudio callback, as blocks of 512 samples at 16 kHz.

In: chunks from the device, the first channel only. Out: `Block`s. When the device vanishes, `read` waits for it; when
it is back, the next block's `at` shows how much was missed. `read` does all the work, in the thread that calls it. The
callback only copies its chunk into a ring buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from voxrill.runtime.audio.protocols import BLOCK, RATE, Block
from voxrill.runtime.audio.ring_buffer import Chunk, RingBuffer
from voxrill.runtime.audio.sinc_resampler import SincResampler
from voxrill.runtime.audio.streams import AudioSystem, DeviceStream, Notify, OpenStream

WAITING_CHUNKS = 1000
"""Chunks that may wait to be read: 8 s. The thread that reads never computes that long without reading."""

POLL = 0.1
"""Seconds without a chunk after which `read` checks whether the device is still there."""

PATIENCE = 60.0
"""Seconds for which `read` waits for a lost device."""


_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True)
class _Feed:
    """The device's sound from one opening to its end.

    ring: where the callback puts it. rate: Hz. origin: what its first sample counts as, in samples at 16 kHz since the
    microphone was opened for the first time.
    """

    ring: RingBuffer
    rate: int
    origin: int


class DeviceMicrophone(OpenStream):
    """A `Microphone` on a sound device.

    Args:
        system: PortAudio.
        wanted: the device: its index, name or a part of it; None for the default.
        notify: called with a sentence when the device is lost or back.
        patience: seconds for which to wait for a lost device.
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

    def read(self, timeout: float, size: int = BLOCK) -> Block | None:
        """The next `size` samples; None after `timeout` seconds without them.

        Raises:
            AudioDeviceLost: the device has been gone for longer than `patience`.
        """
        until = self._clock() + timeout
        while len(self._pending) < size:
            left = until - self._clock()
            feed = self._feed
            chunk = feed.ring.take(min(left, POLL), self._missing(feed, size))
            if chunk is not None:
                self._take(feed, chunk)
            else:
                self._stream.ensure()
                if left <= POLL:
                    return None
        return self._block(size)

    def _missing(self, feed: _Feed, size: int) -> int:
        """Samples of the device without which there is no block: this thread is not woken for fewer."""
        return self._resampler.missing(size - len(self._pending)) if feed is self._reading else 1

    def _move(self, data: Any) -> None:
        """In PortAudio's thread: (frames, channels)."""
        self._feed.ring.put(data[:, 0])

    def _prepare(self, rate: int, frames: int) -> None:
        """The device opens, perhaps again, and perhaps at another rate."""
        now = self._clock()
        self._opened = now if self._opened is None else self._opened
        origin = round((now - self._opened) * RATE)
        self._feed = _Feed(RingBuffer(frames, WAITING_CHUNKS, self._clock), rate, origin)

    def _take(self, feed: _Feed, chunk: Chunk) -> None:
        start = chunk.end - len(chunk.samples)
        # The resampler knows one gapless sound. After a gap, or from another opening, it begins anew, and what waits of
        # the block before is dropped: it does not belong together with what comes now.
        if feed is not self._reading or start != self._expected:
            self._reading = feed
            self._resampler = SincResampler(feed.rate, RATE)
            self._pending = _NOTHING
            # `start` counts the device's own samples. Rounding must not let positions run backwards.
            self._at = max(self._at, feed.origin + round(start * RATE / feed.rate))
        self._expected = chunk.end
        self._newest = feed.origin + chunk.end * RATE / feed.rate
        self._came = chunk.at
        self._pending = np.concatenate([self._pending, self._resampler(chunk.samples)])

    def _block(self, size: int) -> Block:
        """Cut off the next block."""
        at = self._at
        samples, self._pending = self._pending[:size], self._pending[size:]
        self._at += size
        # The newest chunk came at `_came` and ends with sample `_newest`. The block ends with an earlier sample, `_at`,
        # which was captured earlier by the time between the two.
        return Block(samples, at, self._came - (self._newest - self._at) / RATE)
