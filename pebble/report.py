"""Rows of `evaluate.py` and `strangers.py` as tables and a picture: `python report.py FILE.json ...`.

In: rows, as saved by --out. Out: one table for each part in README.md, between its markers, where a row with a goal
shows it; `evaluation.json`, all rows; `quality.png`, what is heard of strangers; and `voices.png`, why goals of hearing
are missed: each voice, and what each training brought (`trainings.json`). Without files the rows are those of
`evaluation.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from voxrill.runtime.atomic_write import atomic_write, write_text

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- evaluation -->", "<!-- /evaluation -->"

PARTS = {
    "hear": "Hearing and answering",
    "around": "Around commands",
    "speak": "Speaking",
    "codec": "The voice itself: the right codes as sound",
}
STRANGERS = {
    "strangers": "Heard from voices that never taught it",
    "voices": "The single voices of that table, known and new sentences together",
    "people": "People who do not talk to it",
    "voice": "Its replies, heard by Whisper tiny.en",
}
"""What strangers.py measures."""
SHARES = (
    "WER", "sentences", "right", "empty transcript", "refused", "wrongly refused", "empty reply", "reply text",
    "codes", "judged", "judged originals", "loop WER", "loop WER originals", "told apart",
    "same transcript", "same codes", "done rightly", "done wrongly", "Whisper WER",
)  # fmt: skip
"""Measures that are shown in per cent."""
NUMBERS = {
    "male Hz": ".0f", "female Hz": ".0f", "mel distance": ".3f", "hours": ".2f", "done": "d", "done surely": "d",
    "done an hour": ".1f", "done of 1,000 short": ".1f",
}  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """The value that a measure of a row should reach; `precision`: only for bundles of that precision."""

    test: str
    condition: str
    measure: str
    relation: str
    limit: float
    precision: str = ""

    def concerns(self, row: Row) -> bool:
        """Whether a row has this goal."""
        fits = (row["test"], row["condition"]) == (self.test, self.condition) and self.measure in row
        return fits and self.precision in ("", row["precision"])

    def met(self, row: Row) -> bool:
        """Whether the row reaches it."""
        value: float = row[self.measure]
        return value <= self.limit if self.relation == "≤" else value >= self.limit

    def __str__(self) -> str:
        limit = f"{100 * self.limit:g} %" if self.measure in SHARES else f"{self.limit:g}"
        return f"{self.measure} {self.relation} {limit}"


GOALS = (
    Goal("known sentences", "clean", "WER", "≤", 0.02),
    Goal("known sentences", "clean", "reply text", "≥", 0.95),
    Goal("known sentences", "clean", "judged", "≥", 0.92),
    Goal("known sentences", "noise 10 dB", "WER", "≤", 0.06),
    Goal("new sentences", "clean", "WER", "≤", 0.05),
    Goal("new sentences", "clean", "reply text", "≥", 0.85),
    Goal("new sentences", "noise 10 dB", "WER", "≤", 0.06),
    Goal("known and new sentences", "clean", "wrongly refused", "≤", 0.02),
    Goal("unheard synthesisers", "clean", "WER", "≤", 0.10),
    Goal("outside", "clean", "refused", "≥", 0.90),
    Goal("music", "clean", "refused", "≥", 0.90),
    Goal("long talk", "clean", "refused", "≥", 0.90),
    Goal("speak new sentences", "", "judged", "≥", 0.95),
    Goal("all", "", "same transcript", "≥", 0.99, precision="int8"),
    Goal("known sentences", "endpointed", "WER", "≤", 0.025),
    Goal("known sentences", "endpointed", "reply text", "≥", 0.93),
    Goal("known sentences", "endpointed", "done rightly", "≥", 0.90),
    Goal("known sentences", "endpointed", "done wrongly", "≤", 0.005),
    Goal("new sentences", "endpointed", "WER", "≤", 0.04),
    Goal("new sentences", "endpointed", "reply text", "≥", 0.88),
    Goal("all people", "", "refused", "≥", 0.97),
    Goal("all people", "", "done surely", "≤", 0),
    Goal("all people", "", "done an hour", "≤", 1),
    Goal("keyword", "", "refused", "≥", 0.90),
    Goal("female, Pebble", "", "Whisper WER", "≤", 0.05),
    Goal("male, Pebble", "", "Whisper WER", "≤", 0.05),
)


def tables(rows: Iterable[Row]) -> str:
    """Markdown of all rows."""
    rows = list(rows)
    sections = []
    for part, title in (STRANGERS | PARTS).items():
        found = [row for row in rows if row["part"] == part]
        if found:
            sections.append(f"**{title}**\n\n{_table(found)}")
    return "\n\n".join(sections)


def _table(rows: list[Row]) -> str:
    """One table, without empty columns."""
    names = [name for name in ("bundle", "test", "condition") if name == "test" or len({row[name] for row in rows}) > 1]
    measures = [name for name in ("n", *SHARES, *NUMBERS) if any(name in row for row in rows)]
    goals = ["goal"] if any(_goals(row) for row in rows) else []
    head = [*names, *measures, *goals]
    lines = [head, ["---"] * len(names) + ["---:"] * len(measures) + ["---"] * len(goals)]
    for row in rows:
        shown = [row[name] for name in names] + [_value(row, name) for name in measures]
        lines.append(shown + ([_goals(row)] if goals else []))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(row: Row, name: str) -> str:
    if name not in row:
        return ""
    if name in SHARES:
        return f"{100 * row[name]:.1f} %"
    return f"{row[name]:{NUMBERS.get(name, '')}}"


def _goals(row: Row) -> str:
    """The goals of a row, and whether they are met."""
    goals = [goal for goal in GOALS if goal.concerns(row)]
    return ", ".join(f"{goal}" if goal.met(row) else f"**{goal}: missed**" for goal in goals)


def put_between_markers(text: str, tables: str) -> str:
    """`text` with new content between the markers.

    Raises:
        ValueError: it does not have both markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no part between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def read_rows(path: Path) -> list[Row]:
    """The rows that `write_rows` wrote."""
    rows: list[Row] = json.loads(path.read_text())
    return rows


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Save rows, one on each line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(path, f"[\n{lines}\n]\n")


def draw(rows: Iterable[Row], path: Path) -> None:
    """What is heard of voices that never taught the model: words wrong, and right answers, a bar for each condition."""
    heard = [row for row in rows if row["part"] == "strangers"]
    figure = Figure(figsize=(11, 5), layout="constrained")
    words, answers = figure.subplots(1, 2, sharey=True)
    _bars(words, heard, "WER", "words wrong, per cent (fewer is better)")
    _bars(answers, heard, "reply text", "right answers, per cent")
    beside = [row for row in heard if "Whisper WER" in row]
    places = [_place(heard, row) for row in beside]
    words.plot([100 * row["Whisper WER"] for row in beside], places, "k|", markersize=11, label="Whisper tiny.en")
    words.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    with atomic_write(path) as part:
        Image.open(drawn).quantize(64).save(part, "PNG", optimize=True)


def draw_voices(rows: Iterable[Row], trainings: list[Row], path: Path) -> None:
    """Words wrong of each voice that only judges, and of all of them after each training."""
    voices = [row for row in rows if row["part"] == "voices"]
    figure = Figure(figsize=(11, 4), layout="constrained")
    single, together = figure.subplots(1, 2)
    places, values = range(len(voices)), [100 * row["WER"] for row in voices]
    single.barh(places, values, height=0.6, color="#3b7dd8", label="Pebble")
    for place, value in zip(places, values, strict=True):
        single.annotate(f"{value:.1f}", (value, place), (2, 0), textcoords="offset points", va="center", fontsize=7)
    heard = [100 * row.get("Whisper WER", float("nan")) for row in voices]
    single.plot(heard, places, "k|", markersize=14, label="Whisper tiny.en")
    single.set_yticks(places, [row["test"] for row in voices], fontsize=9)
    single.invert_yaxis()
    single.set_title("words wrong of each voice, per cent", fontsize=10)
    names = [row["training"] for row in trainings]
    for test, goal, colour in (("known", 2.5, "#3b7dd8"), ("new", 4.0, "#f2a33a")):
        measured = [(name, 100 * row[test]) for name, row in zip(names, trainings, strict=True) if test in row]
        together.plot(*zip(*measured, strict=True), "o-", color=colour, label=f"{test} sentences")
        together.axhline(goal, color=colour, linestyle=":", label=f"goal, {test}")
    together.set_ylim(bottom=0)
    together.tick_params(axis="x", labelsize=8)
    together.set_title("words wrong of all voices after each training, per cent", fontsize=10)
    for axes in (single, together):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _bars(axes: Axes, rows: list[Row], measure: str, title: str) -> None:
    for test, colour in (("known sentences", "#3b7dd8"), ("new sentences", "#f2a33a")):
        found = [row for row in rows if row["test"] == test and measure in row]
        places, values = [_place(rows, row) for row in found], [100 * row[measure] for row in found]
        axes.barh(places, values, height=0.38, color=colour, label=test)
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.0f}", (value, place), (2, 0), textcoords="offset points", va="center", fontsize=7)
    conditions = _conditions(rows)
    axes.set_yticks(range(len(conditions)), conditions, fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.set_ylim(len(conditions) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _conditions(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["condition"] for row in rows))


def _place(rows: list[Row], row: Row) -> float:
    """Where the bar of a row stands: its condition's line, known sentences above new ones."""
    return _conditions(rows).index(row["condition"]) + (-0.2 if row["test"] == "known sentences" else 0.2)


def present(rows: Iterable[Row], as_json: bool, out: Path | None) -> None:
    """Print rows, as JSON lines when they come or as tables at the end; `out` keeps those that there are."""
    kept = []
    for row in rows:
        kept.append(row)
        if as_json:
            print(json.dumps(row), flush=True)
        if out:
            write_rows(kept, out)
    if not as_json:
        print(tables(kept))


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="*", help="what evaluate.py and strangers.py saved with --out")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where README.md, the rows and the pictures are")
    args = parser.parse_args()
    rows = [row for path in args.rows or [args.folder / "evaluation.json"] for row in read_rows(path)]
    readme = args.folder / "README.md"
    write_text(readme, put_between_markers(readme.read_text(encoding="utf-8"), tables(rows)))
    write_rows(rows, args.folder / "evaluation.json")
    draw(rows, args.folder / "quality.png")
    trainings = args.folder / "trainings.json"
    if trainings.is_file():
        draw_voices(rows, read_rows(trainings), args.folder / "voices.png")


if __name__ == "__main__":
    main()
