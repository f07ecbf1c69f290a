"""What a comparison found, and what it may find: quantities with bounds, and the row of the table they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["pass", "FAIL", "reported", "not compared"]


@dataclass(frozen=True)
class Quantity:
    """One number that was found, with its bound if it has one."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.most is not None or self.least is not None

    @property
    def passes(self) -> bool:
        """Whether it keeps its bound. A value that is no number keeps none."""
        below = self.most is None or self.value <= self.most
        above = self.least is None or self.value >= self.least
        return below and above

    @property
    def exact(self) -> bool:
        """Whether nothing at all may differ."""
        return self.most == 0

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.exact:
            return "exact"
        sign, limit = ("≤", self.most) if self.most is not None else ("≥", self.least)
        return f"{self.name} {sign} {limit:g}"

    def __str__(self) -> str:
        return f"{self.name} {self.value:g}" if float(self.value).is_integer() else f"{self.name} {self.value:.4g}"


@dataclass(frozen=True)
class AcceptanceRow:
    """One line of the table. `note` says why nothing was compared, or what a reader should know."""

    stage: str
    compared: str
    quantities: tuple[Quantity, ...] = ()
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the row says of the bundle. Quantities without a bound are reported and decide nothing."""
        if not self.quantities:
            return "not compared"
        if not all(one.passes for one in self.quantities):
            return "FAIL"
        return "pass" if any(one.bounded for one in self.quantities) else "reported"

    @property
    def bound(self) -> str:
        """All bounds in words, each once."""
        return ", ".join(dict.fromkeys(one.bound for one in self.quantities if one.bounded))

    @property
    def found(self) -> str:
        """All quantities in words, and the note. Of those that must be 0, only the others are named."""
        named = [str(one) for one in self.quantities if not (one.exact and one.value == 0)]
        return ", ".join([*named, *([self.note] if self.note else [])]) or "exact"

    def as_json(self) -> dict[str, Any]:
        """The row for machines."""
        return {
            "stage": self.stage,
            "compared": self.compared,
            "bound": self.bound,
            "found": self.found,
            "verdict": self.verdict,
            "figures": {one.name: one.value for one in self.quantities},
        }


@dataclass(frozen=True)
class Near:
    """How near tokens or codes must be: the least share that is chosen as the golden was, and the largest `gap`.

    The gap is how far the golden's logit is below the one that decides: the best, or the last that may be drawn.
    """

    share: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Bounds:
    """What each comparison may find; None: it is reported only. docs/models/acceptance.md gives the reason of each.

    encoder: of the largest value; probability: of each of the five likeliest tokens; cosine, distance: of a hidden
    state (distance as a share of the golden's length); layer: of the largest value; codes: that differ; table: of a
    summed row; ulps: the same in steps of bfloat16; sound: of full scale; words: that are wrong, as a share; exact:
    whether the transcript must be the same to the letter.
    """

    encoder: float | None = 1e-3
    probability: float | None = 0.03
    text: Near = Near(gap=0.5)
    greedy: Near = Near(share=0.97, gap=0.5)
    drawn: Near = Near(share=0.99, gap=0.5)
    cosine: float | None = 0.999
    distance: float | None = 0.03
    layer: float | None = 1e-4
    codes: float | None = 0
    table: float | None = 1e-6
    ulps: float | None = 1
    sound: float | None = 1e-4
    words: float = 0
    exact: bool = True


FLOAT32 = Bounds()

QUANTISED = Bounds(
    encoder=None,
    probability=None,
    text=Near(share=0.9),
    greedy=Near(),
    drawn=Near(),
    cosine=0.98,
    distance=None,
    layer=None,
    codes=None,
    table=None,
    ulps=None,
    sound=None,
    words=1 / 43,  # one word of the published transcript
    exact=False,
)
"""Weights of fewer bits are judged by what a listener would notice. The rest of the table has its numbers."""
