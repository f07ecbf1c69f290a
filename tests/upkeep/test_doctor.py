"""The doctor: what it finds here, that no probe spoils another, and that what is missing comes with its cure."""

import json
from dataclasses import replace
from importlib import metadata

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from packaging import markers

from tests.command_line import CommandLine
from tests.sound_cards import FakeSounddevice, card
from voxrill.devices.memory import free_swap, total_memory
from voxrill.devices.pages import OFF_VARIABLE, PageSetting
from voxrill.devices.processor import cores
from voxrill.devices.profile import shipped_profiles
from voxrill.devices.providers import PROVIDERS
from voxrill.devices.this import features
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.manifest import GraphFile
from voxrill.runtime.upkeep import doctor


@pytest.fixture
def quick(monkeypatch):
    """Nothing is measured."""
    monkeypatch.setattr(doctor, "speed", dict)


def test_all_that_is_found(cli):
    ran = cli("doctor", "--json")
    found = json.loads(ran.out)
    assert ran.status == (0 if found["can_talk"] else 1)
    assert found["machine"]["cores"] == cores()
    assert set(found["providers"]) == set(PROVIDERS)
    assert found["software"]["onnxruntime"] == ort.__version__ and found["software"]["numpy"] == np.__version__
    assert found["sound"]["speech_detector"] == "runs"
    assert all(found["speed"][name] > 0 for name in found["speed"])
    assert len(found["speed"]) >= 2


def test_numbers_for_machines_have_their_unit_in_their_name(cli, quick):
    found = json.loads(cli("doctor", "--json").out)
    with_units = {name: value for name, value in found["machine"].items() if name.endswith(("_bytes", "_ghz"))}
    assert len(with_units) == 4
    assert all(value is None or isinstance(value, int | float) for value in with_units.values())
    assert all(isinstance(one["needs_bytes"], int) and one["fits"] in (True, False) for one in found["model"].values())
    assert all(one["here"] in (True, False) for one in found["providers"].values())


@pytest.fixture
def cards(monkeypatch):
    """`cards(*cards)`: the sound cards that this machine has."""
    return lambda *found: monkeypatch.setattr(doctor, "AudioSystem", lambda: AudioSystem(FakeSounddevice(*found)))


HEADSET = card("Headset", inputs=1, outputs=2)


def test_it_says_first_whether_it_can_talk_and_the_extras_last(cli, quick, cards):
    cards(HEADSET)
    ran = cli("doctor")
    assert ran.status == 0 and ran.err == ""
    first, *_, last = ran.out.splitlines()
    assert first == "voxrill talk works on this machine" and last.startswith("extras")
    assert "\n  instruction set  " in ran.out and "untested" in ran.out
    assert "GHz" in ran.out and "  microphone       Headset\n" in ran.out


def test_what_is_wrong_comes_first_with_its_cure(cli, quick, cards):
    cards(card("Desk", outputs=2))
    ran = cli("doctor")
    assert ran.status == 1
    first, second, third = ran.out.splitlines()[:3]
    assert first == "voxrill talk does not work on this machine yet"
    assert second.startswith("  microphone, for voxrill talk: there is no microphone") and "Connect one" in third
    found = json.loads(cli("doctor", "--json").out)
    assert not found["can_talk"] and found["sound"]["microphone"] is None and found["sound"]["loudspeaker"] == "Desk"
    assert [problem["what"] for problem in found["problems"] if problem["talk"]] == ["microphone"]


def test_a_speech_detector_that_fails_cannot_talk(cli, quick, cards, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError("no such graph")

    cards(HEADSET)
    monkeypatch.setattr(doctor, "VoiceActivity", fail)
    ran = cli("doctor")
    assert ran.status == 1 and "no such graph" in ran.out.splitlines()[1]


def test_a_probe_that_fails_spoils_no_other(cli: CommandLine, quick, cards, monkeypatch):
    def fail():
        raise RuntimeError("no such file")

    cards(HEADSET)
    for name in ("machine", "providers", "software", "extras"):
        monkeypatch.setattr(doctor, name, fail)
    ran = cli("doctor", "--json")
    found = json.loads(ran.out)
    assert ran.status == 0 and found["machine"] == {"not_found_out": "no such file"}
    assert found["sound"]["speech_detector"] == "runs"
    assert cli("doctor").out.count("no such file") == 4


def without(monkeypatch, *names):
    """A Python in which packages are not installed."""

    def version(name):
        if name in names:
            raise metadata.PackageNotFoundError
        return "2.99" if name == "torch" else "0"

    monkeypatch.setattr(doctor.metadata, "version", version)


def test_an_extra_that_is_missing_comes_with_its_command(quick, monkeypatch):
    without(monkeypatch, "torch")
    found = doctor.examine()
    facts = found.sections["extras"]["export"]
    assert not facts["installed"] and "torch" in facts["missing"]
    assert facts["remedy"] == 'pip install "voxrill[export]"'
    assert not {"dev", "test"} & set(found.sections["extras"])
    assert found.can_talk == (not any(problem.talk for problem in found.problems))  # an extra is no problem


def test_a_version_that_an_extra_does_not_take_is_missing(monkeypatch):
    without(monkeypatch)  # every version is 0, except torch's
    assert "torch" not in doctor.extras()["export"]["missing"]
    assert "transformers" in doctor.extras()["export"]["missing"]


@pytest.mark.parametrize(
    ("machine", "absent", "elsewhere"),
    [("x86_64", ["onnxruntime-qnn"], None), ("aarch64", [], ["onnxruntime-qnn"])],
)
def test_a_package_that_does_not_exist_for_this_machine_is_not_missing(monkeypatch, machine, absent, elsewhere):
    lines = ['onnxruntime-qnn>=2; sys_platform == "linux" and platform_machine == "x86_64" and extra == "npu"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _package: lines)
    here = {**markers.default_environment(), "sys_platform": "linux", "platform_machine": machine}
    monkeypatch.setattr(markers, "default_environment", lambda: here)
    without(monkeypatch, "onnxruntime-qnn")
    facts = doctor.extras()["npu"]
    assert facts["missing"] == absent and facts["installed"] == (not absent)
    assert facts.get("not_for_this_machine") == elsewhere


def test_too_little_memory(quick, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda: 1_000_000_000)
    found = doctor.examine()
    assert found.sections["model"]["int4"]["fits"] is False
    assert any("voxrill plan" in problem.remedy and not problem.talk for problem in found.problems)


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


def test_pages_are_shown_with_their_sizes(cli, quick, monkeypatch):
    monkeypatch.setattr(doctor, "page_setting", lambda: PageSetting(16384, 32 << 20, "madvise"))
    monkeypatch.setattr(doctor, "share_moved", lambda: 0.75)
    shown = " ".join(cli("doctor").out.split())
    assert "pages page 16 kB huge page 34 MB huge pages are given madvise weights on huge pages 75 % of a test" in shown
    monkeypatch.setattr(doctor, "share_moved", lambda: 0.0)
    assert json.loads(cli("doctor", "--json").out)["pages"]["weights_on_huge_pages"] == "no: the kernel refuses"
    monkeypatch.setenv(OFF_VARIABLE, "1")
    assert OFF_VARIABLE in json.loads(cli("doctor", "--json").out)["pages"]["weights_on_huge_pages"]
    monkeypatch.setattr(doctor, "page_setting", lambda: None)
    assert json.loads(cli("doctor", "--json").out)["pages"]["huge_page_bytes"] is None


def test_the_products_of_the_built_in_model_are_named(monkeypatch):
    bundle = open_builtin()
    graphs = {
        name: GraphFile(graph.file, products=("MatMulNBits 3",)) for name, graph in bundle.manifest.graphs.items()
    }
    told = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, graphs=graphs))
    monkeypatch.setattr(doctor, "open_builtin", lambda: told)
    assert doctor.products()["built_in_model_has"] == ["MatMulNBits 3"]
