"""The doctor: what it finds here, that no probe spoils another, and that what is missing comes with its cure."""

import json
from importlib import metadata

import numpy as np
import onnxruntime as ort
import pytest

from tests.command_line import CommandLine
from voxrill.devices.memory import free_swap, total_memory
from voxrill.devices.processor import cores
from voxrill.devices.profile import shipped_profiles
from voxrill.devices.providers import PROVIDERS
from voxrill.devices.this import features
from voxrill.runtime.upkeep import doctor


@pytest.fixture
def quick(monkeypatch):
    """Nothing is measured."""
    monkeypatch.setattr(doctor, "speed", dict)


def test_all_that_is_found(cli):
    found = json.loads(cli("doctor", "--json").out)
    assert found["machine"]["cores"] == cores()
    assert set(found["providers"]) == set(PROVIDERS)
    assert found["software"]["onnxruntime"] == ort.__version__ and found["software"]["numpy"] == np.__version__
    assert found["sound"]["speech detector"] == "runs"
    assert all(found["speed"][name] > 0 for name in found["speed"])
    assert len(found["speed"]) >= 2


def test_it_is_read_by_people_too(cli, quick):
    ran = cli("doctor")
    assert ran.status == 0 and ran.err == ""
    assert "\n  instruction set  " in ran.out and "untested" in ran.out


def test_a_probe_that_fails_spoils_no_other(cli: CommandLine, quick, monkeypatch):
    def fail():
        raise RuntimeError("no such file")

    for name in ("machine", "providers", "software"):
        monkeypatch.setattr(doctor, name, fail)
    ran = cli("doctor", "--json")
    found = json.loads(ran.out)
    assert ran.status == 0 and found["machine"] == {"not found out": "no such file"}
    assert found["sound"]["speech detector"] == "runs"


def test_an_extra_that_is_missing_comes_with_its_command(quick, monkeypatch):
    def version(name):
        if name == "torch":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = doctor.examine()
    assert found.sections["extras"]["export"] == "without torch"
    assert 'pip install "voxrill[export]"' in {missing.remedy for missing in found.missing}
    assert not {"dev", "test"} & set(found.sections["extras"])


def test_too_little_memory(quick, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda: 1_000_000_000)
    found = doctor.examine()
    assert found.sections["the 1.5 B model"]["int4"].endswith("does not fit")
    assert any("voxrill plan" in missing.remedy for missing in found.missing)


def test_memory_of_a_machine(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nSwapFree: 20 kB\n", encoding="ascii")
    assert total_memory(tmp_path) == 1_024_000 and free_swap(tmp_path) == 20_480
    assert total_memory(tmp_path / "none") is None


def test_features(tmp_path):
    (tmp_path / "cpuinfo").write_text("Features\t: fp asimd asimdhp asimddp bf16 paca\n", encoding="ascii")
    assert features(tmp_path / "cpuinfo") == ["asimddp", "asimd", "asimdhp", "bf16"]


def test_devices_lists_what_is_known(cli):
    ran = cli("devices")
    assert all(name in ran.out for name in (*shipped_profiles(), *PROVIDERS))
    found = json.loads(cli("devices", "--json").out)
    assert list(found["profiles"]) == shipped_profiles()
    assert {provider["name"] for provider in found["providers"] if provider["here"]} >= {"cpu"}
