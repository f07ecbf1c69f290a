"""The control groups that this process is in: what a container may use of the machine. Linux only.

In: /proc/self/cgroup. Out: folders below /sys/fs/cgroup, and the numbers in their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def group_folders(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[Path]:
    """The folder of each group that this process is in, then those around it.

    A controller is `memory` or `cpu`. Version 2 has one tree for all of them; version 1 has a tree for each.
    """
    for line in lines_of(proc / "self" / "cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        place = (cgroups / controllers if controllers else cgroups) / name.strip("/")
        while place.is_relative_to(cgroups):
            yield place
            place = place.parent


def cpu_quota(proc: Path = PROC, cgroups: Path = CGROUPS) -> float | None:
    """Processors' worth of time that this process may use, such as 1.5; None without a limit."""
    found = [quota for folder in group_folders("cpu", proc, cgroups) for quota in _quotas(folder)]
    return min(found, default=None)


def _quotas(folder: Path) -> Iterator[float]:
    """Time allowed in each period, over the period: version 2 has both in one file ("max": no limit), 1 in two."""
    version2 = " ".join(lines_of(folder / "cpu.max")).split()
    version1 = [*lines_of(folder / "cpu.cfs_quota_us"), *lines_of(folder / "cpu.cfs_period_us")]
    for pair in (version2, version1):
        if len(pair) == 2 and all(word.isdigit() for word in pair) and int(pair[1]):  # -1 and "max" are no limit
            yield int(pair[0]) / int(pair[1])


def lines_of(path: Path) -> list[str]:
    """The lines of a small file; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
