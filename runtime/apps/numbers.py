"""English number words: 21 is "twenty one". There is no hyphen, as most speech models write none."""

from __future__ import annotations

LARGEST = 999_999

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number_words(value: int) -> str:
    """A whole number from 0 to `LARGEST` in words: 305 is "three hundred five"."""
    if value < 20:
        return _ONES[value]
    if value < 100:
        return _joined(_TENS[value // 10 - 2], value % 10)
    if value < 1000:
        return _joined(f"{_ONES[value // 100]} hundred", value % 100)
    return _joined(f"{number_words(value // 1000)} thousand", value % 1000)


def _joined(words: str, rest: int) -> str:
    return f"{words} {number_words(rest)}" if rest else words
