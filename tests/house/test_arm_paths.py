"""What the tests on ARM64 name is there: they run seldom, and a file that was moved must show at once."""

import subprocess
import sys

import pytest

from tests.arm.test_arm import SUITES, suite_files
from tests.arm.userland import ROOMS
from tests.places import ROOT


@pytest.mark.parametrize("suite", SUITES)
def test_every_file_of_a_suite_exists(suite):
    assert len(suite_files(suite)) == len(SUITES[suite].split())


def test_what_make_runs_can_be_imported():
    """As a module: as a script it would not find the other tests, and `make test-arm` goes on without it."""
    assert "python -m tests.arm.userland" in (ROOT / "Makefile").read_text(encoding="utf-8")
    script = "import runpy; runpy.run_module('tests.arm.userland', run_name='imported')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_room_that_the_wheel_is_built_from_exists():
    assert all((ROOT / room).is_dir() for room in ROOMS)
