"""Charts as inline SVG, in the page's own colours: shares with their intervals, and how many answers took how long.

In: rows, seconds. Out: SVG text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from voxrill.runtime.apps.evaluation.figures import Figure, Row

WIDTH, NAMES, BAR = 720, 220, 26
"""Pixels: of a chart, of the names to its left, and of a bar with the space below it."""

HEIGHT = 260
"""Pixels of the chart of times."""

COLOURS = 5
"""Variables --c0 to --c4 of the page's style."""


def share_chart(rows: Sequence[Row], name: str) -> str:
    """A bar for each row that has the figure, with a whisker over its interval."""
    shown = [(row, row.figures[name]) for row in rows if name in row.figures]
    most = max(max(figure.high for _, figure in shown), 0.01)
    colours = {contestant: number for number, contestant in enumerate(dict.fromkeys(row.name for row in rows))}
    bars = [
        _bar(number * BAR, " ".join(filter(None, (row.name, row.group))), figure, most, _colour(colours[row.name]))
        for number, (row, figure) in enumerate(shown)
    ]
    return _svg(len(shown) * BAR, name, bars)


def wait_chart(waits: Mapping[str, Sequence[float]]) -> str:
    """For each contestant whose times are known: the share of its answers that were whole within a time."""
    longest = max(max(times, default=0.0) for times in waits.values()) or 1.0
    parts = []
    for number, (name, times) in enumerate(waits.items()):
        if times:
            parts.append(_line(sorted(times), longest, _colour(number)))
            parts.append(f'<text x="8" y="{20 + 18 * number}" style="fill:{_colour(number)}">{escape(name)}</text>')
    floor = HEIGHT - 20
    parts += [
        f'<line x1="{NAMES}" x2="{WIDTH}" y1="{y}" y2="{y}" stroke="var(--line)"/>' for y in (10, floor // 2 + 5, floor)
    ]
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = NAMES + share * (WIDTH - NAMES)
        parts.append(f'<text x="{x}" y="{HEIGHT - 4}" text-anchor="{anchor}">{1000 * share * longest:.0f} ms</text>')
    return _svg(HEIGHT, "share of answers by time", parts)


def _bar(y: float, name: str, figure: Figure, most: float, colour: str) -> str:
    room = WIDTH - NAMES - 70
    value, low, high = (NAMES + room * part / most for part in (figure.value, figure.low, figure.high))
    middle = y + (BAR - 6) / 2
    return (
        f'<text x="{NAMES - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{NAMES}" y="{y}" width="{value - NAMES:.1f}" height="{BAR - 6}" fill="{colour}" opacity="0.75"/>'
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10" '
        f'stroke="var(--ink)" fill="none"/>'
        f'<text x="{high + 8:.1f}" y="{middle + 4}">{100 * figure.value:.1f} %</text>'
    )


def _line(times: Sequence[float], longest: float, colour: str) -> str:
    floor, width = HEIGHT - 20, WIDTH - NAMES
    path = f"M{NAMES} {floor}"
    for number, seconds in enumerate(times, 1):
        path += f"H{NAMES + width * seconds / longest:.1f}V{floor - (floor - 10) * number / len(times):.1f}"
    return f'<path d="{path}H{WIDTH}" stroke="{colour}" stroke-width="2" fill="none"/>'


def _colour(number: int) -> str:
    return f"var(--c{number % COLOURS})"


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
