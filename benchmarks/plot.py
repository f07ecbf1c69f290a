"""The plot of what the benchmark measured, and the command that draws plot and tables again from a results file.

In: the content of `results.json`. Out: a PNG of four panels.

    python -m benchmarks.plot build/bench/results-lfm2.5.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.groups import FIRST_AUDIO, QUESTION_SECONDS, STEP_WITH_HEAD, BenchStage
from benchmarks.protocol import Json
from benchmarks.report import ReportGroup, row_of, tables, threads_of
from voxrill.runtime.picture import save_picture

PREFILL = BenchStage("prefill", {"positions": 100})


def plot(content: Json, path: Path) -> None:
    """Draw the step, its growth with the context, prefill, and the time to first sound."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    groups = content["groups"]
    _bars(axes[0, 0], groups.get("decode"), STEP_WITH_HEAD, "one step with text head, ms")
    _growth(axes[0, 1], groups.get("growth"))
    _bars(axes[1, 0], groups.get("prefill"), PREFILL, f"prefill of {PREFILL.args['positions']} positions, ms")
    _bars(axes[1, 1], groups.get("speech"), FIRST_AUDIO, f"{QUESTION_SECONDS:g} s question to first sound, ms")
    figure.suptitle(f"{content['machine']['processor']}, random weights; lower is better")
    save_picture(figure, path)


def _bars(axes: Any, record: Json | None, stage: BenchStage, title: str) -> None:
    """Horizontal bars, one for each contender and number of threads. Ours are blue."""
    labels: list[str] = []
    for figures in [ReportGroup(record, threads) for threads in threads_of(record)] if record else []:
        threads = figures.threads
        for name in figures.contenders:
            seconds = figures.seconds(name, row_of(stage))
            if seconds is None:
                continue
            colour = "tab:blue" if name.startswith("voxrill") else "tab:gray"
            axes.barh(len(labels), 1000 * seconds, color=colour, alpha=0.55 if threads == 1 else 1.0)
            labels.append(f"{name}, {threads} thread{'s' if threads > 1 else ''}")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_title(title)


def _growth(axes: Any, record: Json | None) -> None:
    """Lines over the context."""
    curves: dict[str, dict[int, float]] = {}
    for sample in record["samples"] if record else []:
        curve = curves.setdefault(sample["contender"], {})
        curve[sample["args"]["context"]] = 1000 * median(sample["wall"])
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_title("one step, ms, after so many positions")
    if curves:
        axes.legend()


def main() -> None:
    """Tables on stdout, and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, help="PNG to draw (default: beside the results)")
    args = parser.parse_args()
    content = json.loads(args.results.read_text(encoding="utf-8"))
    print(tables(content))
    plot(content, args.out or args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
