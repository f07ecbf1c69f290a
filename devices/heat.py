"""How warm this machine is, how fast its clock runs, and when heat slowed it down.

In: Linux's /sys. Out: degrees Celsius and GHz, None where the system does not say; and a verdict on a series of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

SYS = Path("/sys")

BASELINE = 5
"""Samples at the beginning whose median is the baseline for later ones. The very first is left out: it warms up."""
SLOWER, CLOCKED_DOWN = 0.90, 0.95
"""Shares of the baseline's rate and clock. A sample below both at once is throttled. A lower rate alone may come from
another program, and a lower clock alone from a governor that finds little to do. Work that waits for memory loses less
than the clock does. So there are two shares."""
IN_A_ROW = 3
"""Samples that must be throttled one after the other; a single one may be chance."""


@dataclass(frozen=True)
class Sample:
    """A moment of sustained work.

    at: seconds from the beginning; rate: work done per second; celsius: the hottest sensor; ghz: the mean of all cores;
    joules: energy for a second of sound.
    """

    at: float
    rate: float
    celsius: float | None
    ghz: float | None
    joules: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How a machine did under sustained work.

    kept: median rate of the last quarter, as a share of the baseline; since: seconds until it was throttled, None if it
    never was; known: whether the system shows its clock. Without a clock throttling cannot be seen.
    """

    kept: float
    since: float | None
    known: bool


def temperature(sys: Path = SYS) -> float | None:
    """Degrees Celsius of the hottest sensor."""
    files = [*sys.glob("class/thermal/thermal_zone*/temp"), *sys.glob("class/hwmon/hwmon*/temp*_input")]
    found = [value / 1e3 for value in _numbers(files)]
    return max(found, default=None)


def clock(sys: Path = SYS) -> float | None:
    """GHz now, the mean of all cores. /proc/cpuinfo is not used: its clock never changes on virtual machines."""
    found = [value / 1e6 for value in _numbers(sys.glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"))]
    return fmean(found) if found else None


def judge(samples: Sequence[Sample]) -> Verdict:
    """Whether a machine was throttled; the constants of this module are the rule."""
    begin = samples[1 : 1 + BASELINE] or samples  # a run of one sample is its own baseline
    rate, ghz = median(sample.rate for sample in begin), _median_clock(begin)
    last = samples[-max(1, len(samples) // 4) :]
    run, since = 0, None
    for index, sample in enumerate(samples):
        run = run + 1 if _is_throttled(sample, rate, ghz) else 0
        if run == IN_A_ROW and since is None:
            since = samples[index - IN_A_ROW + 1].at
    return Verdict(median(sample.rate for sample in last) / rate, since, ghz is not None)


def _is_throttled(sample: Sample, rate: float, ghz: float | None) -> bool:
    if ghz is None or sample.ghz is None:
        return False
    return sample.rate < SLOWER * rate and sample.ghz < CLOCKED_DOWN * ghz


def _median_clock(samples: Sequence[Sample]) -> float | None:
    clocks = [sample.ghz for sample in samples if sample.ghz is not None]
    return median(clocks) if clocks else None


def _numbers(files: Iterable[Path]) -> list[float]:
    """The numbers in the files that can be read: some sensors have a file and refuse to be read."""
    found = []
    for file in files:
        try:
            found.append(float(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return found
