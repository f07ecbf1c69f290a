"""Has a model begun to repeat itself without end? Tokens in, the number of them worth keeping out. Pure.

Speech models fall into loops on noise and on sound unlike what they were trained on: the same words, again and again,
until the limit.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_UNIT = 16
"""Tokens that repeat: a sentence. Longer loops end at the limit."""

REPEATS, REPEATED = 4, 12
"""A unit is a loop when it was said so often, and these are so many tokens together: people do say no five times."""


def before_loop(tokens: Sequence[int]) -> int | None:
    """How many of `tokens` are there before the last ones repeat themselves, one turn of it included; None: no loop."""
    for unit in range(1, LONGEST_UNIT + 1):
        span = unit * max(REPEATS, -(-REPEATED // unit))
        if len(tokens) >= span and tokens[-span:-unit] == tokens[unit - span :]:
            return len(tokens) - span + unit
    return None
