"""Learning curves of all stages as one picture: `python curves.py --cache CACHE`.

In: the runs in the cache. Stages that are not there keep their curve from `curves.json`. Out: `curves.json`, with at
most 200 points for each stage, and `curves.png`.
"""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from voxrill.runtime.atomic_write import atomic_write, write_text

FOLDER = Path(__file__).parent
STAGES = ("detokenizer", "speech", "encoder", "joint", "voice", "hearing", "answers", "further")
POINTS = 200
SMOOTHED = 5
"""Number of points whose mean is drawn as one point."""
COLOURS = 64
"""Colours of the picture. With all colours it would be three times as large."""

Curve = list[dict[str, float]]


def read_runs(cache: Path) -> dict[str, Curve]:
    """The curve of every stage that has begun, with fewer points."""
    import torch

    paths = {stage: cache / f"{stage}.pt" for stage in STAGES}
    found = {stage: torch.load(path, weights_only=False) for stage, path in paths.items() if path.is_file()}
    return {stage: thinned(run["curve"]) for stage, run in found.items()}


def thinned(curve: Curve) -> Curve:
    """At most `POINTS` points. Each is the mean of a group of points, with four digits."""
    group = -(-len(curve) // POINTS) or 1
    return [_mean(curve[start : start + group]) for start in range(0, len(curve), group)]


def _mean(points: Curve) -> dict[str, float]:
    """One point for several: step and seconds of the last one, and the mean of everything else."""
    names = dict.fromkeys(name for point in points for name in point)
    values = {name: [point[name] for point in points if name in point] for name in names}
    means = {name: float(f"{sum(found) / len(found):.4g}") for name, found in values.items()}
    return {**means, "step": points[-1]["step"], "seconds": points[-1]["seconds"]}


def draw(curves: dict[str, Curve], path: Path) -> None:
    """A panel for the losses of each stage, and one for its shares of right answers, if it has any."""
    panels = []
    for stage, curve in curves.items():
        names = sorted({name for point in curve for name in point} - {"step", "seconds"})
        right = [name for name in names if name.endswith("right")]
        losses = [name for name in names if name not in right]
        panels += [(stage, curve, losses, "loss")] + ([(stage, curve, right, "share right")] if right else [])
    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.4 * columns, 3.3 * rows), layout="constrained")
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        _draw_panel(axes, *panel)
    for axes in figure.axes[len(panels) :]:
        axes.remove()
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    with atomic_write(path) as part:
        Image.open(drawn).quantize(COLOURS).save(part, "PNG", optimize=True)


def _draw_panel(axes: Axes, stage: str, curve: Curve, names: list[str], what: str) -> None:
    for number, name in enumerate(names):
        points = [(point["step"], point[name]) for point in curve if name in point]
        steps, values = zip(*points, strict=True)
        style = "-" if number < 10 else "--"  # matplotlib has ten colours
        axes.plot(steps, _smooth(values), style, label=name, linewidth=1.2)
    last = curve[-1]
    axes.set_title(f"{stage}: {last['step']:.0f} steps, {last['seconds'] / 60:.0f} min", fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(what, fontsize=8)
    if what == "loss":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _smooth(values: tuple[float, ...]) -> list[float]:
    """The mean of each value and up to `SMOOTHED` - 1 before it."""
    windows = [values[max(0, end - SMOOTHED) : end] for end in range(1, len(values) + 1)]
    return [sum(window) / len(window) for window in windows]


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="read the runs from here")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where curves.json and curves.png are")
    args = parser.parse_args()
    points = args.folder / "curves.json"
    curves = json.loads(points.read_text()) if points.is_file() else {}
    if args.cache:
        curves |= read_runs(args.cache)
        lines = [f"{json.dumps(stage)}: {_lines(curve)}" for stage, curve in curves.items()]
        write_text(points, "{" + ",\n".join(lines) + "}\n")
    draw(curves, args.folder / "curves.png")


def _lines(curve: Curve) -> str:
    """JSON with a point on each line."""
    return "[" + ",\n".join(json.dumps(point) for point in curve) + "]"


if __name__ == "__main__":
    main()
