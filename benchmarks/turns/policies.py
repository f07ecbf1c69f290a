"""When would an utterance have been over? The rules that are compared, on what the models said at its pauses.

In: utterances as they were measured, and a rule. Out: whether it would have been cut in two, and the wait at its end.
Time is counted in blocks of 32 ms, as in the live loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

from benchmarks.turns.clips import seconds
from benchmarks.turns.pauses import ASKED, AskedPause, AskedUtterance
from voxrill.runtime.apps.evaluation.figures import percentile
from voxrill.runtime.apps.own_end import SURE
from voxrill.runtime.audio.endpointing import EndpointOptions, Patience

FIRST = ASKED[0]
"""Unvoiced blocks after which the live loop asks: its first pause."""

NEXT = FIRST + 1
"""The first block that can end a turn which was judged."""

SMART_TURN, OWN = "smart-turn", "own"

_OPTIONS = EndpointOptions()

Rule = Callable[[AskedPause], int]
"""Unvoiced blocks after which the utterance would be over in this pause."""


def timer(silence: float) -> Rule:
    """Silence alone."""
    return lambda _pause: _OPTIONS.silent_blocks(silence)


def patient(least: float, most: float = Patience.most) -> Rule:
    """What the live loop does: silence in proportion to the model's doubt."""
    patience = Patience(least, most)
    return lambda pause: max(NEXT, _OPTIONS.silent_blocks(patience.silence(_said(pause, SMART_TURN))))


def strict(threshold: float, most: float = Patience.most) -> Rule:
    """The usual rule: over at once from a threshold on, and otherwise after `most`."""
    late = _OPTIONS.silent_blocks(most)
    return lambda pause: NEXT if _said(pause, SMART_TURN) >= threshold else late


def own(silence: float = EndpointOptions.endpoint) -> Rule:
    """The built-in model's own word, and silence where it knows no such sentence."""
    return lambda pause: NEXT if _said(pause, OWN) >= SURE else _OPTIONS.silent_blocks(silence)


def _said(pause: AskedPause, model: str) -> float:
    return pause.said[model].get(FIRST, 0.0)  # a pause that is too short to be asked about is over sooner than any wait


@dataclass(frozen=True)
class RuleOutcome:
    """What a rule does to some utterances.

    cut: the share that is cut in two or more. false_ends: how many ends inside an utterance there are for each. The
    rest are seconds from the last voiced sound to the end.
    """

    cut: float
    false_ends: float
    median: float
    mean: float
    p90: float


def outcome(utterances: Sequence[AskedUtterance], rule: Rule) -> RuleOutcome:
    """What `rule` does to `utterances`."""
    waits, ends = [], []
    for one in utterances:
        inside = [pause for pause in one.pauses if pause.length is not None]
        ends.append(sum(pause.length is not None and pause.length >= rule(pause) for pause in inside))
        waits.append(seconds(rule(one.pauses[-1])))
    return RuleOutcome(
        cut=fmean(end > 0 for end in ends),
        false_ends=fmean(ends),
        median=median(waits),
        mean=fmean(waits),
        p90=percentile(waits, 0.9),
    )


SILENCES = (*(round(0.1 + 0.05 * n, 2) for n in range(19)), 1.5, 2.0)
LEASTS = (0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98)

OWN_WORD = "the built-in model's own word, else silence"

CURVES: dict[str, tuple[tuple[float, ...], Callable[[float], Rule]]] = {
    "silence alone": (SILENCES, timer),
    "model, patience in proportion": (LEASTS, patient),
    "model, at once or after 2 s": (THRESHOLDS, strict),
    OWN_WORD: (SILENCES, own),
}
"""Families of rules: the values of their one free number, and how a rule is made of it."""


def curve(utterances: Sequence[AskedUtterance], name: str) -> list[dict[str, float]]:
    """The outcomes of a family of rules, each with its number as `at`."""
    values, make = CURVES[name]
    return [{"at": value, **asdict(outcome(utterances, make(value)))} for value in values]


def chosen(points: Sequence[dict[str, float]], most_cut: float) -> float | None:
    """The number of the rule with the shortest median wait (then mean wait) that cuts no larger share than that."""
    allowed = [point for point in points if point["cut"] <= most_cut]
    return min(allowed, key=lambda point: (point["median"], point["mean"]))["at"] if allowed else None
