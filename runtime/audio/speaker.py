"""The loudspeaker: a reply's sound, resampled to the device's native rate, and played as soon as it will have no gap.

In: samples at the model's rate, as they are made. Out: sound, and what was played of it. The thread that pushes also
resamples, and decides when the reply may start. The callback only moves samples. When the device vanishes in the middle
of a reply, the reply waits for it, and then goes on where it was.
"""

from __future__ import annotations

from typing import Any

from voxrill.runtime.audio.reply_player import ReplyPlayer
from voxrill.runtime.audio.ring_buffer import RingBuffer
from voxrill.runtime.audio.streams import AudioSystem, DeviceStream, Notify, OpenStream

PATIENCE = 10.0
"""Seconds for which a reply waits for a lost device."""

TAPPED_CHUNKS = 100
"""Chunks of 10 ms that may wait at the tap."""


class Speaker(ReplyPlayer, OpenStream):
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
        super().__init__(sample_rate, system.clock)
        self._stream = DeviceStream(system, "output", wanted, self._prepare, self._move, notify, patience, self.busy)
        self._late_before = 0
        self.tap: RingBuffer | None = None
        self._tapped = tapped

    def begin(self, rate: float | None, expected_seconds: float) -> None:
        """Begin a reply. `rate` is seconds of computing per second of sound, None if it is not known.

        Raises:
            AudioDeviceLost: the device is gone, and did not come back in time.
        """
        self._stream.ensure()
        self._begin_reply(self.rate, rate, expected_seconds)
        self._late_before = self._stream.late

    def underruns(self) -> int:
        """Underruns of this reply, and times that the device lost sound because the callback came too late."""
        return super().underruns() + self._stream.late - self._late_before

    def ensure(self) -> None:
        """While something of this reply is still to be played, wait for a device that is lost.

        Raises:
            AudioDeviceLost: the device is gone, and did not come back in time.
        """
        if self.busy():
            self._stream.ensure()

    def _prepare(self, rate: int, frames: int) -> None:
        """The device opens, perhaps again, and perhaps at another rate."""
        if self._reply.rate != rate:  # its sound was resampled for the rate before: it cannot go on
            self._reply.stopped = True
        if self._tapped:
            self.tap = RingBuffer(frames, TAPPED_CHUNKS, self._clock)
        self._set_fades(rate, frames)

    def _move(self, data: Any) -> None:
        """In PortAudio's thread: fill (frames, channels)."""
        first = data[:, 0]
        self._fill(first)
        data[:, 1:] = data[:, :1]
        if self.tap is not None:
            self.tap.put(first)
