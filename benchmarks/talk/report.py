"""What the virtual user measured: a table, JSON for machines, and a plot of the waits.

In: turns and interruptions by program. Out: for each the percentiles of its waits, what went wrong, and how often it
was right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.talk.asking import AskedTurn, Interruption
from voxrill.runtime.apps.evaluation.figures import percentile
from voxrill.runtime.picture import figure_class, save_picture

SHARES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass
class ProgramResult:
    """What one program did."""

    name: str
    turns: list[AskedTurn] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)

    @property
    def waits(self) -> list[float]:
        """Seconds from question to answer, of the turns that were answered."""
        return [turn.wait for turn in self.turns if turn.wait is not None]

    @property
    def stops(self) -> list[float]:
        """Seconds from the interruption to silence, of the answers that were interrupted."""
        return [one.stopped for one in self.interruptions if one.stopped is not None]

    def figures(self) -> dict[str, Any]:
        """The figures, seconds."""
        judged = [turn.right for turn in self.turns if turn.right is not None]
        return {
            "program": self.name,
            "turns": len(self.turns),
            "lost": sum(turn.wait is None and not turn.early for turn in self.turns),
            "early": sum(turn.early for turn in self.turns),
            "right": sum(judged) if judged else None,
            "underruns": sum(turn.told.get("underruns", 0) for turn in self.turns),
            "wait": _percentiles(self.waits),
            "interruptions": len(self.stops),
            "unanswered_interruptions": sum(not one.answered for one in self.interruptions),
            "stop": _percentiles(self.stops),
            "growth": growth(self.turns),
        }


def growth(turns: Sequence[AskedTurn]) -> dict[str, list[float]]:
    """Medians over the first and the last fifth of the turns of what may grow in a long talk.

    wait: seconds; private_memory: bytes that the program holds, if it reports them.
    """
    fifth = len(turns) // 5
    grown = {}
    for name, values in (
        ("wait", [turn.wait for turn in turns]),
        ("private_memory", [turn.told.get("private_memory") for turn in turns]),
    ):
        ends = [
            [value for value in part if value is not None] for part in (values[:fifth], values[len(values) - fifth :])
        ]
        if all(ends):
            grown[name] = [percentile(end, SHARES["median"]) for end in ends]
    return grown


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(percentile(seconds, share), 4) for name, share in SHARES.items()} if seconds else {}


def as_json(results: Sequence[ProgramResult], about: dict[str, Any]) -> dict[str, Any]:
    """Everything: figures, and every turn."""
    programs = [
        {
            **result.figures(),
            "each_turn": [asdict(turn) for turn in result.turns],
            "each_interruption": [asdict(one) for one in result.interruptions],
        }
        for result in results
    ]
    return {**about, "programs": programs}


def table(results: Sequence[ProgramResult]) -> Table:
    """Milliseconds, a row for each program."""
    drawn = Table(title="from the question's last voiced sample to the answer's first, ms", title_justify="left")
    for column in (
        "",
        *SHARES,
        "turns",
        "lost",
        "early",
        "right",
        "underruns",
        "silent when interrupted: median / max",
    ):
        drawn.add_column(column, justify="right")
    for result in results:
        figures = result.figures()
        waits, stops = figures["wait"], figures["stop"]
        drawn.add_row(
            result.name,
            *(_ms(waits.get(name)) for name in SHARES),
            *(str(figures[name]) for name in ("turns", "lost", "early")),
            "-" if figures["right"] is None else str(figures["right"]),
            str(figures["underruns"]),
            f"{_ms(stops.get('median'))} / {_ms(stops.get('max'))}",
        )
    return drawn


def growth_table(results: Sequence[ProgramResult]) -> Table:
    """Waits in ms and memory in MB, at the beginning and at the end, a row for each program."""
    drawn = Table(title="medians over the first and the last fifth of the turns", title_justify="left")
    for column in ("", "wait, ms", "private memory, MB"):
        drawn.add_column(column, justify="right")
    for result in results:
        grown = growth(result.turns)
        cells = [
            " to ".join(f"{value / unit:.0f}" for value in grown[name]) if name in grown else "-"
            for name, unit in (("wait", 1e-3), ("private_memory", 1e6))
        ]
        drawn.add_row(result.name, *cells)
    return drawn


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"


def plot(results: Sequence[ProgramResult], path: Path, title: str) -> None:
    """Draw the share of turns that were answered within each wait, a line for each program."""
    figure = figure_class("demo")(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for result in results:
        waits = sorted(1000 * wait for wait in result.waits)
        shares = [100 * (n + 1) / len(result.turns) for n in range(len(waits))]
        axes.step([*waits[:1], *waits], [0, *shares], where="post", label=result.name)
    axes.set(title=title, xlabel="from the question's end to the answer's beginning, ms", ylabel="turns answered, %")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    axes.legend()
    save_picture(figure, path)
