"""The contender's side of a benchmark: requests come in on stdin, one JSON object a line; answers go out on stdout.

In: `{"stage": "decode", "args": {"context": 200}, "count": 5}`. Out: wall and processor seconds of each of the 5 calls,
and the process's memory. The first line out tells how long loading took and what was loaded. This module needs nothing
but the standard library, so that it runs in every contender's own environment.

Why each has a process: contenders are loaded together and asked in turn, so that other work of the machine slows all of
them alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[], float | None]
"""What is timed. It may return an amount, such as seconds of sound; the time is divided by it."""

Json = dict[str, Any]


class Unsupported(Exception):
    """This contender cannot do what was asked; the message says why."""


class Contender:
    """Something that can be measured: every public method is a stage, and returns the call to time."""

    def facts(self) -> Json:
        """What was loaded: sizes in bytes, versions."""
        return {}

    def settle(self) -> None:
        """Wait for what a thread still does after loading; it does not count as loading."""


def serve(load: Callable[[], Contender]) -> None:
    """Load, then answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def answer(value: Json) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    wall, cpu = time.perf_counter(), time.process_time()
    contender = load()
    loaded = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    contender.settle()
    loaded["settled"] = time.perf_counter() - wall
    answer({"load": loaded, "memory": memory(), "facts": contender.facts()})
    for line in sys.stdin:
        try:
            answer(measure(contender, **json.loads(line)))
        except Unsupported as reason:
            answer({"unsupported": str(reason)})


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """One call's seconds, of the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(contender: Contender, stage: str, args: Json, count: int) -> Json:
    """Time `count` calls of a stage."""
    prepare = getattr(contender, stage, None)
    if prepare is None:
        raise Unsupported(f"has no {stage}")
    call: Call = prepare(**args)
    reset_peak()
    walls, cpus, amounts = [], [], []
    for _ in range(count):
        wall, cpu = time.perf_counter(), time.process_time()
        amount = call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        amounts.append(1.0 if amount is None else amount)
    return {"wall": walls, "cpu": cpus, "amount": amounts, "memory": memory()}


def reset_peak() -> None:
    """Start a new peak for `memory` (Linux only; elsewhere the peak is that of the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory() -> Json:
    """Bytes of memory: resident; mapped from files, which can be dropped; the peak; and those on huge pages."""
    try:
        lines = [
            line for name in ("status", "smaps_rollup") for line in Path("/proc/self", name).read_text().splitlines()
        ]
    except OSError:
        return {}
    found = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    names = {
        "resident": "VmRSS",
        "mapped": "RssFile",
        "peak": "VmHWM",
        "huge": "AnonHugePages",
        "huge_files": "FilePmdMapped",
    }
    return {name: 1024 * int(found[key][0]) for name, key in names.items() if key in found}
