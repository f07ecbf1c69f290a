"""What the rules do, as JSON, tables and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.turns.clips import OWN_KIND
from benchmarks.turns.pauses import AskedUtterance
from benchmarks.turns.policies import CURVES, OWN_WORD, Rule, chosen, curve, outcome, own, patient, timer
from voxrill.runtime.audio.endpointing import EndpointOptions, Patience
from voxrill.runtime.picture import figure_class, save_picture

MOST_CUT = 0.01
"""The share of utterances that may be cut in two, for the choice."""

CHOOSING = "coffee"
"""The kind of recording that is chosen with: spoken orders, each of which is one turn."""

SHOWN = {
    "silence alone, 0.3 s": timer(0.3),
    "silence alone, 0.5 s (the default without a model)": timer(EndpointOptions.endpoint),
    "model, patience 0.2 to 1 s (eagerness high)": patient(0.2, 1.0),
    "model, patience 0.3 to 1.5 s (eagerness medium)": patient(0.3, 1.5),
    "model, patience 0.3 to 2 s (the default)": patient(Patience.least),
    "model, patience 0.4 to 2 s (eagerness low)": patient(0.4, 2.0),
    "the built-in model's own word, else 0.5 s": own(),
}
"""The rules that the table shows."""


def results(utterances: Sequence[AskedUtterance]) -> dict[str, Any]:
    """All figures."""
    cpu = {name: [second for one in utterances for second in one.cpu[name]] for name in utterances[0].cpu}
    return {
        "groups": [_group(*group) for group in _groups(utterances)],
        "chosen": [_choice(utterances, name) for name in CURVES],
        "cpu_ms": {name: round(1000 * median(found), 1) for name, found in cpu.items() if found},
    }


def _groups(utterances: Sequence[AskedUtterance]) -> Iterator[tuple[str, float, list[AskedUtterance]]]:
    """Utterances of one kind whose pauses are equally long."""
    for kind, stretch in sorted({(one.kind, one.stretch) for one in utterances}):
        yield kind, stretch, [one for one in utterances if (one.kind, one.stretch) == (kind, stretch)]


def _group(kind: str, stretch: float, found: Sequence[AskedUtterance]) -> dict[str, Any]:
    return {
        "kind": kind,
        "stretch": stretch,
        "utterances": len(found),
        "rules": {name: _rounded(found, rule) for name, rule in SHOWN.items()},
        "curves": {name: [_cut(point) for point in curve(found, name)] for name in CURVES},
    }


def _rounded(found: Sequence[AskedUtterance], rule: Rule) -> dict[str, float]:
    return _cut(asdict(outcome(found, rule)))


def _cut(point: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in point.items()}


def _choice(utterances: Sequence[AskedUtterance], name: str) -> dict[str, Any]:
    """The number that a family's rule gets from one half of the orders, and what it does to the other half."""
    halves = [
        [one for one in utterances if (one.kind, one.stretch, one.half) == (CHOOSING, 1.0, half)] for half in (0, 1)
    ]
    at = chosen(curve(halves[0], name), MOST_CUT)
    if at is None:
        return {"family": name, "at": None}
    return {
        "family": name,
        "at": at,
        "utterances": [len(half) for half in halves],
        "choosing": _rounded(halves[0], CURVES[name][1](at)),
        "reporting": _rounded(halves[1], CURVES[name][1](at)),
    }


def tables(found: dict[str, Any]) -> Iterator[Table]:
    """A table for each kind of recording and length of pauses, and one of what was chosen."""
    for group in found["groups"]:
        title = f"{group['kind']}, {group['utterances']} utterances, {_pauses(group)}"
        yield _table(title, group["rules"])
    chose = {f"{one['family']}, {one['at']:g}": one["reporting"] for one in found["chosen"] if one["at"] is not None}
    yield _table(f"chosen on one half of the orders for {MOST_CUT:.0%} cut, on the other half", chose)


def _pauses(group: dict[str, Any]) -> str:
    if group["kind"] == OWN_KIND:
        return "each with a hesitation"
    return "pauses as recorded" if group["stretch"] == 1 else f"pauses {group['stretch']:g} times as long"


def _table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    drawn = Table(title=title, title_justify="left")
    for column in ("rule", "cut in two, %", "false ends each", "wait, ms: median", "mean", "p90"):
        drawn.add_column(column, justify="left" if column == "rule" else "right")
    for name, row in rows.items():
        waits = (f"{1000 * row[part]:.0f}" for part in ("median", "mean", "p90"))
        drawn.add_row(name, f"{100 * row['cut']:.1f}", f"{row['false_ends']:.2f}", *waits)
    return drawn


def plot(found: dict[str, Any], path: Path, processor: str) -> None:
    """Draw the wait against the share that is cut in two: medians above means, a column for each group."""
    groups = [group for group in found["groups"] if group["stretch"] >= 1]
    figure = figure_class("demo")(figsize=(5 * len(groups), 8), layout="constrained")
    axes = figure.subplots(2, len(groups), squeeze=False)
    for column, group in enumerate(groups):
        for row, part in enumerate(("median", "mean")):
            _draw(axes[row, column], group, part)
    figure.suptitle(
        f"{processor.partition(',')[0]}: judged at the first pause (0.13 s); lower and further left is better"
    )
    save_picture(figure, path)


def _draw(axes: Any, group: dict[str, Any], part: str) -> None:
    for name, points in group["curves"].items():
        cut, waits = [100 * point["cut"] for point in points], [point[part] for point in points]
        # The model's own word and silence alone are one line where nobody says its commands.
        axes.plot(cut, waits, marker="o", markersize=3, label=name, linestyle="--" if name == OWN_WORD else "-")
    default = group["rules"]["model, patience 0.3 to 2 s (the default)"]
    star = {"marker": "*", "markersize": 14, "color": "tab:orange", "label": "the default with a model"}
    axes.plot(100 * default["cut"], default[part], **star)
    title = f"{group['kind']}, {group['utterances']} utterances, {_pauses(group)}"
    axes.set(title=title, xlabel="cut in two, %", ylabel=f"wait, s: {part}")
    axes.set_ylim(0, 2.1)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
