"""Which processor this is, and how many of its cores this process may use.

In: /proc/cpuinfo, or what Python knows. Out: one line of text. Machines with the same line can exchange repacked
weights.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from voxrill.devices.cgroups import cpu_quota

CPUINFO = Path("/proc/cpuinfo")

_NAMES = ("model name", "CPU implementer", "CPU part")
_MARKS = (*_NAMES, "CPU architecture", "CPU variant", "flags", "Features")
"""x86 has a model name and flags; ARM has the others. A processor with two kinds of cores has several of each."""


def processor(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, architecture, and a digest of its name and instruction set."""
    marks = sorted({pair for pair in described(cpuinfo) if pair[0] in _MARKS}) or [("", platform.processor())]
    name = " ".join(value for key, value in marks if key in ("", *_NAMES))
    return f"{name}, {platform.system()} {platform.machine()}, {hashlib.sha256(repr(marks).encode()).hexdigest()[:16]}"


def described(cpuinfo: Path = CPUINFO) -> list[tuple[str, str]]:
    """Names and values of the lines of /proc/cpuinfo, one core after the other; empty without such a file."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def cores() -> int:
    """Cores that this process may use: those it may run on, and no more than its control groups give it time for."""
    quota = cpu_quota()
    return _runnable_cores() if quota is None else max(1, min(_runnable_cores(), int(quota)))


def thread_limit() -> int:
    """Threads of a session by default: 0, onnxruntime's own choice, unless a control group gives time for fewer cores.

    onnxruntime asks which cores it may run on, and never asks the control groups.
    """
    return cores() if cores() < _runnable_cores() else 0


def _runnable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
