"""The energy that this machine takes, from the first of its sensors that can be read.

In: Linux's /sys. Out: a `Meter`, which says the joules since it was opened; or None with the reason. A sensor sees all
that the part it measures does, other programs included. In the order in which they are taken:

- a power sensor of the board (an INA chip as on a Jetson, or ACPI's power meter);
- a battery that is being discharged;
- the processor's own counters (RAPL, of Intel and AMD): package and memory, without screen, disk and power supply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from voxrill.devices.cgroups import lines_of
from voxrill.devices.heat import SYS

WHOLE_BOARD = ("vdd_in", "pom_5v_in", "vin_sys_5v0")
"""Labels of the supply of a whole Jetson, by board. Its other rails are part of it."""

_COUNTED = ("package", "dram")
"""RAPL's zones that are counted: the others (core, uncore) are part of the package, and psys has the package in it."""

Clock = Callable[[], float]


class Meter:
    """Joules since it was opened.

    Args:
        name: what is measured, for a reader.
        read: more joules since the last call; None if the sensor is gone.
    """

    def __init__(self, name: str, read: Callable[[], float | None]) -> None:
        self.name = name
        self._read = read
        self._joules: float | None = 0.0

    def joules(self) -> float | None:
        """Joules since the meter was opened; None as soon as its sensor cannot be read any more."""
        if self._joules is not None:
            more = self._read()
            self._joules = None if more is None else self._joules + more
        return self._joules


def open_meter(sys: Path = SYS, now: Clock = time.perf_counter) -> tuple[Meter | None, str]:
    """A meter of the best sensor, and an empty text; or None, and why there is none."""
    for name, watts in (*_boards(sys), *_batteries(sys)):
        if watts() is not None:
            return Meter(name, _integrated(watts, now)), ""
    zones = list(_zones(sys))
    if not zones:
        return None, "this system shows no power sensor, no battery in use and no energy counter"
    counters = [zone for zone in zones if zone.counter() is not None]
    if len(counters) < len(zones):
        where = sys / "class" / "powercap"
        return None, f"the processor counts it (RAPL), and only root may read that: sudo chmod a+r {where}/*/energy_uj"
    return Meter("processor and its memory (RAPL)", _counted(counters)), ""


@dataclass
class _Zone:
    """One of RAPL's counters: microjoules, which begin at 0 again after `span`."""

    folder: Path
    span: int
    last: int = 0

    def counter(self) -> int | None:
        return _number(self.folder / "energy_uj")


def _zones(sys: Path) -> Iterator[_Zone]:
    """The zones that make up the processor. A second driver (intel-rapl-mmio) shows the same packages once more."""
    for folder in sorted((sys / "class" / "powercap").glob("intel-rapl:*")):
        name, span = "".join(lines_of(folder / "name")), _number(folder / "max_energy_range_uj")
        if name.startswith(_COUNTED) and span:
            yield _Zone(folder, span)


def _counted(zones: list[_Zone]) -> Callable[[], float | None]:
    for zone in zones:
        zone.last = zone.counter() or 0

    def read() -> float | None:
        joules = 0.0
        for zone in zones:
            value = zone.counter()
            if value is None:
                return None
            joules += (value - zone.last) % (zone.span + 1) / 1e6  # the modulo: a counter that wrapped since
            zone.last = value
        return joules

    return read


def _integrated(watts: Callable[[], float | None], now: Clock) -> Callable[[], float | None]:
    """Energy of a sensor that shows power: the mean of two readings, for the time between them."""
    last: tuple[float, float | None] = (now(), watts())

    def read() -> float | None:
        nonlocal last
        (before, power), last = last, (now(), watts())
        if power is None or last[1] is None:
            return None
        return (last[0] - before) * (power + last[1]) / 2

    return read


def _boards(sys: Path) -> Iterator[tuple[str, Callable[[], float | None]]]:
    for folder in sorted((sys / "class" / "hwmon").glob("hwmon*")):
        chip = "".join(lines_of(folder / "name"))
        if chip == "power_meter":
            yield "whole machine (ACPI power meter)", partial(_scaled, folder / "power1_average", 1e-6)
        elif chip.startswith("ina"):
            yield from _ina(folder, chip)


def _ina(folder: Path, chip: str) -> Iterator[tuple[str, Callable[[], float | None]]]:
    """The supply of the board where a label says which it is; else the first channel of a chip without labels."""
    labels = {
        "".join(lines_of(file)).lower(): file.name.split("_")[0].lstrip("in") for file in folder.glob("in*_label")
    }
    channel = next((labels[label] for label in WHOLE_BOARD if label in labels), None)
    if channel is not None:
        yield f"whole board ({chip})", partial(_channel_watts, folder, channel)
    elif not labels:
        yield f"what the first channel of {chip} feeds", partial(_channel_watts, folder, "1")


def _channel_watts(folder: Path, channel: str) -> float | None:
    """Watts of a channel: as the chip says (microwatts), or of its millivolts and milliamperes."""
    power = _scaled(folder / f"power{channel}_input", 1e-6)
    volts, amperes = (_scaled(folder / f"{kind}{channel}_input", 1e-3) for kind in ("in", "curr"))
    return power if power is not None else _product(volts, amperes)


def _batteries(sys: Path) -> Iterator[tuple[str, Callable[[], float | None]]]:
    for folder in sorted((sys / "class" / "power_supply").glob("*")):
        if lines_of(folder / "type") == ["Battery"]:
            yield "whole machine (battery)", partial(_battery_watts, folder)


def _battery_watts(folder: Path) -> float | None:
    """Watts that a battery gives; None while it does not: what feeds the machine then is not seen."""
    if lines_of(folder / "status") != ["Discharging"] or lines_of(folder / "scope") == ["Device"]:  # a mouse's battery
        return None
    power = _scaled(folder / "power_now", 1e-6)
    volts, amperes = (_scaled(folder / f"{kind}_now", 1e-6) for kind in ("voltage", "current"))
    found = power if power is not None else _product(volts, amperes)
    return None if found is None else abs(found)  # some drivers count what leaves the battery as negative


def _product(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def _scaled(file: Path, unit: float) -> float | None:
    value = _number(file)
    return None if value is None else unit * value


def _number(file: Path) -> int | None:
    """The number in a file; None where there is none, or it may not be read."""
    try:
        return int("".join(lines_of(file)))
    except ValueError:
        return None
