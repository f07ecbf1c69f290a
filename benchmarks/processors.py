"""Figures of several processors side by side: a small file for each, and a table of them all.

In: what `benchmarks.run` wrote on some machine. Out: `benchmarks/processors/NAME.json`, with the medians of the largest
number of threads; and the table in docs/performance.md. Neighbours share a machine's memory, so compare ratios within a
column.

    python -m benchmarks.processors add build/bench/results-lfm2.5.json --name "AMD EPYC (Zen 5)"
    python -m benchmarks.processors table
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.groups import FIRST_AUDIO, FIRST_TEXT, FRAME, SPOKEN_STEP, STEP_WITH_HEAD, BenchStage
from benchmarks.groups import QUESTION_SECONDS as QUESTION
from benchmarks.plot import PREFILL
from benchmarks.protocol import Json
from benchmarks.report import BASELINE, NONE, ReportGroup, row_of, table, threads_of
from benchmarks.worker import ROOT
from voxrill.runtime.atomic_write import write_text

FOLDER = ROOT / "benchmarks" / "processors"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- processors: python -m benchmarks.processors table -->", "<!-- end of processors -->"

STAGES: tuple[tuple[str, BenchStage], ...] = (
    ("decode", STEP_WITH_HEAD),
    ("prefill", PREFILL),
    ("speech", FRAME),
    ("speech", SPOKEN_STEP),
    ("speech", FIRST_TEXT),
    ("speech", FIRST_AUDIO),
    ("speech", BenchStage("speech", {"seconds": QUESTION})),
)
"""Group and stage of every part of the table."""


LEFT_OUT = ("voxrill float32", "voxrill mixed", "voxrill int4-tuned", "llama.cpp Q8_0")
"""Contenders that are measured and not shown: the table would be twice as long."""


def summary(content: Json, name: str) -> Json:
    """What of a run's results stands in the table.

    Args:
        content: of the results file.
        name: of the processor, as people call it.
    """
    figures: dict[str, dict[str, float]] = {}
    notes: dict[str, Any] = {}
    for group, stage in STAGES:
        record = content["groups"].get(group)
        if record is None:
            continue
        threads = max(threads_of(record))
        measured, row = ReportGroup(record, threads), row_of(stage)
        scale = 1.0 if row.unit == "x" else 1000.0
        shown = [contender for contender in measured.contenders if contender not in LEFT_OUT]
        found = {contender: measured.seconds(contender, row) for contender in shown}
        figures[row.label] = {contender: round(scale * s, 3) for contender, s in found.items() if s is not None}
        notes[group] = {"started": record["started"], "load_average": record["load_average"], "threads": threads}
    decode = content["groups"].get("decode")
    memory = ReportGroup(decode, max(threads_of(decode))).bandwidths() if decode else ""
    return {"name": name, "machine": content["machine"], "memory": memory, "groups": notes, "figures": figures}


def processors(folder: Path = FOLDER) -> list[Json]:
    """Every processor's file, by name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda one: str(one["name"]))


def rendered(found: list[Json]) -> str:
    """The table: a column for each processor, a row for each stage and contender."""
    rows = []
    for label in dict.fromkeys(label for one in found for label in one["figures"]):
        contenders = dict.fromkeys(name for one in found for name in one["figures"].get(label, {}))
        for number, name in enumerate(contenders):
            cells = [_cell(one["figures"].get(label, {}), name) for one in found]
            rows.append(["" if number else label, name, *cells])
    title = f"the true shapes, random weights; in brackets: times as fast as {BASELINE}"
    machines = [f"| {one['name']} | {_about(one)} |" for one in found]
    speeds = table(title, ["ms", "", *(str(one["name"]) for one in found)], rows)
    return "\n".join([speeds, "| processor | measured with |", "|---|---|", *machines])


def _cell(figures: dict[str, float], contender: str) -> str:
    if contender not in figures:
        return NONE
    value, baseline = figures[contender], figures.get(BASELINE)
    ratio = f" ({baseline / value:.2f}x)" if baseline and contender != BASELINE else ""
    return f"{value:.{2 if value < 10 else 0 if value >= 100 else 1}f}{ratio}"


def _about(one: Json) -> str:
    """What the figures were measured on, and how busy it was."""
    machine, groups = one["machine"], one["groups"].values()
    threads = "/".join(str(count) for count in sorted({group["threads"] for group in groups}))
    busy = max((load for group in groups for load in group["load_average"]), default=0.0)
    days = sorted({group["started"].split()[0] for group in groups})
    memory = f"; the memory gives {one['memory']}" if one["memory"] else ""
    pages = f"; {machine['pages']}" if "pages" in machine else ""
    return (
        f"{threads} threads of {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"onnxruntime {machine['packages']['onnxruntime']}{memory}{pages}; {', '.join(days)}, load up to {busy:g}"
    )


def add(results: Path, name: str, folder: Path = FOLDER) -> Path:
    """Write a processor's file; the file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    write_text(path, json.dumps(summary(json.loads(results.read_text(encoding="utf-8")), name), indent=1) + "\n")
    return path


def fill(text: str, found: list[Json]) -> str:
    """The page with the table of today between its marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rendered(found)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    adding = commands.add_parser("add", help="write a processor's file")
    adding.add_argument("results", type=Path)
    adding.add_argument("--name", required=True, help="the processor's, as people call it")
    commands.add_parser("table", help="make the page's table anew")
    args = parser.parse_args()
    if args.command == "add":
        print(add(args.results, args.name))
    write_text(PAGE, fill(PAGE.read_text(encoding="utf-8"), processors()))


if __name__ == "__main__":
    main()
