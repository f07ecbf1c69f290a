"""The sound devices of this machine: how they are listed, chosen by name, and why one cannot be opened.

In: PortAudio's list, from sounddevice. Out: `AudioDevice`s, and errors that name the remedy. sounddevice is imported
when it is first needed, because importing it starts PortAudio.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from voxrill.runtime.errors import AudioDeviceError

Direction = Literal["input", "output"]

THING: dict[Direction, str] = {"input": "microphone", "output": "loudspeaker"}

LIST = "voxrill devices --audio lists what is found"

_BAD_RATE, _BAD_CHANNELS, _UNAVAILABLE = -9997, -9998, -9985
_BAD_DEVICE = (-9996, -9993)
"""PortAudio's error codes."""


@dataclass(frozen=True)
class AudioDevice:
    """A device as PortAudio lists it.

    index: its place in the list. host: the sound system that found it. inputs, outputs: channels. rate: its native
    rate, Hz. default_input, default_output: whether it is taken when no device is named.
    """

    index: int
    name: str
    host: str
    inputs: int
    outputs: int
    rate: int
    default_input: bool = False
    default_output: bool = False

    def channels(self, direction: Direction) -> int:
        """How many channels it has in one direction."""
        return self.inputs if direction == "input" else self.outputs

    def is_default(self, direction: Direction) -> bool:
        """Whether it is the default in one direction."""
        return self.default_input if direction == "input" else self.default_output


def portaudio() -> Any:
    """The sounddevice module.

    Raises:
        AudioDeviceError: PortAudio or sounddevice is not installed.
    """
    _silence_alsa()
    try:
        import sounddevice
    except OSError:
        raise AudioDeviceError(
            "PortAudio, which reaches microphones and loudspeakers, is not installed",
            "Run: apt-get install libportaudio2 (Debian, Ubuntu, Raspberry Pi OS)",
        ) from None
    except ImportError:
        raise AudioDeviceError("sounddevice is not installed", "Run: pip install sounddevice") from None
    return sounddevice


def found_devices(backend: Any) -> list[AudioDevice]:
    """All devices `backend` (sounddevice) lists."""
    hosts = backend.query_hostapis()
    default_input, default_output = backend.default.device
    return [
        AudioDevice(
            index=index,
            name=found["name"],
            host=hosts[found["hostapi"]]["name"],
            inputs=found["max_input_channels"],
            outputs=found["max_output_channels"],
            rate=round(found["default_samplerate"]),
            default_input=index == default_input,
            default_output=index == default_output,
        )
        for index, found in enumerate(backend.query_devices())
    ]


def choose(devices: Iterable[AudioDevice], direction: Direction, wanted: str | None = None) -> AudioDevice:
    """The device that `wanted` names: by its index, its name, or a part of its name; None for the default.

    Raises:
        AudioDeviceError: there is no device, or `wanted` fits none or several.
    """
    able = [device for device in devices if device.channels(direction)]
    if not able:
        raise AudioDeviceError(
            f"there is no {THING[direction]} on this machine",
            "Connect one; on Linux, see that this user is in the group audio, or that PulseAudio or PipeWire runs",
        )
    if wanted is None:
        return next((device for device in able if device.is_default(direction)), able[0])
    fitting = _fitting(able, wanted)
    if len({device.name for device in fitting}) == 1:
        return fitting[0]  # several sound systems may list the same device: the first one is taken
    problem = "fits several" if fitting else "is not among"
    names = ", ".join(device.name for device in fitting or able)
    raise AudioDeviceError(f"the {THING[direction]} {wanted!r} {problem}: {names}", f"Give a name of these; {LIST}")


def _fitting(devices: list[AudioDevice], wanted: str) -> list[AudioDevice]:
    low = wanted.casefold()
    exact = [device for device in devices if low in (str(device.index), device.name.casefold())]
    return exact or [device for device in devices if low in device.name.casefold()]


def explained(error: Exception, device: AudioDevice, direction: Direction) -> AudioDeviceError:
    """The error for a PortAudioError that came when `device` was opened."""
    code = error.args[1] if len(error.args) > 1 else None
    what = f"the {THING[direction]} {device.name}"
    if code == _UNAVAILABLE:
        return AudioDeviceError(f"{what} is in use by another program", f"Close that, or choose another; {LIST}")
    if code == _BAD_RATE:
        return AudioDeviceError(f"{what} refuses its own rate of {device.rate} Hz", f"Choose another; {LIST}")
    if code in _BAD_DEVICE:
        return AudioDeviceError(f"{what} is gone", f"Connect it again, or choose another; {LIST}")
    return AudioDeviceError(f"{what} cannot be opened ({error.args[0] if error.args else error})", f"See {LIST}")


def wants_other_channels(error: Exception) -> bool:
    """Whether a PortAudioError says that the device cannot have this number of channels."""
    return len(error.args) > 1 and error.args[1] == _BAD_CHANNELS


@cache
def _silence_alsa() -> None:
    """Keep ALSA quiet: whenever PortAudio looks for devices, it prints a page about those that do not exist."""
    if not sys.platform.startswith("linux"):
        return
    try:
        set_handler = ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler
    except (OSError, AttributeError):
        return
    set_handler(_ALSA_HANDLER)


_ALSA_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)(
    lambda *_: None
)
"""Kept for the life of the process: ALSA holds only its address, and Python must not free it."""
