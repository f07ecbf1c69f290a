"""The benchmark: it loads contenders side by side, asks them in turn, and writes down every sample.

In: a working folder for checkpoint and bundles, which are made if they are missing. Out: `results-FAMILY.json`, written
after every stage, so that a stopped run loses nothing; tables on stdout, a plot beside the results, progress on stderr.
A group that is measured again replaces its own old figures only.

    python -m benchmarks.run --work build/bench                      # everything, about 25 minutes on two cores
    python -m benchmarks.run --work build/bench --only decode,prefill --threads 2
    python -m benchmarks.run --work build/bench --only speech --quick --bundle pebble=src/voxrill/pebble/bundle
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import FLOAT32, VARIANTS, Workshop, locked
from benchmarks.groups import GROUPS, BenchStage, StageGroup
from benchmarks.machine import load_average, machine
from benchmarks.plot import plot
from benchmarks.protocol import Json
from benchmarks.report import tables
from benchmarks.worker import BenchWorker, Failed, say
from tests.checkpoints import FAMILIES
from voxrill.quantize.recipe import shipped_recipes
from voxrill.runtime.atomic_write import write_text

FORMAT = 1
MOST_ROUNDS = 20
SETTLE_SECONDS = 0.05
"""Wait before every request: threads of the previous contender may still spin."""


class BenchResults:
    """What was measured, and its file.

    Args:
        path: the file. Figures that it has already stay there, unless they are measured again.
        settings: those of this run.
    """

    def __init__(self, path: Path, settings: Json) -> None:
        self._path = path
        self._settings = settings
        self._machine = machine()
        self.made: Json = {}
        self.contenders: Json = {}
        self.groups: Json = {}
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def content(self) -> Json:
        """The content of the file, in which the figures of this run replace older ones."""
        found: Json = {"format": FORMAT, "made": {}, "contenders": {}, "groups": {}}
        if self._path.is_file():
            old = json.loads(self._path.read_text(encoding="utf-8"))
            if old.get("format") == FORMAT:
                found |= old
        for part in ("made", "contenders", "groups"):
            found[part] = {**found[part], **getattr(self, part)}
        return {**found, "machine": self._machine, "settings": self._settings}

    def begin(self, group: StageGroup) -> Json:
        """An empty record of a group."""
        record = {
            "about": group.about,
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "quick": self._settings["quick"],
            "load_average": [load_average()],
            "loads": [],
            "samples": [],
            "skipped": [],
        }
        self.groups[group.name] = record
        return record

    def save(self) -> None:
        """Write the whole file or nothing. Figures that another run has written meanwhile are kept."""
        with locked(self._path.parent):
            write_text(self._path, json.dumps(self.content, indent=1) + "\n")


@dataclass
class Bench:
    """One run: the source of contenders, the results, and the folder for logs."""

    workshop: Workshop
    results: BenchResults
    logs: Path

    def group(self, group: StageGroup, threads: Sequence[int]) -> None:
        """Measure one group."""
        start = time.perf_counter()
        record = self.results.begin(group)
        for count in threads if group.each_threads else threads[-1:]:
            say(f"{group.name}, {count} threads")
            for _ in range(group.starts):
                self._load_alone(group, count, record)
            if group.stages:
                self._stages(group, count, record)
        record["seconds"] = round(time.perf_counter() - start)
        record["load_average"].append(load_average())
        self.results.save()

    def _load_alone(self, group: StageGroup, threads: int, record: Json) -> None:
        """Load every contender once, one after the other, and end it."""
        gone = {skip["contender"] for skip in record["skipped"]}
        for name in group.contenders(self.workshop.names()):
            worker = None if name in gone else self._start(name, threads, record)
            if worker is not None:
                worker.close()

    def _stages(self, group: StageGroup, threads: int, record: Json) -> None:
        """Load the contenders together and measure every stage."""
        with ExitStack() as stack:
            workers = []
            for name in group.contenders(self.workshop.names()):
                worker = self._start(name, threads, record)
                if worker is not None:
                    workers.append(stack.enter_context(worker))
            for stage in group.stages:
                say(f"  {stage.name} {' '.join(f'{key}={value}' for key, value in stage.args.items())}")
                record["samples"] += measure(stage, workers, threads, record["skipped"])
                self.results.save()

    def _start(self, name: str, threads: int, record: Json) -> BenchWorker | None:
        """A loaded contender, or None and a note why not."""
        log = self.logs / f"{name.replace(' ', '-')}.log"
        try:
            worker = BenchWorker(self.workshop.contender(name), threads, log)
        except Failed as reason:
            skip(record["skipped"], name, str(reason))
            return None
        finally:
            self.results.made |= self.workshop.made
        hello = worker.hello
        self.results.contenders[name] = hello["facts"]
        record["loads"].append({"contender": name, "threads": threads, **hello["load"], "memory": hello["memory"]})
        return worker


def measure(stage: BenchStage, workers: list[BenchWorker], threads: int, skipped: list[Json]) -> list[Json]:
    """Ask every contender in turn, round after round. Each one that can do it gets a record.

    A contender that cannot do it is noted in `skipped`. One that fails is also removed from `workers`.
    """
    records: dict[str, Json] = {}
    able = list(workers)
    if stage.warm:
        _round(replace(stage, calls=1), able, workers, skipped)
    start = time.perf_counter()
    for index in range(MOST_ROUNDS):
        if index >= stage.rounds and time.perf_counter() - start > stage.seconds:
            break
        for name, answer in _round(stage, able, workers, skipped):
            empty = {"wall": [], "cpu": [], "amount": [], "peak": 0}
            record = records.setdefault(name, {"contender": name, "threads": threads, **empty})
            for key in ("wall", "cpu", "amount"):
                record[key] += answer[key]
            record["peak"] = max(record["peak"], answer["memory"].get("peak", 0))
    return [{"stage": stage.name, "args": stage.args, **record} for record in records.values()]


def _round(
    stage: BenchStage, able: list[BenchWorker], workers: list[BenchWorker], skipped: list[Json]
) -> list[tuple[str, Json]]:
    """One request to every contender in `able`. One that turns out to be unable is removed from the list."""
    answers = []
    for worker in list(able):
        time.sleep(SETTLE_SECONDS)
        name = worker.contender.name
        try:
            answer = worker.ask(stage.name, stage.args, stage.calls)
        except Failed as reason:
            skip(skipped, name, str(reason), stage)
            able.remove(worker)
            workers.remove(worker)
            continue
        if "unsupported" in answer:
            skip(skipped, name, answer["unsupported"], stage)
            able.remove(worker)
            continue
        answers.append((name, answer))
    return answers


def skip(skipped: list[Json], contender: str, reason: str, stage: BenchStage | None = None) -> None:
    """Note once what was not measured, and print it."""
    note: dict[str, Any] = {"contender": contender, "reason": reason}
    if stage is not None:
        note |= {"stage": stage.name, "args": stage.args}
    if note not in skipped:
        skipped.append(note)
        say(f"  skipped: {contender}: {reason}")


def quick(group: StageGroup) -> StageGroup:
    """The group with one sample of everything: it shows that everything works, and not how fast."""
    stages = tuple(replace(stage, calls=1, seconds=0.0, rounds=1, warm=False) for stage in group.stages)
    return replace(group, stages=stages, starts=min(group.starts, 1))


def chosen_groups(names: Sequence[str]) -> list[StageGroup]:
    """The groups with those names; all groups without names."""
    known = {group.name: group for group in GROUPS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"there is no group {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names] or list(GROUPS)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _bundle(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(path).absolute()


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="folder of all that is made")
    parser.add_argument("--out", type=Path, help="results file (default: results-FAMILY.json in --work)")
    parser.add_argument("--family", choices=FAMILIES, default="lfm2.5")
    parser.add_argument("--only", type=_words, default=(), help=f"of {','.join(group.name for group in GROUPS)}")
    parser.add_argument("--threads", type=_words, default=("1", "2"), help="default: 1,2")
    parser.add_argument("--quick", action="store_true", help="one sample of everything")
    recipes = ",".join((FLOAT32, *shipped_recipes(), *VARIANTS))
    precisions = f"of these, any recipe with -fast-prefill behind it, any of all with -tuned; default: {recipes}"
    parser.add_argument("--precisions", type=_words, default=_words(recipes), help=precisions)
    parser.add_argument("--bundle", type=_bundle, action="append", default=[], help="NAME=FOLDER, instead of those")
    for name, what in {"llama": "llama-cpp-python", "genai": "onnxruntime-genai", "reference": "liquid-audio"}.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PYTHON", help=f"interpreter that has {what}")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    args = arguments(words)
    groups = chosen_groups(args.only)
    python = {name: getattr(args, name) for name in ("llama", "genai", "reference") if getattr(args, name)}
    work = args.work.absolute()
    workshop = Workshop(work, args.family, args.precisions, dict(args.bundle), python)
    out = args.out or work / f"results-{args.family}.json"
    settings = {"family": args.family, "threads": [int(n) for n in args.threads], "quick": args.quick}
    bench = Bench(workshop, BenchResults(out, settings), work / "logs" / str(os.getpid()))
    for group in groups:
        bench.group(quick(group) if args.quick else group, settings["threads"])
    print(tables(bench.results.content))
    plot(bench.results.content, out.with_suffix(".png"))
    say(f"{out} has every sample")


if __name__ == "__main__":
    main()
