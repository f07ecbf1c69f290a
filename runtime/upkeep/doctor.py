"""What this machine is and what it lacks: a few probes. If one fails, the others still run.

In: this machine. Out: an `Examination`: facts by section, and what is missing, with the command that helps. It takes a
few seconds, most of them to measure the memory's speed.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from voxrill.devices.known import MEMORY
from voxrill.devices.memory import available_memory, free_swap, total_memory
from voxrill.devices.plugins import register
from voxrill.devices.processor import cores, processor
from voxrill.devices.providers import PROVIDERS, Provider
from voxrill.devices.this import clock_ghz, features, instruction_set, read_bandwidth
from voxrill.runtime.audio.devices import THING, Direction, choose
from voxrill.runtime.audio.protocols import BLOCK
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.voice_activity import VoiceActivity
from voxrill.runtime.errors import DeviceError, MissingDependency, VoxrillError
from voxrill.runtime.progress import Progress, no_progress

PACKAGE = "voxrill"
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

_UNITS = {"K": 1 << 10, "M": 1 << 20}
_REQUIREMENT = re.compile(r"^([\w.-]+).*extra == [\"'](\w+)[\"']")
"""A line of a package's metadata: the name of a package, and the extra that brings it."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Missing:
    """Something that is missing: what does not work without it, and what to do."""

    what: str
    consequence: str
    remedy: str


@dataclass
class Examination:
    """What was found: facts by section, for people and for JSON; and what is missing."""

    sections: dict[str, Facts] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)

    def probe(self, name: str, run: Callable[[], Facts]) -> None:
        """Add a section; if its probe fails, the section holds the reason."""
        try:
            self.sections[name] = run()
        except Exception as error:  # a probe that fails is a finding, too
            self.sections[name] = {"not found out": str(error) or type(error).__name__}


def examine(progress: Progress = no_progress) -> Examination:
    """Probe everything."""
    found = Examination()
    probes: dict[str, Callable[[], Facts]] = {
        "machine": machine,
        "speed": speed,
        "providers": providers,
        "sound": lambda: sound(found.missing),
        "software": software,
        "the 1.5 B model": lambda: models(found.missing),
        "extras": lambda: extras(found.missing),
    }
    for number, (name, run) in enumerate(probes.items()):
        progress(f"examining {name}", number, len(probes))
        found.probe(name, run)
    return found


def machine() -> Facts:
    """Processor and memory."""
    clock = clock_ghz()
    sizes = {"memory": total_memory(), "memory free": available_memory(), "swap free": free_swap()}
    return {
        "processor": processor(),
        "instruction set": instruction_set(),
        "features": features(),
        "cores": cores(),
        "clock, GHz": f"{clock.value:.2f} ({clock.evidence})",
        "system": platform.platform(),
        **{name: "unknown" if size is None else _gigabytes(size) for name, size in sizes.items()},
    }


def speed() -> Facts:
    """How fast the memory is read, and the size of the last cache."""
    facts: Facts = {
        "read, one core, GB/s": round(read_bandwidth(1), 1),
        "read, all cores, GB/s": round(read_bandwidth(cores()), 1),
    }
    cache = _last_cache()
    return facts | ({"last cache, MB": cache >> 20} if cache else {})


def providers() -> Facts:
    """Every execution provider: whether it is installed here, and how far we have tested it."""
    return {provider.name: f"{_presence(provider)} ({provider.evidence})" for provider in PROVIDERS.values()}


def _presence(provider: Provider) -> str:
    if not provider.here:
        return f"not here: {provider.remedy}"
    if provider.plugin is not None:
        try:
            return f"here, finds {', '.join(device.device.type.name for device in register(provider.name))}"
        except DeviceError as error:
            return f"installed, but {error.message}"
    return "here"


def sound(missing: list[Missing]) -> Facts:
    """The default microphone and loudspeaker, and the voice activity detector."""
    facts: Facts = {}
    directions: tuple[Direction, ...] = ("input", "output")
    for direction in directions:
        try:
            facts[THING[direction]] = choose(AudioSystem().devices(), direction, None).name
        except VoxrillError as error:
            facts[THING[direction]] = f"none: {error.message}"
            missing.append(Missing(THING[direction], f"voxrill talk: {error.message}", error.remedy))
    VoiceActivity()(np.zeros(BLOCK, np.float32))  # fails here, and not in the first talk
    return facts | {"speech detector": "runs"}


def software() -> Facts:
    """Versions of this package and of the packages that it needs."""
    # A requirement is a name and then a version, an extra or a marker.
    needed = [re.split(r"[^\w.-]", line)[0] for line in metadata.requires(PACKAGE) or () if "extra ==" not in line]
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in (PACKAGE, *needed)}}


def models(missing: list[Missing]) -> Facts:
    """Whether the 1.5 B model fits into the free memory, at each precision."""
    free = available_memory()
    if free is None:
        return {"not found out": "this system does not say how much memory is free"}
    facts = {
        name: f"needs {_gigabytes(needed)}: {'fits' if needed <= free else 'does not fit'}"
        for name, needed in MEMORY.items()
    }
    if free < min(MEMORY.values()):
        what, swap = f"{_gigabytes(min(MEMORY.values()))} of free memory", free_swap() or 0
        remedy = "Close other programs. voxrill plan --device this says what fits"
        missing.append(
            Missing(
                what,
                f"the 1.5 B model (with swap, of which {_gigabytes(swap)} is free, its sound would have gaps)",
                remedy,
            )
        )
    return facts


def extras(missing: list[Missing]) -> Facts:
    """The extras: whether all their packages are installed."""
    facts: Facts = {}
    for extra, packages in sorted(_extras().items()):
        absent = [name for name in packages if not _installed(name)]
        facts[extra] = f"without {', '.join(absent)}" if absent else "installed"
        if absent:
            missing.append(Missing(f"extra {extra}", ", ".join(absent), _install(extra, absent[0])))
    return facts


def _install(extra: str, package: str) -> str:
    """The command that installs a package of an extra; some versions of Python have none."""
    return MissingDependency(extra, package).remedy.removeprefix("Run: ")


def _extras() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in metadata.requires(PACKAGE) or ():
        match = _REQUIREMENT.match(line)
        if match:
            found.setdefault(match[2], []).append(match[1])
    return found


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _last_cache(path: Path = LAST_CACHE) -> int | None:
    """Bytes of the third cache: weights that fit into it are not read from memory in every step."""
    try:
        text = path.read_text(encoding="ascii").strip()
        return int(text[:-1]) * _UNITS[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
