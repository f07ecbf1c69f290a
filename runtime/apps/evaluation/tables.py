"""The rows as a table on a terminal.

In: rows. Out: a rich table: shares in per cent with their intervals, times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from voxrill.runtime.apps.evaluation.figures import SHARES, WITHIN, Figure, Row

CAPTION = f"Below a share: its {WITHIN} % confidence interval (bootstrap over items). Times: median, below it p90/p99."


def heads_of(rows: Sequence[Row]) -> list[str]:
    """The columns that a table of these rows has."""
    figures = dict.fromkeys(name for row in rows for name in row.figures)
    group = ["subset"] if any(row.group for row in rows) else []
    return ["", *group, "answered", *figures, "answer, ms", "first, ms", "RTF"]


def cells_of(row: Row, heads: Sequence[str]) -> list[str]:
    """The row's cells for these heads."""
    known = {
        "": row.name,
        "subset": row.group,
        "answered": f"{row.answered}/{row.items}",
        "answer, ms": _times(row.latency),
        "first, ms": _times(row.first),
        "RTF": "-" if row.rtf is None else f"{row.rtf:.3f}",
        **{name: share(figure) for name, figure in row.figures.items()},
    }
    return [known.get(head, "-") for head in heads]


def table(rows: Sequence[Row], title: str) -> Table:
    """A table with a row for each contestant and group."""
    heads = heads_of(rows)
    drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        named = head in ("", "subset")
        drawn.add_column(
            head.replace(" ", "\n"), justify="left" if named else "right", overflow="fold", no_wrap=not named
        )
    for row in rows:
        drawn.add_row(*cells_of(row, heads))
    return drawn


def share(figure: Figure) -> str:
    """A share in per cent, with its interval below."""
    return f"{100 * figure.value:.1f} %\n{100 * figure.low:.1f}–{100 * figure.high:.1f}"


def _times(seconds: dict[str, float]) -> str:
    if not seconds:
        return "-"
    median, *rest = (f"{1000 * seconds[name]:.0f}" for name in SHARES)
    return f"{median}\n{'/'.join(rest)}"
