"""The work before an answer's first sound, by us and by others, and the wait behind the same endpoint timer.

In: what `voxrill bench first-sound --json` wrote, and this benchmark's contenders. Out: for each contender the same
work (the same seconds encoded, the same prefill, the text of the first round, the first frame): all of it, and what
remains if it begins at the same short silence. llama.cpp neither encodes nor speaks here. Its rows are an estimate: its
prefill and steps with our encoder, depthformer and codec. Stages are timed one by one on an idle machine. Our own row
of stages stands beside what the live loop really took.

    voxrill bench first-sound --bundle BUNDLE --endpoint 0.5 --json > half.json
    python -m benchmarks.first_sound half.json --bundle BUNDLE --llama PYTHON --reference PYTHON -o OUT.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import Workshop
from benchmarks.machine import machine
from benchmarks.protocol import Json
from benchmarks.worker import BenchWorker, Failed, say
from voxrill.runtime.atomic_write import write_text
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.contract import InterleaveSpec
from voxrill.runtime.bundle.manifest import Manifest

OURS = "voxrill bundle"
LLAMA = ("llama.cpp Q4_0", "llama.cpp Q4_K_M")
TORCH = ("torch float32", "torch bfloat16")
ESTIMATE = " (estimate)"
COUNT = 7
"""Calls of each stage; the first is not counted."""

StageSamples = dict[str, list[float]]
Samples = dict[str, dict[str, StageSamples]]
"""Seconds by kind of question, contender and stage."""


@dataclass(frozen=True)
class FirstSoundStages:
    """Seconds of each stage. step_with_head: one text token; step: the position before a frame."""

    encoder: float
    prefill: float
    step_with_head: float
    step: float
    frame: float
    codec: float

    def work(self, pattern: InterleaveSpec) -> float:
        """Seconds to the sound of the first frame. The logits of the first text token belong to prefill."""
        text = (pattern.text - 1) * self.step_with_head
        return self.encoder + self.prefill + text + self.step + self.frame + self.codec

    def rate(self, pattern: InterleaveSpec, frame_seconds: float) -> float:
        """Seconds of computing per second of sound, over whole rounds."""
        frames = pattern.audio * (self.step + self.frame + self.codec)
        return (pattern.text * self.step_with_head + frames) / (pattern.audio * frame_seconds)


def requests(positions: int, seconds: float) -> dict[str, tuple[str, Json]]:
    """Stage and arguments of every field of `FirstSoundStages`."""
    return {
        "encoder": ("encoder", {"seconds": seconds}),
        "prefill": ("prefill", {"positions": positions}),
        "step_with_head": ("decode", {"context": positions, "head": True}),
        "step": ("decode", {"context": positions, "head": False}),
        "frame": ("frame", {}),
        "codec": ("codec", {}),
    }


def measured(worker: BenchWorker, positions: int, seconds: float) -> StageSamples:
    """Samples of every stage that this contender has."""
    found = {}
    for name, (stage, args) in requests(positions, seconds).items():
        answer = worker.ask(stage, args, COUNT)
        if "unsupported" not in answer:
            found[name] = answer["wall"][1:]
    return found


def rows(samples: dict[str, StageSamples]) -> dict[str, FirstSoundStages]:
    """Medians by contender. llama.cpp gets our figures for the stages that it lacks."""
    found = {}
    for name, own in samples.items():
        filled = {**samples[OURS], **own}
        label = name if len(own) == len(filled) else f"{name}{ESTIMATE}"
        found[label] = FirstSoundStages(**{stage: statistics.median(values) for stage, values in filled.items()})
    return found


def delays(stages: FirstSoundStages, group: Json, manifest: Manifest) -> Json:
    """Seconds that the user waits after the endpoint: without speculation, and with it."""
    spec, codec = manifest.model, manifest.model.codec
    endpoint, begun = (group["figures"][name]["median"] for name in ("endpoint", "begun"))
    work = stages.work(spec.interleave)
    return {
        "work": work,
        "left_without_speculation": work,
        "left_with_speculation": max(0.0, work - max(0.0, endpoint - begun)),
        "rate": stages.rate(spec.interleave, codec.frame_samples / codec.sample_rate),
    }


def table(talk: Json, group: Json) -> Table:
    """One kind of question at one endpoint, ms."""
    title = (
        f"{group['questions']}: {group['question_seconds']:.1f} s encoded, {group['positions']} positions, "
        f"{talk['endpoint']:g} s of silence end a question; ms from the endpoint to the first frame"
    )
    drawn = Table(title=title, title_justify="left")
    for column in ("", "work", "without speculation", "with speculation", "computing per second of sound"):
        drawn.add_column(column, justify="right" if column else "left")
    work, left, rate = (group["figures"][name]["median"] for name in ("work", "left", "rate"))
    drawn.add_row("voxrill, in the live loop", f"{1000 * work:.0f}", "", f"{1000 * left:.0f}", f"{rate:.2f}")
    for name, row in group["compared"].items():
        times = (row[key] for key in ("work", "left_without_speculation", "left_with_speculation"))
        drawn.add_row(name, *(f"{1000 * seconds:.0f}" for seconds in times), f"{row['rate']:.2f}")
    return drawn


def measure(workshop: Workshop, groups: list[Json], threads: int) -> Samples:
    """Every contender's samples by kind of question. A contender that cannot be made is left out."""
    samples: Samples = {group["questions"]: {} for group in groups}
    for name in (OURS, *LLAMA, *TORCH):
        try:
            with BenchWorker(workshop.contender(name), threads, workshop.work / "logs" / "first-sound.log") as worker:
                say(f"measuring {name}")
                for group in groups:
                    found = measured(worker, group["positions"], group["question_seconds"])
                    samples[group["questions"]][name] = found
        except Failed as reason:
            say(f"{name} is left out: {reason}")
    return samples


def compare(talks: list[Json], samples: Samples, manifest: Manifest) -> None:
    """Add the others' work to every group of talks, and show it."""
    for talk in talks:
        for group in talk["groups"]:
            found = rows(samples[group["questions"]])
            group["compared"] = {name: delays(stages, group, manifest) for name, stages in found.items()}
            Console(width=120, markup=False).print(table(talk, group))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("talks", type=Path, nargs="+", help="what voxrill bench first-sound --json wrote")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--family", default="lfm2.5")
    parser.add_argument("--llama", type=Path, help="interpreter of .venv-bench")
    parser.add_argument("--reference", type=Path, help="interpreter of .venv-golden")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Command line of this module."""
    args = arguments()
    talks = [json.loads(path.read_text(encoding="utf-8")) for path in args.talks]
    python = {name: path for name, path in (("llama", args.llama), ("reference", args.reference)) if path}
    workshop = Workshop(args.work, args.family, (), {"bundle": args.bundle}, python)
    samples = measure(workshop, talks[0]["groups"], args.threads)
    compare(talks, samples, open_bundle(args.bundle).manifest)
    result = {"machine": machine(), "threads": args.threads, "talks": talks, "samples": samples}
    write_text(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
