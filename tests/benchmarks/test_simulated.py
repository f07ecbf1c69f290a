"""Products a cycle from instructions: what is counted for a block, and that the profiles hold what was found."""

import json
import shutil
import subprocess
import sys

import pytest

from benchmarks import simulated
from tests.places import ROOT
from voxrill.devices.profile import read_profile

CODE = """
_ZN7voxrill8measuredEv:
.LBB0_1:
\tldr\tx9, [x0], #8
.LBB0_2:
\tldr\tq0, [x1], #16
\tsdot\tv1.4s, v0.16b, v2.4b[0]
\tadd\tx4, x4, #32
\tcmp\tx4, x10
\tb.lt\t.LBB0_2
\tscvtf\tv1.4s, v1.4s
\tcbnz\tx9, .LBB0_1
\tret
""".strip().splitlines()


def test_a_block_is_the_loop_over_its_columns_and_what_surrounds_it():
    instructions = simulated.block(CODE, "sdot")
    names = [line.split()[0] for line in instructions]
    assert names.count("sdot") == 128 // 32
    assert names.count("scvtf") == 1 and names[-1] == "cbnz" and "ret" not in names


def test_a_loop_that_nothing_surrounds_is_taken_as_it_is():
    assert len(simulated.block(CODE[2:9], "sdot")) == 5


def test_the_profiles_hold_what_was_found():
    found = json.loads(simulated.OUT.read_text(encoding="utf-8"))["products_per_cycle"]
    assert set(found) == set(simulated.CORES)
    for name in ("pi5", "rk3588"):
        own = read_profile(name).own_products.value
        assert own == {bits: (found["cortex-a76"]["1"][bits], found["cortex-a76"]["8"][bits]) for bits in own}
    best = 2 * 16  # two pipes, 16 products of 8 bits in each
    assert all(0 < rate < best for by_bits in found["cortex-a76"].values() for rate in by_bits.values())


def test_the_kernel_of_this_tree_is_close_to_what_was_recorded(tmp_path):
    """Compile and play one width again; a kernel that became slower needs its figure made anew."""
    mca = next((found for name in ("llvm-mca-19", "llvm-mca-18", "llvm-mca-17") if (found := shutil.which(name))), None)
    zig = subprocess.run([sys.executable, "-m", "ziglang", "version"], capture_output=True, check=False)
    if mca is None or zig.returncode:
        pytest.skip("needs llvm-mca 17 or later, and zig: apt install llvm-19, pip install ziglang")
    core, compiler = simulated.CORES["cortex-a76"], [sys.executable, "-m", "ziglang", "c++"]
    instructions = simulated.block(simulated.assembly(core, 4, 1, ROOT / "kernels", compiler), core.mark)
    products = 16 * sum(line.startswith("\tsdot") for line in instructions)
    recorded = json.loads(simulated.OUT.read_text(encoding="utf-8"))["products_per_cycle"]["cortex-a76"]["1"]["4"]
    assert products / simulated.cycles(instructions, core, mca) == pytest.approx(recorded, rel=0.25)
