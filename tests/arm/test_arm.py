"""The runtime on emulated ARM64: its own tests, and Pebble from a spoken question to a spoken answer. `make test-arm`

Emulation proves code paths and numbers, and never speed. The tests run as a Pi 5's processor; Pebble runs as each one.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.arm.processors import PROCESSORS
from tests.places import ROOT

pytestmark = pytest.mark.arm

SUITE_SECONDS = 1200
SUITES = {
    "sound": "test_audio_file test_log_mel test_sound_devices test_endpointing test_profiles",
    "talking": "test_talk test_talk_loop test_talk_view",
    "model": "test_model test_snapshot test_bundle test_builtin test_tune",
}
"""Tests that need only what a device installs, and bundles that the host has exported."""
TOO_LONG = "not many_turns"  # minutes of talk: how memory grows does not depend on the processor

FLOAT32 = 1e-5
"""How far float32 numbers may be from x86's; measured: 2e-6."""
INT4 = 0.04
"""How far INT4 numbers may be from x86's; measured: 0.02, where only one of them rounds activations to 8 bits."""
ROUNDING = 1.2
"""Quantised numbers may be this many times as far from float32, or from x86's, as x86's are from float32. Measured:
1.02 beside an x86 with VNNI, 1.03 beside one without it (INT4); from x86's 1.02 (INT8, the processor with SME)."""

every_processor = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: processor.name)


def suite_files(suite):
    """The files of a suite, below the repository's root."""
    found = {path.stem: path.relative_to(ROOT) for path in (ROOT / "tests").glob("*/test_*.py")}
    return [found[name] for name in SUITES[suite].split()]


def distance(found, wanted):
    """The RMS of the difference as a part of what is wanted."""
    return float(np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted))


def outputs(answers, precision):
    """Every graph's output, by its name."""
    return {name.split("/")[1]: value for name, value in answers.numbers.items() if name.startswith(f"{precision}/")}


def apart(found, wanted):
    """The largest distance over all graphs."""
    return max(distance(value, wanted[name]) for name, value in found.items())


@pytest.mark.parametrize("suite", SUITES)
def test_the_runtime_s_own_tests_pass(inside, bundles, suite, record_property):
    made = {bundles[family].parent for family in bundles}
    files = suite_files(suite)
    environment = {"VOXRILL_TESTS_MADE": str(*made)}
    options = ("-q", "-p", "no:cacheprovider", "-k", TOO_LONG)
    done = inside("cortex-a76", "-m", "pytest", *options, *files, seconds=SUITE_SECONDS, **environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed >= 40  # "talking" has the fewest, 48 when this was written
    record_property(f"cortex-a76: tests of {suite}", passed)


@every_processor
def test_it_runs_as_that_processor(answers, processor, record_property):
    said = answers(processor.name).said
    assert said["machine"] == "aarch64"
    assert processor.has <= set(said["features"]) and processor.lacks.isdisjoint(said["features"])
    assert said["instruction_set"] == processor.instruction_set
    record_property(f"{processor.name}: instruction set", said["instruction_set"])
    record_property(f"{processor.name}: peak MB", f"{said['peak_mb']:.0f}")


@every_processor
def test_pebble_says_the_same_words(answers, processor, record_property):
    """A transcript, a sentence said aloud and a spoken turn in INT8, INT4 and float32; in INT8 all six combinations."""
    wanted, found = answers("host").said["words"], answers(processor.name).said["words"]
    assert wanted["int8"]["transcribe"]["text"] == "turn on the kitchen lights"
    assert wanted["int8"]["speech to speech"]["text"] == "kitchen lights on"
    for precision, routes in wanted.items():
        for route, answer in routes.items():
            other = found[precision][route]
            assert (other["text"], other["end"]) == (answer["text"], answer["end"]), f"{precision}, {route}"
            assert len(other["codes"]) == 8 and bool(other["codes"][0]) == bool(answer["codes"][0])
    same = [found[p][r]["codes"] == answer["codes"] for p, routes in wanted.items() for r, answer in routes.items()]
    record_property(f"{processor.name}: words", f"same, {sum(same)} of {len(same)} the same codes")


@every_processor
def test_float32_numbers_are_those_of_x86(answers, processor):
    assert apart(outputs(answers(processor.name), "float32"), outputs(answers("host"), "float32")) <= FLOAT32


@every_processor
def test_quantised_numbers_are_close_to_those_of_x86(answers, processor, record_property):
    """One step of rounding may begin all others anew, so x86's own distance from float32 is the measure."""
    host, here = answers("host"), answers(processor.name)
    exact, found, wanted = outputs(host, "float32"), outputs(here, "int8"), outputs(host, "int8")
    sound = distance(found.pop("sound"), wanted["sound"])
    for name, value in found.items():
        assert distance(value, wanted[name]) <= ROUNDING * distance(wanted[name], exact[name]), name
    int8 = apart(found, wanted)
    assert sound <= processor.sound
    without_sound = {name: value for name, value in outputs(here, "int4").items() if name != "sound"}  # INT8, too
    assert apart(without_sound, outputs(host, "int4")) <= INT4
    record_property(f"{processor.name}: INT8 from x86", f"{int8:.3f}, its sound {sound:.3f}")


@every_processor
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_numbers_are_as_close_to_float32_as_on_x86(answers, processor, precision):
    host, here = answers("host"), outputs(answers(processor.name), precision)
    exact, rounded = outputs(host, "float32"), outputs(host, precision)
    for name, value in here.items():
        assert distance(value, exact[name]) <= ROUNDING * distance(rounded[name], exact[name]), name


@every_processor
def test_without_dot_product_4_bit_products_are_computed_in_float32(answers, processor):
    """That is why the planner takes INT8 there. Rounding activations to 8 bits would show in a product's numbers."""
    numbers = answers(processor.name).numbers

    def rounding(kind):
        return distance(numbers[f"product/{kind}"], numbers[f"product/{kind}-float"])

    assert rounding("int8") > 1e-3
    if processor.dot_product:
        assert rounding("int4") > 1e-3
    else:
        assert rounding("int4") < 1e-6
