"""A Raspberry Pi installs wheels only: both releases of its system find all that a device needs there, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from tests.arm.userland import ROOT, wheel_tags
from tests.house.test_packaging import HEAVY

pytestmark = pytest.mark.arm

NEEDED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def resolve(python, glibc, folder, *requirements):
    """What pip would install on aarch64, by its index's word: nothing is kept."""
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


@pytest.mark.parametrize(("python", "glibc"), [("3.11", 36), ("3.13", 41)], ids=["bookworm", "trixie"])
def test_raspberry_pi_os_has_every_wheel(index, python, glibc, tmp_path):
    done = resolve(python, glibc, tmp_path, *NEEDED)
    assert done.returncode == 0, done.stderr
    wheels = [
        entry["download_info"]["url"].rsplit("/", 1)[1]
        for entry in json.loads((tmp_path / "report.json").read_bytes())["install"]
    ]
    names = {wheel.split("-")[0].lower().replace("_", "-") for wheel in wheels}
    assert {"numpy", "onnxruntime", "soundfile", "soxr", "tokenizers", "msgspec"} <= names
    assert names.isdisjoint(HEAVY)
    assert all(wheel.endswith(("aarch64.whl", "-none-any.whl")) for wheel in wheels)
