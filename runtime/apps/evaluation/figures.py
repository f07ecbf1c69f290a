"""Figures from marks and times: shares with their confidence interval, percentiles, real-time factor.

In: a task, its items and a contestant's outcomes. Out: a `Row` for each group of items. A missing answer counts as an
empty one, so every row of a table is about the same items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from voxrill.runtime.apps.evaluation.items import Item, Outcome
from voxrill.runtime.apps.evaluation.tasks import EvaluationTask, Mark

SHARES = {"median": 0.5, "p90": 0.9, "p99": 0.99}

RESAMPLED = 1000
"""Bootstrap samples."""

WITHIN = 95
"""Per cent of them that lie between low and high."""


class Figure(msgspec.Struct, frozen=True):
    """A share: its value; low and high are the ends of its 95 % confidence interval, by bootstrap over items."""

    value: float
    low: float
    high: float


class Row(msgspec.Struct, frozen=True):
    """What one contestant did with one group of items.

    answered: the number of items with an answer; figures: shares by name; latency: percentiles of the seconds to the
    whole answer; first: the same to its beginning; rtf: seconds of work for each second of sound, None if no times are
    known.
    """

    name: str
    group: str
    items: int
    answered: int
    figures: dict[str, Figure]
    latency: dict[str, float]
    first: dict[str, float]
    rtf: float | None

    def as_json(self) -> dict[str, Any]:
        """The row for machines."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def rows_of(task: EvaluationTask, name: str, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """A contestant's rows, one for each group."""
    groups: dict[str, list[Item]] = {}
    for item in task.items:
        groups.setdefault(item.group, []).append(item)
    return [_row(task, name, group, members, outcomes) for group, members in groups.items()]


def figure_of(marks: Sequence[Mark]) -> Figure | None:
    """The share that marks make, with its interval; None if there is nothing to have a share of."""
    counts = np.array(marks, np.float64)
    counts = counts[counts[:, 1] > 0]
    if not len(counts):
        return None
    # The bootstrap draws items, not words: errors come together in difficult sounds. Its seed is fixed, so that the
    # same answers give the same interval.
    picked = np.random.default_rng(0).integers(len(counts), size=(RESAMPLED, len(counts)))
    drawn = counts[picked].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [(100 - WITHIN) / 2, (100 + WITHIN) / 2])
    value, whole = counts.sum(0)
    return Figure(float(value / whole), float(low), float(high))


def percentiles(seconds: Sequence[float | None]) -> dict[str, float]:
    """Percentiles of the times that are known."""
    known = [second for second in seconds if second is not None]
    return {name: percentile(known, share) for name, share in SHARES.items()} if known else {}


def _row(task: EvaluationTask, name: str, group: str, items: list[Item], outcomes: Mapping[str, Outcome]) -> Row:
    given = [outcomes.get(item.id, Outcome(item.id, error="not answered")) for item in items]
    answered = [outcome for outcome in given if not outcome.error]
    found = {name: figure_of(marks) for name, marks in task.marks(items, given).items()}
    return Row(
        name=name,
        group=group,
        items=len(items),
        answered=len(answered),
        figures={name: figure for name, figure in found.items() if figure is not None},
        latency=percentiles([outcome.seconds for outcome in answered]),
        first=percentiles([outcome.first for outcome in answered]),
        rtf=_rtf(answered),
    )


def _rtf(outcomes: Sequence[Outcome]) -> float | None:
    timed = [(one.seconds, one.audio_seconds) for one in outcomes if one.seconds is not None and one.audio_seconds]
    sound = sum(length for _, length in timed)
    return sum(seconds for seconds, _ in timed) / sound if sound else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` such that the part `share` (0 to 1) of them are not larger."""
    ordered = sorted(values)
    return ordered[max(0, int(np.ceil(share * len(ordered))) - 1)]
