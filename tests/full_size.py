"""The true size, with random weights: export each family, quantise it, run one turn of each form, print what it took.

Random weights say nothing about quality; they say what the true shapes cost. Run: `make full-size`, or
`python -m tests.full_size --family lfm2.5 --work DIR`. Needs about 20 GB of disk and 16 GB of memory a family, and
keeps the checkpoint and bundles in DIR for the next run.

Every figure is of this machine in one run: wall time with process CPU time beside it, and the machine's read
bandwidth, since a decode step reads every weight once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = ("lfm2", "lfm2.5")
QUESTION_SECONDS = 4.0
TEXT_TOKENS = 12
FRAMES = 24


def read_bandwidth(megabytes: int = 600, tries: int = 5) -> float:
    """GB/s of one thread summing an array far larger than the caches; the best of several tries."""
    data = np.ones(megabytes * 125_000, np.int64)
    best = 0.0
    for _ in range(tries):
        start = time.perf_counter()
        data.sum()
        best = max(best, data.nbytes / (time.perf_counter() - start) / 1e9)
    return best


def make(bundle: Path, *command: object) -> dict[str, Any]:
    """Export or quantise in a process of its own: wall and CPU seconds, peak memory, bundle size."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "voxrill", *map(str, command), "-o", str(bundle)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"voxrill {command[0]} failed")
    return {
        "seconds": round(time.perf_counter() - start),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime),
        "peak_memory_gb": round(usage.ru_maxrss / 1e6, 1),
        "bundle_gb": round(sum(f.stat().st_size for f in bundle.iterdir()) / 1e9, 2),
    }


def turn(bundle: Path, threads: int) -> dict[str, Any]:
    """Load and answer one spoken question; milliseconds a call by stage. Runs in a process of its own."""
    import voxrill
    from tests.signals import speech_like

    start, cpu = time.perf_counter(), time.process_time()
    model = voxrill.load(bundle, threads=threads)
    load_seconds = time.perf_counter() - start
    load_cpu = time.process_time() - cpu
    waveform = speech_like(int(QUESTION_SECONDS * 16_000), 1)
    for _ in range(2):  # the second turn finds the weights in the page cache
        start, cpu = time.perf_counter(), time.process_time()
        *_, end = model.chat(audio=waveform, max_new_tokens=TEXT_TOKENS + FRAMES, seed=0)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    stages = {name: round(stage.mean_ms, 1) for name, stage in model.times.stages.items()}
    calls = {name: stage.calls for name, stage in model.times.stages.items()}
    prefill = _prefill_ms(model, waveform)
    steps = calls["decoder"] - 1
    total_decoder = stages["decoder"] * calls["decoder"]
    return {
        "threads": threads,
        "load_seconds": round(load_seconds, 2),
        "load_cpu_seconds": round(load_cpu, 2),
        "prompt_positions": end.result.prompt_positions,
        "prefill_ms": round(prefill),
        "decode_step_ms": round((total_decoder - prefill) / max(steps, 1), 1),
        "mean_ms": stages,
        "calls": calls,
        "first_audio_seconds": round(end.result.first_audio or 0.0, 2),
        "turn_seconds": round(wall, 2),
        "turn_cpu_seconds": round(cpu, 2),
        "audio_seconds": round(end.result.audio_seconds, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def _prefill_ms(model: Any, waveform: Any) -> float:
    """Milliseconds of the question's prefill alone, the median of three."""
    times = []
    for _ in range(3):
        context = model.conversation().context
        with context.turn("user"):
            context.add_audio(waveform)
        context.open_turn("assistant")
        start = time.perf_counter()
        context.advance()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def measure(family: str, work: Path, fresh: bool) -> dict[str, Any]:
    """Everything for one family."""
    from tests.checkpoints import make_checkpoint

    checkpoint, exported = work / f"checkpoint-{family}", work / f"bundle-{family}"
    if not (checkpoint / "tokenizer.json").is_file():
        make_checkpoint(checkpoint, family, "full", dtype="bfloat16")
    commands: dict[str, tuple[object, ...]] = {
        "float32": ("export", checkpoint),
        "int8": ("quantize", exported, "--recipe", "int8"),
        "int4": ("quantize", exported, "--recipe", "int4"),
    }
    bundles = {
        name: exported if name == "float32" else exported.with_name(f"{exported.name}-{name}") for name in commands
    }
    results: dict[str, Any] = {"family": family, "made": {}, "turns": {name: [] for name in bundles}}
    for name, bundle in bundles.items():
        if fresh or not (bundle / "manifest.json").is_file():
            results["made"][name] = make(bundle, *commands[name])
    for threads in (1, 2):
        for name, bundle in bundles.items():  # side by side: a noisy machine is noisy for all
            command = [sys.executable, "-m", "tests.full_size", "--turn", str(bundle), "--threads", str(threads)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results["turns"][name].append(json.loads(answer.stdout))
    return results


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--work", type=Path, default=Path("build/full-size"))
    parser.add_argument("--keep", action="store_true", help="do not make again what is there")
    parser.add_argument("--turn", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        print(json.dumps(turn(args.turn, args.threads)))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "read_gb_per_second": round(read_bandwidth(), 1),
        },
        "families": [measure(f, args.work, not args.keep) for f in args.family or FAMILIES],
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
