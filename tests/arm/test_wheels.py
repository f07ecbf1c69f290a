"""A Raspberry Pi installs wheels only: each of its Pythons finds all that a device and its server need, and no torch.

An ARM64 host finds the wheels of the export, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from tests.arm.userland import ROOT, wheel_tags
from tests.house.test_packaging import HEAVY

pytestmark = pytest.mark.arm

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED, EXTRAS = PROJECT["dependencies"], PROJECT["optional-dependencies"]


def resolve(python, glibc, folder, *requirements):
    """What pip would install on aarch64. It asks the index and keeps nothing."""
    options = ("--dry-run", "--quiet", "--ignore-installed", "--report", folder / "report.json", "--target", folder)
    target = ("--only-binary=:all:", "--implementation", "cp", "--python-version", python, *wheel_tags(glibc))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, *target, *requirements]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Skips where pip reaches no index."""
    reached = resolve("3.11", 36, tmp_path_factory.mktemp("index"), "msgspec")
    if reached.returncode:
        pytest.skip(f"pip reaches no package index: {reached.stderr.strip().splitlines()[-1:]}")


def wheels(folder):
    """The names of the wheels that `resolve` found."""
    found = json.loads((folder / "report.json").read_bytes())["install"]
    return [entry["download_info"]["url"].rsplit("/", 1)[1] for entry in found]


@pytest.mark.parametrize(
    ("python", "glibc"), [("3.11", 36), ("3.13", 41), ("3.14", 41)], ids=["bookworm", "trixie", "trixie-3.14"]
)
def test_raspberry_pi_os_has_every_wheel(index, python, glibc, tmp_path):
    done = resolve(python, glibc, tmp_path, *NEEDED, *EXTRAS["serve"])
    assert done.returncode == 0, done.stderr
    found = wheels(tmp_path)
    names = {wheel.split("-")[0].lower().replace("_", "-") for wheel in found}
    assert {"numpy", "onnxruntime", "soundfile", "soxr", "tokenizers", "msgspec", "uvicorn", "wyoming"} <= names
    assert names.isdisjoint(HEAVY)
    assert all(wheel.endswith(("aarch64.whl", "-none-any.whl")) for wheel in found)


@pytest.mark.parametrize("python", ["3.11", "3.14"])
def test_an_arm_host_has_the_wheels_of_the_export(index, python, tmp_path):
    """Without what they require: pip would look at this machine, not at the host, to choose torch's CUDA packages."""
    done = resolve(python, 41, tmp_path, "--no-deps", *EXTRAS["export"])
    assert done.returncode == 0, done.stderr
    assert len(wheels(tmp_path)) == len(EXTRAS["export"])
