"""Memory of this machine: what a model may still take, and what this process has taken. Linux only.

In: /proc and the control groups. Out: bytes, or None where the system does not say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from voxrill.devices.cgroups import CGROUPS, PROC, group_folders, lines_of

_CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of version 2 and of version 1: the limit, how much of it is used, and the field of memory.stat that says how much of
the used memory the kernel can drop."""


def gigabytes(count: float) -> str:
    """A number of bytes as a reader wants it."""
    if 0 < count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def available_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes that can be had without swapping, within the limit of every control group."""
    free = _field(proc / "meminfo", "MemAvailable")
    if free is None:
        return None
    return max(0, min([1024 * free, *_rooms(proc, cgroups)]))


def total_memory(proc: Path = PROC) -> int | None:
    """Bytes of memory this machine has."""
    return _kilobytes(proc / "meminfo", "MemTotal")


def free_swap(proc: Path = PROC) -> int | None:
    """Bytes that could be swapped out."""
    return _kilobytes(proc / "meminfo", "SwapFree")


def private_memory(proc: Path = PROC) -> int | None:
    """Bytes that this process alone holds. They are not mapped from files, so the system cannot drop them."""
    return _kilobytes(proc / "self" / "status", "RssAnon")


def _kilobytes(path: Path, name: str) -> int | None:
    """The bytes that `_field` gives in kilobytes."""
    found = _field(path, name)
    return None if found is None else 1024 * found


def _rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    """Room left in each control group that this process is in, and in those around it."""
    for folder in group_folders("memory", proc, cgroups):
        yield from _room(folder)


def _room(place: Path) -> Iterator[int]:
    for limit_file, used_file, droppable in _CGROUP_FILES:
        limit, used = _number(place / limit_file), _number(place / used_file)
        if limit is not None and used is not None:
            yield limit - used + (_field(place / "memory.stat", droppable) or 0)


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none ("max")."""
    lines = lines_of(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _field(path: Path, name: str) -> int | None:
    """The number after `name` in a file of lines such as `MemTotal: 8000 kB`."""
    for line in lines_of(path):
        words = line.replace(":", " ").split()
        if words and words[0] == name:
            return int(words[1])
    return None
