"""Malformed tensors never make the library read or write beyond them: fuzzed under AddressSanitizer."""

import re
import shutil
import subprocess

import pytest

from kernels.build import COMMON, FLAGS, SOURCES, X86
from tests.places import ROOT
from voxrill.devices.kernels import here

SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all", "-w")
COUNT = 3000
"""Products, and as many attentions."""


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    """The program; skips without a compiler that has the sanitizers, and where no test runs it."""
    compiler = next(filter(shutil.which, ("g++", "clang++")), None)
    if compiler is None or here() != "linux-x86_64":
        pytest.skip("needs x86-64 Linux with g++ or clang++")
    folder = tmp_path_factory.mktemp("fuzz")
    flags = [flag for flag in FLAGS if flag not in ("-O3", "-fvisibility=hidden")]
    units = {SOURCES / f"{name}.cc": () for name in COMMON} | {
        SOURCES / f"{name}.cc": more for name, more in X86.items()
    }
    units[ROOT / "tests" / "kernels" / "fuzz.cc"] = (f"-I{SOURCES}",)

    def run(*command):
        done = subprocess.run([compiler, *SANITIZED, *map(str, command)], capture_output=True, text=True, timeout=300)
        if "cannot find" in done.stderr:
            pytest.skip(f"{compiler} has no sanitizers: {done.stderr.strip()[-200:]}")
        assert done.returncode == 0, done.stderr

    for source, more in units.items():
        run(*flags, *more, "-c", source, "-o", folder / f"{source.stem}.o")
    run(*(folder / f"{source.stem}.o" for source in units), "-o", folder / "fuzz")
    return folder / "fuzz"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_malformed_tensors(fuzz, seed):
    done = subprocess.run([fuzz, str(seed), str(COUNT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = re.findall(r"(\w+): (\d+) ran, (\d+) refused\n", done.stdout)
    assert [what for what, _, _ in counts] == ["products", "attentions"]
    for what, ran, refused in counts:
        assert int(ran) > COUNT / 3 and int(refused) > COUNT / 10, what  # both happen
