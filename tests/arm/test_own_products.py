"""Our own products on emulated ARM64: every instruction set gives the bits that x86 gives."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.arm.own_products import write_own_products
from tests.arm.processors import PROCESSORS
from tests.command_line import clean_environment
from tests.places import ROOT

pytestmark = pytest.mark.arm

SCRIPT = ROOT / "tests" / "arm" / "own_products.py"
SECONDS = 300


@pytest.fixture(scope="module")
def computed(library, inside, made_once):
    """`computed(processor)`: results by instruction set, then by model; `host` is this machine."""
    given = made_once("own-products", write_own_products)

    def run(name, folder):
        if name == "host":
            command = [sys.executable, SCRIPT, folder, given]
            environment = clean_environment(PYTHONPATH=str(ROOT))
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        else:
            done = inside(name, SCRIPT, folder, given, seconds=SECONDS)
        assert done.returncode == 0, done.stderr

    def found(name):
        folder = made_once(f"own-products-{name}", lambda folder: run(name, folder))
        sets = json.loads((folder / "sets.json").read_text(encoding="utf-8"))
        return {name: dict(np.load(folder / f"{name}.npz")) for name in sets}

    return found


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: processor.name)
def test_every_instruction_set_gives_the_bits_of_x86(computed, processor):
    found, wanted = computed(processor.name), computed("host")["portable"]
    if not found:
        pytest.skip("the userland was made without zig, which compiles our products")
    sets = ["neon_i8mm"] * ("i8mm" in processor.has) + ["neon_dotprod"] * ("asimddp" in processor.has) + ["portable"]
    assert list(found) == sets
    for name, results in found.items():
        assert results.keys() == wanted.keys()
        assert [model for model, y in results.items() if y.tobytes() != wanted[model].tobytes()] == [], name
