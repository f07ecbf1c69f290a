"""What the tests on ARM64 name is there: they run seldom, and a file that was moved must show at once."""

import pytest

from tests.arm.test_arm import SUITES, suite_files
from tests.arm.userland import ROOMS
from tests.places import ROOT


@pytest.mark.parametrize("suite", SUITES)
def test_every_file_of_a_suite_exists(suite):
    assert len(suite_files(suite)) == len(SUITES[suite].split())


def test_every_room_that_the_wheel_is_built_from_exists():
    assert all((ROOT / room).is_dir() for room in ROOMS)
