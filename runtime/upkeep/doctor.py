"""What this machine is and what is wrong with it: a few probes. If one fails, the others still run.

In: this machine. Out: an `Examination`: whether `voxrill talk` works here, what is wrong and the command that helps,
and facts by section. Facts are numbers, with their unit at the end of their name. It takes a few seconds, most of them
to measure the memory's speed.
"""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement

from voxrill.devices.kernels import own_products
from voxrill.devices.known import MEMORY
from voxrill.devices.memory import available_memory, free_swap, gigabytes, total_memory
from voxrill.devices.pages import OFF_VARIABLE, page_setting, share_moved
from voxrill.devices.plugins import register
from voxrill.devices.processor import cores, processor
from voxrill.devices.providers import PROVIDERS, Provider
from voxrill.devices.this import clock_ghz, features, instruction_set, read_bandwidth
from voxrill.runtime.audio.devices import THING, Direction, choose
from voxrill.runtime.audio.protocols import BLOCK
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.voice_activity import VoiceActivity
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.errors import DeviceError, MissingDependency, VoxrillError
from voxrill.runtime.progress import Progress, no_progress

PACKAGE = "voxrill"
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

_UNITS = {"K": 1 << 10, "M": 1 << 20}

Facts = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: what, what does not work because of it, and what to do.

    talk: whether `voxrill talk` is what does not work.
    """

    what: str
    consequence: str
    remedy: str
    talk: bool = False


@dataclass
class Examination:
    """What was found: what is wrong, and facts by section, for people and for JSON."""

    sections: dict[str, Facts] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def can_talk(self) -> bool:
        """Whether `voxrill talk` works here."""
        return not any(problem.talk for problem in self.problems)

    def probe(self, name: str, run: Callable[[], Facts]) -> None:
        """Add a section. If its probe fails, the section holds the reason, and sound that fails is a problem."""
        try:
            self.sections[name] = run()
        except Exception as error:  # a probe that fails is a finding, too
            reason = str(error) or type(error).__name__
            self.sections[name] = {"not_found_out": reason}
            if name == "sound":
                self.problems.append(Problem("sound", f"voxrill talk: {reason}", "Run: voxrill doctor --audio", True))


def examine(progress: Progress = no_progress) -> Examination:
    """Probe everything."""
    found = Examination()
    probes: dict[str, Callable[[], Facts]] = {
        "machine": machine,
        "pages": pages,
        "speed": speed,
        "products": products,
        "providers": providers,
        "sound": lambda: sound(found.problems),
        "software": software,
        "model": lambda: models(found.problems),
        "extras": extras,
    }
    for number, (name, run) in enumerate(probes.items()):
        progress(f"examining {name}", number, len(probes))
        found.probe(name, run)
    return found


def machine() -> Facts:
    """Processor and memory."""
    clock = clock_ghz()
    return {
        "processor": processor(),
        "instruction_set": instruction_set(),
        "features": features(),
        "cores": cores(),
        "clock_ghz": round(clock.value, 2),
        "clock_evidence": clock.evidence,
        "system": platform.platform(),
        "memory_bytes": total_memory(),
        "memory_free_bytes": available_memory(),
        "swap_free_bytes": free_swap(),
    }


def pages() -> Facts:
    """Pages of memory: their sizes, and whether a model's weights come to lie on huge ones."""
    setting = page_setting()
    if setting is None:
        return {"page_bytes": mmap.PAGESIZE, "huge_page_bytes": None, "weights_on_huge_pages": "not on this system"}
    facts: Facts = {"page_bytes": setting.page, "huge_page_bytes": setting.huge, "huge_pages_are_given": setting.who}
    if os.environ.get(OFF_VARIABLE):
        return facts | {"weights_on_huge_pages": f"no: {OFF_VARIABLE} is set"}
    share = share_moved()
    return facts | {"weights_on_huge_pages": f"{100 * share:.0f} % of a test" if share else "no: the kernel refuses"}


def speed() -> Facts:
    """How fast the memory is read, and the size of the last cache."""
    facts: Facts = {
        "read_one_core_gbps": round(read_bandwidth(1), 1),
        "read_all_cores_gbps": round(read_bandwidth(cores()), 1),
        "read_all_cores_small_pages_gbps": round(read_bandwidth(cores(), small_pages=True), 1),
    }
    cache = _last_cache()
    return facts | ({"last_cache_bytes": cache} if cache else {})


def products() -> Facts:
    """Which products of weights in few bits run here: our own, with an instruction set, or onnxruntime's.

    And which the built-in model has, where its manifest says it.
    """
    graphs = open_builtin().manifest.graphs.values()
    made = sorted({name for graph in graphs if graph.products for name in graph.products})
    model: Facts = {"built_in_model_has": made} if made else {}
    found = own_products()
    if found.path is None:
        return {"own": None, "because": found.reason, **model}
    return {"own": found.chosen, "instruction_sets": list(found.sets), **model}


def providers() -> Facts:
    """Every execution provider: whether it is installed here, and how far we have tested it."""
    return {provider.name: _presence(provider) for provider in PROVIDERS.values()}


def _presence(provider: Provider) -> Facts:
    facts: Facts = {"here": provider.here, "evidence": provider.evidence}
    if not provider.here:
        return facts | {"remedy": provider.remedy}
    if provider.plugin is None:
        return facts
    try:
        return facts | {"finds": [device.device.type.name for device in register(provider.name)]}
    except DeviceError as error:
        return facts | {"here": False, "remedy": f"installed, but {error.message}"}


def sound(problems: list[Problem]) -> Facts:
    """The default microphone and loudspeaker, and the voice activity detector."""
    facts: Facts = {}
    directions: tuple[Direction, ...] = ("input", "output")
    for direction in directions:
        thing = THING[direction]
        try:
            facts[thing] = choose(AudioSystem().devices(), direction, None).name
        except VoxrillError as error:
            facts[thing] = None
            problems.append(Problem(thing, f"voxrill talk: {error.message}", error.remedy, talk=True))
    VoiceActivity()(np.zeros(BLOCK, np.float32))  # fails here, and not in the first talk
    return facts | {"speech_detector": "runs"}


def software() -> Facts:
    """Versions of this package and of the packages that it needs."""
    needed = [one.name for one in _requirements() if _applies(one)]
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in (PACKAGE, *needed)}}


def models(problems: list[Problem]) -> Facts:
    """Whether the 1.5 B model fits into the free memory, at each precision."""
    free = available_memory()
    if free is None:
        return {"not_found_out": "this system does not say how much memory is free"}
    if free < min(MEMORY.values()):
        swap = free_swap() or 0
        problems.append(
            Problem(
                f"{gigabytes(min(MEMORY.values()))} of free memory",
                f"the 1.5 B model ({gigabytes(swap)} of swap are free; with swap its sound would have gaps)",
                "Close other programs. voxrill plan --device this says what fits",
            )
        )
    return {name: {"needs_bytes": round(needed), "fits": needed <= free} for name, needed in MEMORY.items()}


def extras() -> Facts:
    """The extras: which of their packages are not installed, and the command that installs them."""
    return {extra: _extra(extra, wanted) for extra, wanted in sorted(_extras().items())}


def _extra(extra: str, wanted: list[Requirement]) -> Facts:
    absent = [one.name for one in wanted if _applies(one, extra) and not _installed(one)]
    elsewhere = [one.name for one in wanted if not _applies(one, extra)]
    facts: Facts = {"installed": not absent, "missing": absent}
    if elsewhere:
        facts["not_for_this_machine"] = elsewhere
    if absent:
        facts["remedy"] = MissingDependency(extra, absent[0]).remedy.removeprefix("Run: ")
    return facts


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in metadata.requires(PACKAGE) or ()]


def _extras() -> dict[str, list[Requirement]]:
    """What each extra wants, on this machine or on another."""
    names = metadata.metadata(PACKAGE).get_all("Provides-Extra") or ()
    base = [str(one) for one in _requirements() if _applies(one)]
    return {
        name: [one for one in _requirements() if str(one) not in base and f'extra == "{name}"' in str(one.marker)]
        for name in names
    }


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether this Python on this machine needs it: some packages exist for some processors and versions only."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(requirement: Requirement) -> bool:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _last_cache(path: Path = LAST_CACHE) -> int | None:
    """Bytes of the third cache: weights that fit into it are not read from memory in every step."""
    try:
        text = path.read_text(encoding="ascii").strip()
        return int(text[:-1]) * _UNITS[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return None
