"""Every error that Voxrill raises on purpose: what is wrong, then what to do about it.

    VoxrillError
    ├── AudioFileError       a sound that cannot be read, written or used
    ├── AudioDeviceError     a microphone or loudspeaker that cannot be used
    │   └── AudioDeviceLost  it was in use and is gone
    ├── CheckpointError      a checkpoint (host side) that is not what the exporter expects
    ├── BundleError          a bundle that is missing, incomplete or malformed
    │   ├── HashMismatch     a file differs from the hash in its manifest
    │   └── NewerFormat      the bundle was made by a newer Voxrill
    ├── ExportError          a graph that could not be written, or does not match the model
    ├── UsageError           a caller's mistake: arguments that do not go together, or are out of range
    ├── UnknownText          a text holds words that the model does not know
    ├── HookError            a program or function that a command runs, and that failed
    ├── DataError            a file of commands, questions, settings or results that is not what it should be
    ├── DeviceError          a device, profile, chip or provider that is not known or cannot be used
    │   ├── ProviderError    an execution provider that is not installed, or finds nothing to run on
    │   ├── ProfileError     a device profile that cannot be read or does not hold together
    │   └── ChipError        an NPU chip that is not known, or refuses a graph
    ├── ProviderRefused      a graph of which an execution provider would take only a part
    ├── ContextFull          the conversation has outgrown the model's context
    ├── NotEnoughMemory      the model would not fit into this machine's memory
    └── MissingDependency    a package of an optional extra is not installed

`str(error)` is one line, `message. Remedy`. The command line prints it and exits with status 2: a user sees no
traceback for a fault that a user can mend.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from voxrill.runtime.printable import printable

__all__ = [
    "AudioDeviceError",
    "AudioDeviceLost",
    "AudioFileError",
    "BundleError",
    "CheckpointError",
    "ChipError",
    "ContextFull",
    "DataError",
    "DeviceError",
    "ExportError",
    "HashMismatch",
    "HookError",
    "MissingDependency",
    "NewerFormat",
    "NotEnoughMemory",
    "ProfileError",
    "ProviderError",
    "ProviderRefused",
    "UnknownText",
    "UsageError",
    "VoxrillError",
    "VoxrillWarning",
    "needs_extra",
]


class VoxrillError(Exception):
    """The base of every deliberate error: a message and, where there is one, its remedy.

    Args:
        message: what is wrong, naming the file or value; a trailing full stop is optional.
        remedy: what to do: a command, a setting, the alternatives. A sentence of its own.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)  # both in `args`, so that the error survives pickling
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Message and remedy as sentences on one line, however many lines they came with, safe for a terminal."""
        parts = [" ".join(part.split()) for part in (self.message, self.remedy)]
        return printable(" ".join(_sentence(part) for part in parts if part))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


class VoxrillWarning(UserWarning):
    """Something a user should know although nothing failed; the command line shows it as one line."""


class AudioFileError(VoxrillError):
    """A sound that cannot be read, written or used: a file, or an array handed in."""


class AudioDeviceError(VoxrillError):
    """A microphone or loudspeaker that is not there, is busy, or refuses the rate."""


class AudioDeviceLost(AudioDeviceError):
    """A microphone or loudspeaker that was in use and is gone."""


class CheckpointError(VoxrillError):
    """A checkpoint folder that lacks a file, a key or a value the exporter needs."""


class BundleError(VoxrillError):
    """A bundle that is missing, incomplete or malformed."""


class HashMismatch(BundleError):
    """A file in the bundle differs from the hash its manifest gives."""


class NewerFormat(BundleError):
    """The bundle's format is newer than this Voxrill understands."""


class ExportError(VoxrillError):
    """A graph that could not be written, or whose output does not match the model's."""


class UsageError(VoxrillError):
    """Arguments that are each well formed but do not go together, or are out of range."""


class UnknownText(VoxrillError):
    """A text that the model cannot read or say: it knows a list of words, and this holds others."""


class DataError(VoxrillError):
    """A file that was named as input and is not what it should be: commands, questions, recipes, results, documents."""


class HookError(VoxrillError):
    """The program or function that a spoken command runs has failed, or took too long."""


class DeviceError(VoxrillError):
    """A device, profile, chip or provider that is not known or cannot be used."""


class ProviderError(DeviceError):
    """An execution provider that is not known, not installed, or finds nothing to run on."""


class ProfileError(DeviceError):
    """A device profile that cannot be read, or does not hold together."""


class ChipError(DeviceError):
    """An NPU chip that is not known, or a graph that cannot be compiled for it."""


class ProviderRefused(VoxrillError):
    """Nodes of a graph would fall back to the CPU, and that was not allowed."""


class ContextFull(VoxrillError):
    """Prompt and answer together no longer fit the context the bundle was made for."""


class NotEnoughMemory(VoxrillError):
    """The model needs more memory than this machine, or its control group, has left; nothing was loaded."""


_LAST_PYTHON = {"pocketsphinx": (3, 13)}
"""Packages that do not exist for the newest Python, and the last that has them. pyproject.toml knows them, too."""


class MissingDependency(VoxrillError):
    """A package that belongs to an optional extra is not installed.

    Args:
        extra: the extra that brings it, such as `"export"`.
        package: the package that failed to import, when it is known.
    """

    def __init__(self, extra: str, package: str = "") -> None:
        missing = f"{package} is not installed" if package else f"The {extra} extra is not installed"
        last = _LAST_PYTHON.get(package, sys.version_info[:2])
        remedy = f'Run: pip install "voxrill[{extra}]"'
        if sys.version_info[:2] > last:
            remedy = f"There is no package of it for this Python: use Python {last[0]}.{last[1]}"
        super().__init__(missing, remedy)
        self.args = (extra, package)
        self.extra = extra
        self.package = package


@contextmanager
def needs_extra(extra: str, package: str = "") -> Iterator[None]:
    """Import what an optional extra brings, in the `with` block.

    Only a package that is not installed is the extra's. A missing module of ours or of Python's own (Windows has no
    `resource`), and a package that is there but broken, raise what they raise.

    Args:
        extra: the extra, such as `"export"`.
        package: what pip calls the package, where it differs from the name that is imported.

    Raises:
        MissingDependency: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing == "voxrill" or missing in sys.stdlib_module_names:
            raise
        raise MissingDependency(extra, package or missing) from None
