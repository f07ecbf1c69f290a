"""Profiles: all shipped ones are complete, and a user's mistake is answered with what would be right."""

from pathlib import Path

import pytest

from tests.command_line import check_refusal
from voxrill.devices.memory import total_memory
from voxrill.devices.processor import cores
from voxrill.devices.profile import HERE, PROFILES, ProfileValue, read_profile, shipped_profiles
from voxrill.devices.this import clock_ghz, instruction_set, this_machine
from voxrill.runtime.errors import ProfileError

PHONES = ("iphone16", "pixel9", "sd8elite", "sd8gen3")
BOARDS = ("orin-nano", "pi-zero-2w", "pi4", "pi5", "rk3588")
LAPTOPS = ("n100", "ryzen-ai", "x-elite", "x86", "x86-vnni")
EMULATED = ("pi4", "pi5", "rk3588")  # their processors are, in tests/arm
NAMES = sorted((*PHONES, *BOARDS, *LAPTOPS))


def edited(tmp_path, old, new):
    """The Pi 5's profile with a change, as a user's file."""
    text = (PROFILES / "pi5.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new), encoding="utf-8")
    return str(tmp_path / "mine.toml")


def test_the_short_names():
    assert shipped_profiles() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_is_whole(name):
    profile = read_profile(name)
    for key, figure in profile.figures.items():
        assert figure.source, f"{key} says nothing of where it is from"
        emulated = ("emulated",) if name in EMULATED and key in ("instruction_set", "providers") else ()
        simulated = ("simulated",) if key == "own_products" else ()
        assert figure.evidence in ("cited", "assumed", *emulated, *simulated), f"{key}: nobody has measured on a {name}"
        assert figure.evidence != "cited" or "https://" in figure.source or "http://" in figure.source, f"{key}: where?"
    assert profile.core_bandwidth_gbps.value <= profile.bandwidth_gbps.value < profile.theoretical_gbps.value
    sizes = profile.memory_sizes_gb
    assert list(sizes) == sorted(sizes) and (not sizes or sizes[0] == profile.memory_gb.value)


def test_a_user_s_profile_is_one_file(tmp_path):
    path = edited(tmp_path, "value = 11.6", "value = 12.5")
    source = read_profile("pi5").bandwidth_gbps.source
    assert read_profile(path).bandwidth_gbps == ProfileValue(12.5, "cited", source)


def test_an_unknown_device_lists_the_valid_ones(cli):
    check_refusal(cli("plan", "--device", "pi6"), ("pi6", "this", *NAMES))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="the system has no endless file")
def test_a_file_without_end_is_not_read_to_it():
    with pytest.raises(ProfileError, match=r"/dev/zero is larger than 4 MB\. Give a smaller file"):
        read_profile("/dev/zero")


def test_a_key_of_many_parts_is_refused(tmp_path):
    """Python's parser would take gigabytes for it."""
    (tmp_path / "mine.toml").write_text("a." * 1_000 + "a = 1\n")
    with pytest.raises(ProfileError, match=r"mine\.toml cannot be read: line 1 has more than 200 dots"):
        read_profile(str(tmp_path / "mine.toml"))


def test_an_unknown_key_lists_the_valid_ones(cli, tmp_path):
    path = edited(tmp_path, "bandwidth_gbps =", "speed =")
    check_refusal(cli("plan", "--device", path), ("mine.toml", "core_bandwidth_gbps", "instruction_set", "runnable"))


def test_an_unknown_key_of_a_figure_lists_those_of_figures(tmp_path):
    path = edited(tmp_path, "value = 11.6", "value = 11.6, unit = 1")
    with pytest.raises(match="unit") as refused:
        read_profile(path)
    assert refused.value.remedy == "Valid keys here: value, evidence, source"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("value = 11.6", "value = 0", "bandwidth_gbps is 0"),
        ('evidence = "assumed", source = "the system and other programs"', 'evidence = "measured"', "source"),
        ("value = 0.5", "value = 4.5", "reserved_gb"),
        ("neon_dotprod", "neon_dotty", "neon_dotty"),
    ],
)
def test_figures_that_make_no_sense(tmp_path, old, new, words):
    with pytest.raises(match=words):
        read_profile(edited(tmp_path, old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [("memory_gb = { value = 4,", "memory_gb = { value = 9000,"), ("[4, 8, 16]", "[4, 8, 9000]")],
)
def test_more_memory_than_this_machine_has_is_refused_if_it_is_of_this_machine(cli, tmp_path, old, new):
    path = edited(tmp_path, old, new)
    assert read_profile(path).name == "Raspberry Pi 5"  # another machine may have it
    text = (tmp_path / "mine.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text.replace("Raspberry Pi 5", HERE, 1), encoding="utf-8")
    check_refusal(cli("plan", "--device", path), ("9000.0 GB", f"{total_memory() / 1e9:.1f} GB", "memory_gb"))


def test_this_machine_is_measured():
    profile = this_machine()
    assert profile.cores.value == cores()
    assert 0 < profile.core_bandwidth_gbps.value <= profile.bandwidth_gbps.value
    for name in ("memory_gb", "cores", "bandwidth_gbps", "instruction_set"):
        assert profile.figures[name].evidence == "measured"
    assert profile.evidence == "assumed"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("flags\t\t: avx2 avx_vnni avx512_vnni amx_int8", "amx_int8"),
        ("flags\t\t: avx2 avx_vnni", "avx_vnni"),
        ("Features\t: fp asimd asimdhp asimddp", "neon_dotprod"),
        ("Features\t: fp asimd crc32", "neon"),
        ("isa\t: rv64", "scalar"),
    ],
)
def test_instruction_sets(tmp_path, line, kind):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n", encoding="ascii")
    assert instruction_set(tmp_path / "cpuinfo") == kind


def test_the_clock(tmp_path):
    cpuinfo, highest = tmp_path / "cpuinfo", tmp_path / "max_freq"
    assert clock_ghz(cpuinfo, highest).evidence == "assumed"
    cpuinfo.write_text("cpu MHz\t\t: 2600.000\n", encoding="ascii")
    assert clock_ghz(cpuinfo, highest).value == 2.6
    highest.write_text("2400000\n", encoding="ascii")
    assert clock_ghz(cpuinfo, highest).value == 2.4
