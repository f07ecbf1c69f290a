"""How warm this machine is and how fast it is clocked, where the system says so, and when heat slowed it down.

In: Linux's /sys. Out: degrees Celsius and GHz, None where nobody says; and a verdict on a series of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

SYS = Path("/sys")

BASELINE = 5
"""Samples at the beginning whose median the later ones are held against; the first, which warms up, is not of them."""
SLOWER, CLOCKED_DOWN = 0.90, 0.95
"""Of the baseline's rate and clock: below both at once is throttled. A lower rate alone may be another program's doing,
a lower clock alone a governor that finds little to do; work that waits for memory loses less than the clock does."""
IN_A_ROW = 3
"""Samples that must be throttled one after the other: one alone is chance."""


@dataclass(frozen=True)
class Sample:
    """A moment of sustained work.

    at: seconds from the beginning; rate: work done a second; celsius: the hottest sensor; ghz: the mean of all cores.
    """

    at: float
    rate: float
    celsius: float | None
    ghz: float | None


@dataclass(frozen=True)
class Verdict:
    """What became of a machine under sustained work.

    kept: the last quarter's rate, as a share of the baseline's, both medians; since: seconds after which it was
    throttled, None if it was not seen to be; known: whether a clock is exposed, without which it cannot be seen.
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
    """GHz, the mean of all cores, as they run now. Not /proc/cpuinfo's, which on virtual machines never changes."""
    found = [value / 1e6 for value in _numbers(sys.glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"))]
    return fmean(found) if found else None


def judge(samples: Sequence[Sample]) -> Verdict:
    """Whether a machine was throttled: see the constants of this module for the rule."""
    begin = samples[1 : 1 + BASELINE] or samples
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
    """The numbers in those of the files that can be read: a sensor may be there and refuse."""
    found = []
    for file in files:
        try:
            found.append(float(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return found
