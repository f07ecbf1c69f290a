"""Rows of `evaluate.py` as tables: `python report.py FILE.json` writes them into README.md, between its markers.

In: rows, as saved by --out. Out: Markdown with one table for each part. A row with a goal shows it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxrill.runtime.atomic_write import write_text

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- evaluation -->", "<!-- /evaluation -->"

PARTS = {
    "hear": "Hearing and answering",
    "around": "Around commands",
    "speak": "Speaking",
    "codec": "The voice itself: the right codes as sound",
}
STRANGERS = {
    "strangers": "Heard from voices that never taught it",
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
        return f"{self.measure} {self.relation} {100 * self.limit:g} %"


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


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="+", help="what evaluate.py saved with --out")
    parser.add_argument("--readme", type=Path, default=README)
    args = parser.parse_args()
    rows = [row for path in args.rows for row in read_rows(path)]
    write_text(args.readme, put_between_markers(args.readme.read_text(encoding="utf-8"), tables(rows)))


if __name__ == "__main__":
    main()
