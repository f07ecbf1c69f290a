"""Whether answers can be heard here, and playing them as they are made."""

from __future__ import annotations

from voxrill.commands.output import err
from voxrill.runtime.audio.devices import choose
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.errors import AudioDeviceError


def open_loudspeaker(wanted: str | None, otherwise: str) -> AudioSystem | None:
    """PortAudio, if there is a loudspeaker to play on; None if there is none, and stderr says so with `otherwise`.

    Raises:
        AudioDeviceError: `wanted` names a device that is not there.
    """
    try:
        system = AudioSystem()
        choose(system.devices(), "output", wanted)
    except AudioDeviceError as error:
        if wanted is not None:
            raise
        err.print(f"{error.message.rstrip('.')}: {otherwise}", style="dim", soft_wrap=True)
        return None
    return system
