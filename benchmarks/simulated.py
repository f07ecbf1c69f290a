"""Products a cycle of our own kernels on ARM cores that we do not have: an estimate from their instructions.

In: the sources in `kernels/`, zig (`pip install ziglang`) and LLVM's `llvm-mca`. Out: `benchmarks/simulated.json`. The
profiles of devices hold its figures, as evidence "simulated".

The kernel of each width is compiled as the library is, and what it does for one block of 128 columns is given to
`llvm-mca`, which plays it through the pipelines of a core, as LLVM's schedulers know them. It takes the weights to be
in the first cache: what memory allows is the planner's other limit. Where code has two ways (zero points or none), both
are counted, so the kernel itself is a little faster. No such figure was measured on a core.

    python -m benchmarks.simulated --zig PYTHON --mca llvm-mca-19
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.worker import ROOT
from voxrill.runtime.atomic_write import write_text

OUT = ROOT / "benchmarks" / "simulated.json"
BLOCK = 128
"""Columns of a block of weights."""
BITS = (8, 4, 3, 2)
TILES = (1, 8)
"""Positions that are multiplied together: of a step, and of a prompt."""
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-w", "-g0", "-S")
ITERATIONS = 100
BRIEF = ("-instruction-info=0", "-resource-pressure=0")


@dataclass(frozen=True)
class Core:
    """A core: LLVM's model of its pipelines, and the kernel that runs on it.

    source: what is compiled; `BITS` and `TILE` are put in. mark: the instruction that multiplies; products: of one.
    """

    model: str
    feature: str
    source: str
    mark: str
    products: int


_DOTPROD = """
#include "neon_dotprod.cc"
namespace voxrill {
__attribute__((flatten)) void measured(const Product& product, int64_t group, int row) {
  multiply_tile<Dotprod, BITS, TILE>(product, group, row);
}
}
"""
_PORTABLE = """
#include "portable.cc"
namespace voxrill {
void measured(const uint8_t* weights, const int8_t* x, int block, int32_t* sums) {
  multiply_block(weights, x, block, sums);
}
}
"""

CORES = {
    "cortex-a76": Core("neoverse-n1", "+dotprod", _DOTPROD, "sdot", 16),
    "cortex-a72": Core("cortex-a72", "+neon", _PORTABLE, "smlal", 4),
}
"""Neoverse N1 is the server's form of the Cortex-A76, and LLVM has its pipelines; for the name cortex-a76 itself LLVM
takes those of the older A57. A Cortex-A72 has no dot product, so it runs the portable kernel. Of that only the products
are counted, and not how weights are unpacked: its figure is an upper bound, the same for all bits and positions."""


def assembly(core: Core, bits: int, tile: int, sources: Path, compiler: list[str]) -> list[str]:
    """The compiled lines of the function `measured`."""
    text = core.source.replace("BITS", str(bits)).replace("TILE", str(tile))
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "measured.cc"), Path(folder, "measured.s")
        source.write_text(text, encoding="utf-8")
        target = ["-target", "aarch64-linux-gnu", f"-mcpu=generic{core.feature}", f"-I{sources}"]
        subprocess.run([*compiler, *target, *FLAGS, str(source), "-o", str(made)], check=True)
        lines = made.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if re.match(r"_ZN7voxrill8measured\w*:", line))
    end = next(number for number in range(start, len(lines)) if lines[number].startswith(".Lfunc_end"))
    return lines[start:end]


def loops(lines: list[str]) -> list[tuple[int, int]]:
    """Every loop: the line of its label, and that of the jump back to it."""
    labels = {line.split(":")[0]: number for number, line in enumerate(lines) if line.startswith(".L")}
    jumps = [(number, re.search(r"\t(?:b|b\.\w+|cbn?z|tbn?z)\t.*?(\.L\w+)", line)) for number, line in enumerate(lines)]
    back = [(labels.get(jump[1], number), number) for number, jump in jumps if jump]
    return [(first, last) for first, last in back if first < last]


def block(lines: list[str], mark: str) -> list[str]:
    """The instructions for one block: the loop over its columns as often as it runs, and what surrounds it once."""
    found = loops(lines)
    inner = min((loop for loop in found if _marked(lines, loop, mark)), key=lambda loop: loop[1] - loop[0])
    body = lines[inner[0] : inner[1] + 1]
    around = [loop for loop in found if loop[0] < inner[0] and inner[1] < loop[1]]
    if not around:
        return _instructions(body)
    outer, times = min(around, key=lambda loop: loop[1] - loop[0]), BLOCK // _columns(body)
    return _instructions([*lines[outer[0] : inner[0]], *(times * body), *lines[inner[1] + 1 : outer[1] + 1]])


def _marked(lines: list[str], loop: tuple[int, int], mark: str) -> bool:
    return any(line.startswith(f"\t{mark}") for line in lines[loop[0] : loop[1] + 1])


def _columns(body: list[str]) -> int:
    """The columns that a run of the loop advances by: its counter is compared with the block's length."""
    compared = next(line.split("\t")[2].split(",")[0] for line in reversed(body) if line.startswith("\tcmp\t"))
    steps = [re.search(rf"\tadd\t{compared}, {compared}, #(\d+)", line) for line in body]
    return next(int(step[1]) for step in steps if step)


def _instructions(lines: list[str]) -> list[str]:
    """Without labels, directives and comments."""
    return [line for line in lines if line.startswith("\t") and not line.startswith(("\t.", "\t//"))]


def cycles(instructions: list[str], core: Core, mca: str) -> float:
    """Cycles that a core takes for the instructions, repeated."""
    words = [mca, "-mtriple=aarch64", f"-mcpu={core.model}", f"-mattr={core.feature}", f"-iterations={ITERATIONS}"]
    text = "\n".join(instructions)
    found = subprocess.run([*words, *BRIEF], input=text, capture_output=True, text=True, check=True).stdout
    total = re.search(r"Total Cycles:\s+(\d+)", found)
    assert total is not None
    return int(total[1]) / ITERATIONS


def estimate(core: Core, sources: Path, compiler: list[str], mca: str) -> dict[str, dict[str, float]]:
    """Products a cycle, by positions that are multiplied together, and by bits of a weight."""

    def of(bits: int, tile: int) -> float:
        instructions = block(assembly(core, bits, tile, sources, compiler), core.mark)
        marks = sum(line.startswith(f"\t{core.mark}") for line in instructions)
        return round(core.products * marks / cycles(instructions, core, mca), 2)

    return {str(tile): {str(bits): of(bits, tile) for bits in BITS} for tile in TILES}


def _version(words: list[str]) -> str:
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    return next(line.strip() for line in ran.stdout.splitlines() if "version" in line)


def main() -> None:
    """Estimate every core, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zig", type=Path, default=Path(sys.executable), help="interpreter that has ziglang")
    parser.add_argument("--mca", default="llvm-mca", help="LLVM's llvm-mca, 17 or later: older ones lack Neoverse N1")
    parser.add_argument("--sources", type=Path, default=ROOT / "kernels")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    args = parser.parse_args()
    compiler = [str(args.zig), "-m", "ziglang", "c++"]
    found: dict[str, Any] = {
        "command": "python -m benchmarks.simulated",
        "tools": [_version([args.mca, "--version"]), _version([*compiler, "--version"])],
        "products_per_cycle": {name: estimate(core, args.sources, compiler, args.mca) for name, core in CORES.items()},
    }
    write_text(args.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
