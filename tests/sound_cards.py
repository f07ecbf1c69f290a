"""A sounddevice that stands in for the real one: devices come and go as a test says, and callbacks are called by hand.

In: the devices there are. Out: streams whose callback a test drives, one period at a time, on a clock of its own.
"""

import numpy as np


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class PortAudioError(Exception):
    """As sounddevice raises it: a text and PortAudio's code."""


def card(name, inputs=0, outputs=0, rate=16_000.0):
    """A device as sounddevice lists it."""
    return {
        "name": name,
        "hostapi": 0,
        "max_input_channels": inputs,
        "max_output_channels": outputs,
        "default_samplerate": rate,
    }


class FakeStream:
    """A PortAudio stream whose device is a test."""

    def __init__(self, backend, kind, samplerate, blocksize, device, channels, callback, **_options) -> None:
        backend.check(kind, device, channels)
        self.backend, self.kind, self.device = backend, kind, device
        self.rate, self.blocksize, self.channels, self.callback = samplerate, blocksize, channels, callback
        self.active = self.closed = False
        backend.streams.append(self)

    def start(self):
        self.active = True

    def abort(self, ignore_errors=True):
        self.active = False

    def close(self, ignore_errors=True):
        self.closed = True
        self.backend.streams.remove(self)

    def hear(self, samples):
        """The device has captured (n,) samples: as many callbacks as it takes; every channel but the first is 9."""
        for start in range(0, len(samples), self.blocksize):
            block = samples[start : start + self.blocksize]
            data = np.full((len(block), self.channels), 9.0, np.float32)
            data[:, 0] = block
            self.backend.clock.now += len(block) / self.rate
            self.callback(data, len(block), None, None)

    def play(self, periods=1, status=None):
        """The device wants sound: (n, channels) of so many callbacks."""
        played = []
        for _ in range(periods):
            data = np.full((self.blocksize, self.channels), np.nan, np.float32)
            self.callback(data, self.blocksize, None, status)
            self.backend.clock.now += self.blocksize / self.rate
            played.append(data)
        return np.concatenate(played)


class FakeSounddevice:
    """sounddevice with these devices; those of `refusing` answer opening with (text, code)."""

    PortAudioError = PortAudioError

    def __init__(self, *devices, clock=None, mono=True) -> None:
        self.clock = FakeClock() if clock is None else clock
        self.plugged = list(devices)
        self.refusing: dict[str, tuple[str, int]] = {}
        self.streams: list[FakeStream] = []
        self.mono = mono
        self.starts = 1
        self._listed = list(devices)
        self.default = self

    @property
    def device(self):
        """The defaults for input and output, as `sounddevice.default.device`."""
        kinds = ("max_input_channels", "max_output_channels")
        return [next((i for i, one in enumerate(self._listed) if one[kind]), -1) for kind in kinds]

    def query_hostapis(self):
        return [{"name": "Fake"}]

    def query_devices(self):
        return list(self._listed)

    def InputStream(self, **options):
        return FakeStream(self, "input", **options)

    def OutputStream(self, **options):
        return FakeStream(self, "output", **options)

    def _terminate(self):
        assert not self.streams, "PortAudio was ended under an open stream"

    def _initialize(self):
        self.starts += 1
        self._listed = list(self.plugged)

    def check(self, _kind, index, channels):
        device = self._listed[index]
        if device not in self.plugged:
            raise PortAudioError("Error opening stream", -9996)
        if device["name"] in self.refusing:
            raise PortAudioError(*self.refusing[device["name"]])
        if channels == 1 and not self.mono:
            raise PortAudioError("Error opening stream", -9998)

    def unplug(self, name):
        """A device vanishes."""
        self.plugged = [device for device in self.plugged if device["name"] != name]
        for stream in self.streams:
            stream.active &= self._listed[stream.device] in self.plugged

    def stream(self, kind):
        """The open stream of a kind."""
        (found,) = [stream for stream in self.streams if stream.kind == kind]
        return found
