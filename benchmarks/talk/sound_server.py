"""A private PulseAudio whose devices are wires, with a virtual user at one end and a program that talks at the other.

In: names of wires. Out: for each wire an environment in which PortAudio's devices are the program's end, and the names
of the user's end. A wire is one null sink with two channels: the user is left, the program is right. So one recording
holds both on one clock, and the time between a question and its answer can be counted in samples.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from voxrill.runtime.errors import AudioDeviceError

WIRE_RATE = 44_100
"""Hz of a wire: the native rate of PortAudio through ALSA. With two different rates PulseAudio gave garbage, or
hung."""

IDLE_SECONDS = 30
"""Seconds without a client after which the server ends by itself, if nobody has ended it."""

_OPTIONS = ("--daemonize=no", "--use-pid-file=no", f"--exit-idle-time={IDLE_SECONDS}")

_START_SECONDS = 10.0
_CALL_SECONDS = 10.0

_WIRE = """\
load-module module-null-sink sink_name={0} rate={rate} channels=2 channel_map=front-left,front-right
load-module module-remap-sink sink_name={0}.user master={0} channels=1 master_channel_map=front-left \
channel_map=mono remix=no
load-module module-remap-sink sink_name={0}.speaker master={0} channels=1 master_channel_map=front-right \
channel_map=mono remix=no
load-module module-remap-source source_name={0}.microphone master={0}.monitor channels=1 \
master_channel_map=front-left channel_map=mono remix=no
"""


@dataclass(frozen=True)
class SoundWire:
    """A wire between user and program. server: the address for PulseAudio's own programs."""

    name: str
    server: dict[str, str]

    @property
    def user(self) -> str:
        """The sink that the user speaks into."""
        return f"{self.name}.user"

    @property
    def monitor(self) -> str:
        """The source that both sides are recorded from: left the user, right the program."""
        return f"{self.name}.monitor"

    @property
    def program(self) -> dict[str, str]:
        """The environment of a program whose default devices are this wire."""
        return {**self.server, "PULSE_SINK": f"{self.name}.speaker", "PULSE_SOURCE": f"{self.name}.microphone"}


class SoundServer:
    """PulseAudio with these wires, for a `with` block."""

    def __init__(self, *wires: str) -> None:
        self._names = wires

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            AudioDeviceError: PulseAudio is not installed, or does not start.
        """
        check_pulseaudio()
        self._folder = tempfile.TemporaryDirectory(prefix="voxrill-pulse-")
        folder = Path(self._folder.name)
        wires = "".join(_WIRE.format(name, rate=WIRE_RATE) for name in self._names)
        protocol = f"load-module module-native-protocol-unix auth-anonymous=1 socket={folder}/native\n"
        (folder / "wires.pa").write_text(protocol + wires)
        self._server = {"PULSE_SERVER": f"unix:{folder}/native", "PULSE_COOKIE": f"{folder}/cookie"}
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it again after `stop`; its devices come back."""
        folder = self._folder.name
        # Away from the user's own PulseAudio: no configuration is read, and no state or socket is shared.
        home = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH", "PULSE_STATE_PATH"), folder)
        with open(f"{folder}/log", "wb") as log:
            self._process = subprocess.Popen(
                ["pulseaudio", "-n", "-F", f"{folder}/wires.pa", *_OPTIONS],
                env={**os.environ, **home},
                stdout=log,
                stderr=log,
            )
        self._await()

    def stop(self) -> None:
        """End it; its devices disappear."""
        end(self._process)

    def wire(self, name: str) -> SoundWire:
        """One of the wires."""
        return SoundWire(name, self._server)

    def listeners(self, wire: SoundWire) -> int:
        """How many programs have opened the wire's microphone."""
        listing = self._pactl("list", "short", "sources").stdout.splitlines()
        lines = [line.split("\t") for line in listing]
        (number,) = [fields[0] for fields in lines if fields[1] == f"{wire.name}.microphone"]
        outputs = self._pactl("list", "short", "source-outputs").stdout.splitlines()
        return sum(line.split("\t")[1] == number for line in outputs)

    def _await(self) -> None:
        """Wait until the last wire is there."""
        until = time.monotonic() + _START_SECONDS
        while f"{self._names[-1]}.microphone" not in self._pactl("list", "short", "sources").stdout:
            if self._process.poll() is not None or time.monotonic() > until:
                log = (Path(self._folder.name) / "log").read_text(errors="replace").strip().splitlines()
                raise AudioDeviceError(f"PulseAudio did not start: {log[-1] if log else 'it said nothing'}")
            time.sleep(0.05)

    def _pactl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pactl", *arguments],
            env={**os.environ, **self._server},
            capture_output=True,
            text=True,
            timeout=_CALL_SECONDS,
            check=False,
        )


def check_pulseaudio() -> None:
    """Raises AudioDeviceError if PulseAudio is not installed."""
    missing = [name for name in ("pulseaudio", "pactl", "pacat", "parec") if shutil.which(name) is None]
    if missing:
        raise AudioDeviceError(
            f"the virtual user needs PulseAudio, and {missing[0]} is not installed",
            "Run: apt-get install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2",
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and kill it after 10 seconds."""
    process.terminate()
    try:
        process.wait(_CALL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
