"""Charts as inline SVG: shares with their intervals, and how many answers took how long.

In: rows, seconds. Out: SVG text. Its lines are grey on a clear ground, for light pages and dark ones; the page gives
the words their colour.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from voxrill.runtime.apps.evaluation.figures import Figure, Row
from voxrill.runtime.picture import figure_class
from voxrill.runtime.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.5
"""Inches; a page shows 96 pixels for each."""

BAR, TITLE, TIMES = 0.28, 0.5, 3.0
"""Inches: the height of a bar, of the axis below all bars, and of the chart of times."""

COLOURS = ("#1f6fd6", "#d2691e", "#2f8f4e", "#8a4fc9", "#b0304f")
"""One for each contestant; each is visible on light and dark ground."""

LONGEST_NAME = 40
"""Characters of a name in a chart at most; the table shows all of it."""

GREY = "#7f8794"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: they can be searched, and the page colours them
    "text.parse_math": False,  # a name with two dollar signs is not a formula
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def share_chart(rows: Sequence[Row], name: str) -> str:
    """A bar for each row that has the figure, with a whisker over its interval."""
    shown = [(row, row.figures[name]) for row in rows if name in row.figures]
    colours = _colours([row.name for row in rows])
    with _drawn(TITLE + BAR * len(shown), name) as (axes, svg):
        places = range(len(shown))
        found = [figure for _, figure in shown]
        axes.barh(
            places,
            [100 * figure.value for figure in found],
            xerr=[[100 * _below(one) for one in found], [100 * _above(one) for one in found]],
            color=[colours[row.name] for row, _ in shown],
            ecolor=GREY,
            capsize=3,
        )
        for place, figure in zip(places, found, strict=True):
            share, at = f"{100 * figure.value:.1f} %", (100 * figure.high, place)
            axes.annotate(share, at, xytext=(6, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [_shown(f"{row.name} {row.group}") for row, _ in shown])
        axes.set_xlim(0, max(1.0, *(115 * figure.high for figure in found)))
        axes.set_xlabel("%")
        axes.invert_yaxis()
    return svg.getvalue()


def wait_chart(waits: Mapping[str, Sequence[float]]) -> str:
    """For each contestant with known times: the share of its answers that were complete within a time."""
    colours = _colours(list(waits))
    with _drawn(TIMES, "share of answers by time") as (axes, svg):
        for name, times in waits.items():
            if times:
                within = [1000 * seconds for seconds in sorted(times)]
                shares = [100 * number / len(within) for number in range(1, len(within) + 1)]
                axes.step([0, *within], [0, *shares], where="post", color=colours[name], label=_shown(name))
        axes.set(xlabel="ms", ylabel="answers, %", ylim=(0, 102))
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
    return svg.getvalue()


@contextmanager
def _drawn(height: float, label: str) -> Iterator[tuple[Axes, StringIO]]:
    """Axes to draw on in the `with` block, and a text that holds the drawing as SVG afterwards."""
    figure = figure_class("eval")
    from matplotlib import rc_context

    svg = StringIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that matplotlib's own font lacks; the reader's has it
        drawing = figure(figsize=(WIDTH, height), layout="constrained")
        yield drawing.subplots(), svg
        whole = StringIO()
        drawing.savefig(whole, format="svg", transparent=True, metadata={"Date": None})
    text = whole.getvalue()
    # What stands before the tag is a declaration of XML, which HTML does not have.
    svg.write(text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))


def _colours(names: Sequence[str]) -> dict[str, str]:
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(dict.fromkeys(names))}


def _shown(name: str) -> str:
    return shorten(printable(name.strip()), LONGEST_NAME)


def _below(figure: Figure) -> float:
    return max(0.0, figure.value - figure.low)


def _above(figure: Figure) -> float:
    return max(0.0, figure.high - figure.value)
