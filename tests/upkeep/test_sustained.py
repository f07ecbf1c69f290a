"""Sustained mode: what counts as throttling, where heat and clock are read, and an end at any moment."""

import json
import subprocess
import sys

import pytest

from tests.command_line import clean_environment
from voxrill.commands.bench import describe
from voxrill.devices.energy import Meter
from voxrill.devices.heat import BASELINE, CLOCKED_DOWN, IN_A_ROW, SLOWER, Sample, clock, judge, temperature
from voxrill.runtime.upkeep import sustained
from voxrill.runtime.upkeep.sustained import ANSWER_FRAMES, sustain

COOL = (1.0, 2.4)
HOT = (SLOWER - 0.1, 2.4 * (CLOCKED_DOWN - 0.2))


def series(*moments):
    return [Sample(float(at), rate, 60.0, ghz) for at, (rate, ghz) in enumerate(moments)]


@pytest.fixture
def sensors(tmp_path):
    """A /sys with two zones, one of which cannot be read, a hardware monitor and two cores."""
    for name, text in {
        "class/thermal/thermal_zone0/temp": "48200",
        "class/thermal/thermal_zone1/temp": "no",
        "class/hwmon/hwmon0/temp1_input": "61500",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1800000",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text + "\n", encoding="ascii")
    return tmp_path


def test_the_hottest_sensor_and_the_mean_clock(sensors):
    assert temperature(sensors) == 61.5 and clock(sensors) == pytest.approx(2.1)


def test_a_system_that_tells_nothing(tmp_path):
    assert temperature(tmp_path) is None and clock(tmp_path) is None


def test_throttled_is_slower_and_clocked_down_for_a_while():
    verdict = judge(series(*[COOL] * 12, *[HOT] * 4))
    assert verdict.since == 12 and verdict.kept == pytest.approx(HOT[0])
    assert describe(verdict).startswith("throttled from 0.2 min on")


@pytest.mark.parametrize(
    "later",
    [
        [(HOT[0], COOL[1])] * 8,
        [(COOL[0], HOT[1])] * 8,
        [HOT, HOT, COOL] * 3,
        [(SLOWER + 0.02, HOT[1])] * 8,
    ],
    ids=["another program", "an idle governor", "never long enough", "waits for memory"],
)
def test_what_is_not_throttled(later):
    assert IN_A_ROW == 3
    verdict = judge(series(*[COOL] * 12, *later))
    assert verdict.since is None and verdict.known and describe(verdict).startswith("not throttled")


def test_the_warm_up_is_no_baseline():
    assert judge(series((0.2, 2.4), *[COOL] * BASELINE, *[COOL] * 4)).kept == 1.0


def test_without_a_clock_nothing_is_claimed():
    verdict = judge(series(*[(1.0, None)] * 12, *[(0.5, None)] * 4))
    assert verdict.since is None and not verdict.known and verdict.kept == 0.5
    assert "cannot be told" in describe(verdict)


def test_samples_are_seconds_of_sound_in_a_second(monkeypatch):
    """On a clock that an answer moves by 0.4 s: three answers of two seconds a sample."""
    elapsed = [0.0]
    monkeypatch.setattr(sustained, "speak", lambda _model: elapsed.__setitem__(0, elapsed[0] + 0.4))
    samples = list(sustain(None, 3.0, lambda: elapsed[0]))
    assert [sample.rate for sample in samples] == pytest.approx([ANSWER_FRAMES / 12.5 / 0.4] * 3)
    assert [sample.at for sample in samples] == pytest.approx([1.2, 2.4, 3.6])


def test_samples_know_the_energy_of_their_sound(monkeypatch):
    """On the same clock, at 10 W: four joules for an answer of two seconds."""
    elapsed = [0.0]
    monkeypatch.setattr(sustained, "speak", lambda _model: elapsed.__setitem__(0, elapsed[0] + 0.4))
    used = [0.0]

    def more():
        used.append(10 * elapsed[0])
        return used[-1] - used[-2]

    samples = list(sustain(None, 3.0, lambda: elapsed[0], Meter("a sensor", more)))
    assert [sample.joules for sample in samples] == pytest.approx([4.0 / (ANSWER_FRAMES / 12.5)] * 3)


def test_the_command(cli, monkeypatch):
    monkeypatch.setattr(sustained, "SAMPLE_SECONDS", 0.01)
    ran = cli("bench", "--minutes", "0.01", "--threads", "1", "--json", "--plot", "heat.png")
    found = json.loads(ran.out)
    assert found["samples"] and all(sample["rate"] > 0 for sample in found["samples"])
    energy = found["energy"]
    assert (energy["joules_per_second_of_sound"] is None) == bool(energy["missing"])
    assert found["verdict"]["kept"] > 0 and "wrote heat.png" in ran.err


def test_minutes_are_wanted(cli):
    cli.refuses("bench", "--threads", "1", saying="--minutes")


def test_ctrl_c_gives_what_there_is_so_far(tmp_path):
    script = (
        "import os, signal\nfrom voxrill.commands import bench as cli\nfrom voxrill.__main__ import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background is started without it
        "def tell(*_):\n    os.kill(os.getpid(), signal.SIGINT)\ncli._tell = tell\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "bench", "--minutes", "60", "--json"],
        capture_output=True,
        cwd=tmp_path,
        env=clean_environment(),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(json.loads(done.stdout)["samples"]) == 1


def test_ctrl_c_before_anything(cli, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sustained, "sustain", interrupted)
    ran = cli("bench", "--minutes", "1", "--threads", "1")
    assert ran.status == 2 and "ended before" in ran.err
