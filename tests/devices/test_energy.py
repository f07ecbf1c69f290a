"""The energy that a machine takes, read from /sys trees: counters that wrap, batteries, boards, and refusals."""

import pytest

from voxrill.commands.bench import _energy
from voxrill.devices.energy import open_meter
from voxrill.devices.heat import Sample


def written(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


class Time:
    """A clock that a test moves, in seconds."""

    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


def zone(sys, name, label, counted, span=1_000_000):
    return written(sys / "class/powercap" / name, name=label, energy_uj=counted, max_energy_range_uj=span)


def test_packages_and_memory_are_added_and_parts_of_them_are_not(tmp_path):
    counted = [zone(tmp_path, f"intel-rapl:{index}", f"package-{index}", 0) for index in (0, 1)]
    counted.append(zone(tmp_path, "intel-rapl:0:1", "dram", 0))
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    meter, missing = open_meter(tmp_path)
    for folder in [*counted, *others]:
        written(folder, energy_uj=500_000)
    assert meter.joules() == pytest.approx(1.5) and not missing and "RAPL" in meter.name


def test_a_counter_that_wraps(tmp_path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, span=999_999)
    meter, _ = open_meter(tmp_path)
    for counted, joules in ((100_000, 0.2), (100_000, 0.2), (50_000, 1.15)):
        written(folder, energy_uj=counted)
        assert meter.joules() == pytest.approx(joules)


def test_a_counter_for_root_only_says_how_to_read_it(tmp_path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    (folder / "energy_uj").unlink()  # as a file that may not be read: whoever runs the tests may be root
    meter, missing = open_meter(tmp_path)
    assert meter is None and "only root may read" in missing and "sudo chmod" in missing


def test_without_any_sensor_nothing_is_invented(tmp_path):
    meter, missing = open_meter(tmp_path)
    assert meter is None
    assert _energy([Sample(1.0, 2.0, None, None)], meter, missing).startswith("energy not measured: this system shows")


@pytest.mark.parametrize(
    "files",
    [{"power_now": 6_000_000}, {"voltage_now": 12_000_000, "current_now": 500_000}, {"power_now": -6_000_000}],
    ids=["power", "voltage and current", "negative"],
)
def test_a_battery_in_use(tmp_path, files):
    now = Time()
    folder = written(tmp_path / "class/power_supply/BAT0", type="Battery", status="Discharging", **files)
    meter, _ = open_meter(tmp_path, now)
    now.at = 2.0
    assert meter.joules() == pytest.approx(12.0)
    written(folder, status="Charging")
    assert meter.joules() is None
    written(folder, status="Discharging")
    assert meter.joules() is None  # what was used in between is not known
    assert "cannot be read any more" in _energy([Sample(1.0, 2.0, None, None)], meter, "")


@pytest.mark.parametrize(
    "files",
    [
        {"type": "Mains", "power_now": 1},
        {"type": "Battery", "status": "Full", "power_now": 1},
        {"type": "Battery", "status": "Discharging", "scope": "Device", "power_now": 1},
        {"type": "Battery", "status": "Discharging"},
    ],
    ids=["charger", "full", "mouse", "silent"],
)
def test_supplies_that_say_nothing_of_the_machine(tmp_path, files):
    written(tmp_path / "class/power_supply/one", **files)
    assert open_meter(tmp_path)[0] is None


def test_power_that_changes_is_integrated(tmp_path):
    now = Time()
    folder = written(tmp_path / "class/hwmon/hwmon0", name="ina226", power1_input=4_000_000)
    meter, _ = open_meter(tmp_path, now)
    now.at = 1.0
    written(folder, power1_input=8_000_000)
    assert meter.joules() == pytest.approx(6.0)
    now.at = 3.0
    assert meter.joules() == pytest.approx(22.0)


def test_a_jetson_is_its_supply_and_not_the_sum_of_its_rails(tmp_path):
    now = Time()
    rails = {"in1_label": "VDD_CPU_CV", "in1_input": 5000, "curr1_input": 900}
    supply = {"in2_label": "VDD_IN", "in2_input": 5000, "curr2_input": 2000}
    written(tmp_path / "class/hwmon/hwmon3", name="ina3221", **rails, **supply)
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter, _ = open_meter(tmp_path, now)
    now.at = 1.0
    assert meter.joules() == pytest.approx(10.0) and meter.name == "whole board (ina3221)"


def test_a_part_of_the_board_is_not_taken_for_the_board(tmp_path):
    written(tmp_path / "class/hwmon/hwmon0", name="ina3221", in1_label="VDD_SOC", in1_input=5000, curr1_input=100)
    written(tmp_path / "class/hwmon/hwmon1", name="amdgpu", power1_input=9_000_000)
    assert open_meter(tmp_path)[0] is None


def test_joules_stand_beside_the_rate(tmp_path):
    written(tmp_path / "class/hwmon/hwmon0", name="power_meter", power1_average=5_000_000)
    meter, missing = open_meter(tmp_path)
    said = _energy([Sample(1.0, 4.0, None, None, joules) for joules in (1.0, 1.5, 9.0)], meter, missing)
    assert said.startswith("1.5 J for a second of speech, 6 W: whole machine (ACPI power meter)")
