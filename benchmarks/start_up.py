"""What a start costs, part by part, and what an installation takes on disk, package by package.

    python -m benchmarks.start_up [BUNDLE] [--repeats N] [--json]

Out: the processor time of each part of a start in a process of its own (medians), the slowest imports, and the bytes of
every package that `pip install voxrill` brings, in the environment in which this runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from statistics import median
from typing import Any

from packaging.requirements import Requirement

from voxrill.devices.processor import processor

STARTS = """
import json, sys, time
times, last = [], [0.0]
def part(name):
    now = time.process_time()
    times.append((name, now - last[0]))
    last[0] = now
part("Python")
import voxrill
part("import voxrill")
import numpy
part("numpy")
import onnxruntime
part("onnxruntime")
import voxrill.model
part("the rest of the runtime")
model = voxrill.load(sys.argv[1])
part("load")
for name in ("first answer", "second answer"):
    for event in model.chat(text=sys.argv[2], output="text", max_new_tokens=8, temperature=0):
        pass
    part(name)
print(json.dumps(times))
"""
QUESTION = "what is the weather"
SLOWEST = 12


def start(bundle: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of processor time of each part."""
    runs = [dict(json.loads(_python("-c", STARTS, bundle, QUESTION).stdout)) for _ in range(repeats)]
    return {name: round(1e3 * median(run[name] for run in runs), 1) for name in runs[0]}


def slowest_imports(module: str) -> list[tuple[str, float]]:
    """The modules whose own code takes longest when `module` is imported, in milliseconds."""
    lines = _python("-X", "importtime", "-c", f"import {module}").stderr.splitlines()[1:]
    found = [(name.strip(), int(own.split(":")[-1]) / 1e3) for own, _, name in (line.split("|") for line in lines)]
    return sorted(found, key=lambda entry: -entry[1])[:SLOWEST]


def installed(name: str = "voxrill") -> dict[str, int]:
    """Bytes on disk of a package's dependencies, and of theirs, without extras: the largest first."""
    found: dict[str, int] = {}
    waiting = [name]
    while waiting:
        try:
            package = distribution(waiting.pop())
        except PackageNotFoundError:  # for another system or Python
            continue
        if package.name in found:
            continue
        files = [file.locate() for file in package.files or ()]
        found[package.name] = sum(file.stat().st_size for file in files if file.is_file())  # type: ignore[attr-defined]
        wanted = map(Requirement, package.requires or ())
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", default="pebble")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = {
        "processor": processor(),
        "start_ms": start(given.bundle, given.repeats),
        "imports_ms": slowest_imports("voxrill.model"),
        "installed_bytes": installed(),
    }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['processor']}; processor time in ms, medians of {given.repeats}")
    for name, taken in found["start_ms"].items():
        print(f"{taken:8.1f}  {name}")
    print("slowest imports, own time in ms")
    for name, taken in found["imports_ms"]:
        print(f"{taken:8.1f}  {name}")
    print(f"{sum(found['installed_bytes'].values()) / 1e6:8.1f} MB installed")
    for name, size in found["installed_bytes"].items():
        print(f"{size / 1e6:8.1f}  {name}")


if __name__ == "__main__":
    main()
