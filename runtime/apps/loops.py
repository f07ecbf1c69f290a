"""Finds out whether a model has begun to repeat itself without end. Pure.

In: tokens. Out: how many of them to keep. On noise, and on sound unlike their training, speech models write the same
words again and again until the limit.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_UNIT = 16
"""Tokens of the longest loop that is found: those of a sentence. Longer loops end at the limit."""

REPEATS, REPEATED = 4, 12
"""A unit that was written 4 times in a row, in at least 12 tokens together, is a loop. A short word needs more
repetitions than that: people do say "no" five times."""


def before_loop(tokens: Sequence[int]) -> int | None:
    """How many of `tokens` there are up to the end of a loop's first repetition; None if they end with no loop."""
    for unit in range(1, LONGEST_UNIT + 1):
        # Whole units, at least REPEATS of them, and so many that they are REPEATED tokens: -(-a // b) rounds up.
        span = unit * max(REPEATS, -(-REPEATED // unit))
        # The last `span` tokens repeat with the period `unit` if they are the same when they are shifted by one unit.
        if len(tokens) >= span and tokens[-span:-unit] == tokens[unit - span :]:
            return len(tokens) - span + unit
    return None
