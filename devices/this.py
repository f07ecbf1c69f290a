"""This machine as a profile: memory, cores, instruction set and read bandwidth measured, the rest assumed.

In: /proc and a probe of two seconds. Out: a `Profile`.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import onnxruntime as ort

from voxrill.devices.bandwidth import MemoryReader
from voxrill.devices.memory import available_memory
from voxrill.devices.processor import CPUINFO, cores, described
from voxrill.devices.profile import HERE, InstructionSet, Profile, ProfileValue
from voxrill.runtime.errors import ProfileError

CLOCK = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")

_MARKS: tuple[tuple[str, InstructionSet], ...] = (
    ("amx_int8", "amx_int8"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx_vnni", "avx_vnni"),
    ("avx2", "avx2"),
    ("i8mm", "neon_i8mm"),
    ("asimddp", "neon_dotprod"),
    ("asimd", "neon"),
)
"""Features as the kernel names them, best first, and the instruction set that each stands for."""

_ALSO_NAMED = ("fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16", "asimdhp", "bf16", "sve", "sve2")
"""Features that are worth knowing, although no format of weights depends on them."""

_MACS: dict[InstructionSet, tuple[int, int]] = {
    "amx_int8": (128, 32),
    "avx512_vnni": (128, 32),
    "avx_vnni": (64, 16),
    "avx2": (24, 16),
    "neon_i8mm": (48, 12),
    "neon_dotprod": (32, 8),
    "neon": (8, 4),
    "scalar": (1, 1),
}
"""Products of int8 and of float32 that one core adds up in a cycle. For AMX only the vector units count here, as in the
planner."""

_PROBE_BYTES = 256 << 20
_PROBE_SECONDS = 1.0
_UNKNOWN_CLOCK = 2.0


def this_machine() -> Profile:
    """Measure this machine; it takes about two seconds.

    Raises:
        ProfileError: this system does not say how much memory is available.
    """
    memory = available_memory()
    if not memory:
        raise ProfileError(
            "this system does not say how much memory is available",
            "Describe the machine in a profile file, and give that file as --device",
        )
    kind, clock, probe = instruction_set(), clock_ghz(), "a probe that sums an array larger than the caches"
    one = read_bandwidth(1)
    # Another program may slow the second measurement down, and all cores are never slower than one.
    every = max(one, read_bandwidth(cores()))
    return Profile(
        name=HERE,
        memory_gb=ProfileValue(memory / 1e9, "measured", "available now, by the kernel and the control groups"),
        reserved_gb=ProfileValue(0.0, "measured", "available memory is what the others have left"),
        bandwidth_gbps=ProfileValue(every, "measured", probe),
        core_bandwidth_gbps=ProfileValue(one, "measured", probe),
        cores=ProfileValue(cores(), "measured", "those this process may use"),
        clock_ghz=clock,
        instruction_set=ProfileValue(kind, "measured", str(CPUINFO)),
        int8_macs_per_cycle=ProfileValue(float(_MACS[kind][0]), "assumed", f"usual with {kind}"),
        float_macs_per_cycle=ProfileValue(float(_MACS[kind][1]), "assumed", f"usual with {kind}"),
        providers=ProfileValue(tuple(ort.get_available_providers()), "measured", "the installed onnxruntime"),
    )


def instruction_set(cpuinfo: Path = CPUINFO) -> InstructionSet:
    """The best instruction set for products of 8-bit integers, of those that the kernel names."""
    words = set(_words(cpuinfo))
    return next((kind for mark, kind in _MARKS if mark in words), "scalar")


def features(cpuinfo: Path = CPUINFO) -> list[str]:
    """The processor's features that products of weights may use, as the kernel names them."""
    words = set(_words(cpuinfo))
    return [name for name in (*(mark for mark, _ in _MARKS), *_ALSO_NAMED) if name in words]


def clock_ghz(cpuinfo: Path = CPUINFO, highest: Path = CLOCK) -> ProfileValue[float]:
    """The highest clock that the kernel knows, else the present one, else a guess."""
    try:
        return ProfileValue(int(highest.read_text(encoding="ascii")) / 1e6, "measured", str(highest))
    except (OSError, ValueError):
        present = _first(cpuinfo, "cpu MHz")
    if present:
        return ProfileValue(float(present.split()[0]) / 1e3, "measured", str(cpuinfo))
    return ProfileValue(_UNKNOWN_CLOCK, "assumed", "the kernel does not say")


def read_bandwidth(threads: int, small_pages: bool = False) -> float:
    """1e9 bytes a second: the best pass over an array in memory, of those that fit into a second."""
    times: list[float] = []
    with closing(MemoryReader(_PROBE_BYTES, threads, small_pages)) as reader:
        end = time.perf_counter() + _PROBE_SECONDS
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            reader.read()
            times.append(time.perf_counter() - start)
    return _PROBE_BYTES / min(times) / 1e9


def _words(cpuinfo: Path) -> list[str]:
    return _first(cpuinfo, "flags", "Features").split()


def _first(cpuinfo: Path, *names: str) -> str:
    """The value of the first line with one of these names; empty where there is none."""
    return next((value for name, value in described(cpuinfo) if name in names), "")
