"""Streams of sound in one direction. They come back when their device comes back.

In: a device's name, and a function that moves samples. Out: a running PortAudio stream at the device's native rate, and
whether it is alive. Input and output are separate streams: their devices may differ, and so may their clocks.

PortAudio lists devices only when it starts, and starting it again ends every stream. So all streams of a process belong
to one `AudioSystem`, which closes and opens them together. Its lock is never taken in a callback.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from voxrill.runtime.audio.devices import (
    LIST,
    THING,
    AudioDevice,
    Direction,
    choose,
    explained,
    found_devices,
    portaudio,
    wants_other_channels,
)
from voxrill.runtime.errors import AudioDeviceError, AudioDeviceLost

PERIODS: dict[Direction, float] = {"input": 0.008, "output": 0.010}
"""Seconds of sound that one call of the callback moves.

Loudspeaker: with three busy programs on two cores, it lost sound 8 times in 14 s when called every 5 ms, and never when
called every 10 ms. Microphone: called every 5 ms it lost nothing, but each call wakes Python while the model computes.
On two cores, the 1.5 B model took 1.38 s of work for a second of sound at 5 ms, 1.27 to 1.33 s at 8 ms, and 1.27 to
1.36 s at 16 ms, when each call also woke the listener. It wakes once a block now.

At 16 and 20 ms the loop's threads and PulseAudio took 5 % of a core instead of 9, and an answer was made 2 % faster.
But an interrupted answer then sounded for 60 to 110 ms, and at 8 and 10 ms for 10 to 60: PortAudio's buffer is some
calls long."""

STALLED = 2.0
"""Seconds without a callback after which a stream counts as dead, even if PortAudio says that it is active."""

RETRY = 1.0
"""Seconds between two attempts to open a lost device."""

Clock = Callable[[], float]
Notify = Callable[[str], None]
Prepare = Callable[[int, int], None]
Move = Callable[[Any], None]
"""Moves samples from or into an array (frames, channels), in PortAudio's thread."""


class AudioSystem:
    """PortAudio in this process. `backend` is sounddevice, or a test's stand-in."""

    def __init__(self, backend: Any = None, clock: Clock = time.perf_counter) -> None:
        self.backend = portaudio() if backend is None else backend
        self.clock = clock
        self.lock = threading.RLock()
        self._streams: list[DeviceStream] = []

    def devices(self) -> list[AudioDevice]:
        """The devices that PortAudio found when it last looked."""
        with self.lock:
            return found_devices(self.backend)

    def add(self, stream: DeviceStream) -> None:
        """Add a stream that is to be closed and opened with the others."""
        with self.lock:
            self._streams.append(stream)

    def remove(self, stream: DeviceStream) -> None:
        """Remove a stream that is not used any more."""
        with self.lock:
            self._streams.remove(stream)

    def look_again(self, lost: DeviceStream) -> None:
        """Open a lost stream again. PortAudio looks for devices again first, unless another stream is in use."""
        with self.lock:
            others = [stream for stream in self._streams if stream is not lost]
            lost.shut()
            if any(stream.in_use() for stream in others):  # closing it now would be heard
                return lost.reopen()
            for stream in others:
                stream.shut()
            self.backend._terminate()  # sounddevice has no public way to look for devices again
            self.backend._initialize()
            for stream in [lost, *others]:
                stream.reopen()


class DeviceStream:
    """A stream on the device called `wanted` (None: the default).

    Args:
        system: the `AudioSystem` that it belongs to.
        direction: input or output.
        wanted: as for `choose`.
        prepare: called before the first callback, and again after a loss, with the rate in Hz and the samples that each
            callback moves.
        move: moves the samples; called in PortAudio's thread.
        notify: called with a sentence when the device is lost or back.
        patience: seconds for which to wait for a lost device.
        in_use: whether closing it for a moment would be heard.

    late: times that the device lost sound because this process was too late.
    """

    def __init__(
        self,
        system: AudioSystem,
        direction: Direction,
        wanted: str | None,
        prepare: Prepare,
        move: Move,
        notify: Notify,
        patience: float,
        in_use: Callable[[], bool] = lambda: False,
    ) -> None:
        self.in_use = in_use
        self.late = 0
        self.name = wanted or "default"
        self.rate = 0
        self._system, self._direction, self._wanted = system, direction, wanted
        self._prepare, self._move, self._notify, self._patience = prepare, move, notify, patience
        self._stream: Any = None
        self._last_call = self._last_try = 0.0
        self._lost: float | None = None

    def open(self) -> None:
        """Open it.

        Raises:
            AudioDeviceError: it is not there, busy, or refuses.
        """
        with self._system.lock:
            self._open()
            self._system.add(self)

    def close(self) -> None:
        """Close it for good."""
        with self._system.lock:
            self._system.remove(self)
            self.shut()

    def ensure(self) -> bool:
        """Check that the device is there. If not, try to open it again, at most once a second. Returns whether it is.

        Raises:
            AudioDeviceLost: it has been gone for longer than `patience`.
        """
        if self._alive() or self._revived():
            if self._lost is not None:
                self._lost = None
                self._notify(f"The {self._thing} is back.")
            return True
        if self._lost is None:
            self._lost = self._system.clock()
            self._notify(f"The {self._thing} is gone; waiting for it.")
        elif self._system.clock() - self._lost > self._patience:
            raise AudioDeviceLost(
                f"the {self._thing} is gone and did not come back in {self._patience:.0f} s",
                f"Connect it again, or choose another; {LIST}",
            )
        return False

    def reopen(self) -> None:
        """Open it again if it can be opened now."""
        with self._system.lock:
            self.shut()
            with suppress(AudioDeviceError):
                self._open()

    def shut(self) -> None:
        """Close it until `reopen`."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

    @property
    def _thing(self) -> str:
        return f"{THING[self._direction]} {self.name}"

    def _alive(self) -> bool:
        stream = self._stream
        return stream is not None and stream.active and self._system.clock() - self._last_call < STALLED

    def _revived(self) -> bool:
        with self._system.lock:
            now = self._system.clock()
            if self._lost is not None and now - self._last_try < RETRY:
                return False
            self._last_try = now
            self._system.look_again(self)
            return self._alive()

    def _open(self) -> None:
        device = choose(self._system.devices(), self._direction, self._wanted)
        self.name, self.rate = device.name, device.rate
        frames = round(PERIODS[self._direction] * device.rate)
        self._prepare(device.rate, frames)
        try:
            self._stream = self._made(device, frames)
            self._last_call = self._system.clock()
            self._stream.start()
        except self._system.backend.PortAudioError as error:
            self.shut()
            raise explained(error, device, self._direction) from error

    def _made(self, device: AudioDevice, frames: int) -> Any:
        """The stream: with one channel, or with two where the device cannot do one."""
        backend = self._system.backend
        make = backend.InputStream if self._direction == "input" else backend.OutputStream
        options = {
            "samplerate": device.rate,
            "blocksize": frames,
            "device": device.index,
            "dtype": "float32",
            "latency": "low",
            "callback": self._called,
        }
        try:
            return make(channels=1, **options)
        except backend.PortAudioError as error:
            if device.channels(self._direction) == 1 or not wants_other_channels(error):
                raise
            return make(channels=2, **options)

    def _called(self, data: Any, _frames: int, _time: Any, status: Any) -> None:
        """The callback, in PortAudio's thread. It must not wait for any lock: a late callback is heard."""
        self._last_call = self._system.clock()
        if status and (status.output_underflow or status.input_overflow):
            self.late += 1
        self._move(data)


class OpenStream:
    """The base of a microphone and a loudspeaker: its stream, `_stream`, is open within a `with` block."""

    _stream: DeviceStream

    def __enter__(self) -> Self:
        """Open the device.

        Raises:
            AudioDeviceError: it is not there, busy, or refuses.
        """
        self._stream.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def name(self) -> str:
        """The device's own name."""
        return self._stream.name

    @property
    def rate(self) -> int:
        """The device's native rate, Hz."""
        return self._stream.rate
