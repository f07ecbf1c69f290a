"""The userland, what every processor answers in it, and the table at the end of a run.

Each processor answers once in a run, for the first worker of pytest-xdist that asks. The host answers, too: the others
are compared with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.arm.userland import ARM, Unavailable, make_userland, run_inside
from tests.command_line import clean_environment
from tests.conftest import import_exporter
from tests.places import ROOT

SECONDS = 1200  # for one run inside, so that it cannot hang; the slowest, `max`, takes 260 s on shared cores
PEBBLE = ROOT / "src" / "voxrill" / "pebble" / "bundle"
PEBBLE_CHECKPOINT, PEBBLE_INT4 = (ROOT / "pebble" / name for name in ("checkpoint", "int4.toml"))


@dataclass(frozen=True)
class Answers:
    """What a machine answered."""

    said: dict[str, Any]
    numbers: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def inside() -> Callable[..., subprocess.CompletedProcess]:
    """`run_inside`; skips without a userland to run in."""
    try:
        make_userland()
    except Unavailable as reason:
        pytest.skip(f"the ARM64 userland: {reason}")
    return run_inside


@pytest.fixture(scope="session")
def question_bundles(shared, made_once) -> dict[str, Path]:
    """Pebble by precision: INT8 as it ships, and the others from the same checkpoint."""

    def float32(folder: Path) -> None:
        exporter = import_exporter(shared)
        from voxrill.export.checkpoint import open_checkpoint

        exporter.export_bundle(open_checkpoint(PEBBLE_CHECKPOINT), folder)

    def int4(folder: Path) -> None:
        from voxrill.quantize.bundle import quantize_bundle
        from voxrill.quantize.recipe import read_recipe
        from voxrill.runtime.bundle.bundle import open_bundle

        quantize_bundle(open_bundle(made_once("pebble-float32", float32)), folder, read_recipe(str(PEBBLE_INT4)))

    small = made_once("pebble-int4", int4)
    return {"int8": PEBBLE, "int4": small, "float32": made_once("pebble-float32", float32)}


@pytest.fixture(scope="session")
def answers(inside, question_bundles, made_once) -> Callable[[str], Answers]:
    """The answers of a processor, such as `answers("cortex-a76")`, or of the `host`."""

    def products(folder: Path) -> None:
        from tests.arm.products import write_products

        write_products(folder)

    asked = [f"{name}={folder}" for name, folder in question_bundles.items()]
    asked += ["--products", str(made_once("products", products))]

    def ask(name: str, folder: Path) -> None:
        question = (ROOT / "tests" / "arm" / "answers.py", folder, *asked)
        done = _on_host(*question) if name == "host" else inside(name, *question, seconds=SECONDS)
        assert done.returncode == 0, done.stderr

    def answered(name: str) -> Answers:
        folder = made_once(f"answers-{name}", lambda folder: ask(name, folder))
        said = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
        return Answers(said, dict(np.load(folder / "numbers.npz")))

    return answered


def _on_host(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    environment = clean_environment(PYTHONPATH=str(ROOT))  # a script finds its own folder only, and not `tests`
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the table of what tests recorded, with a row for each processor."""
    rows: dict[str, dict[str, str]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, cell in report.user_properties:
            processor, _, column = name.partition(": ")
            rows.setdefault(processor, {})[column] = cell
    if not rows:
        return
    columns = ("instruction set", "tests passed", "words", "INT8 from x86", "peak MB")
    size = sum(
        file.stat().st_size for name in ("device", "voxrill") for file in (ARM / name).rglob("*") if file.is_file()
    )
    terminalreporter.section("emulated (qemu-user): code paths and numbers, never speed")
    terminalreporter.write_line(f"| processor | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}")
    for processor, row in rows.items():
        terminalreporter.write_line(f"| {processor} | {' | '.join(row.get(column, '') for column in columns)} |")
    terminalreporter.write_line(f"installed on aarch64: {size / 1e6:.0f} MB; the peak includes what qemu itself takes")
