"""Speech that does not end: a bound from the text's length, and frames that repeat themselves.

Greedy speech of the published weights did not end by itself for two of four voices: it went on to the limit of 512
tokens, 41 s, for a short sentence. Here it is cut, and `finish_reason` says so.
"""

from __future__ import annotations

import unicodedata
from collections import deque

import numpy as np
from numpy.typing import NDArray

_LETTER, _SYLLABLE, _SYMBOL = 0.3, 0.6, 1.2
"""Seconds that a letter, a character that stands for a syllable or a word, and a digit or symbol take at most. Speech
of 10 to 20 letters a second is usual; a slow voice says 5. "7" and "%" are whole words."""

_AROUND = 4.0
"""Seconds for pauses and silence around a short text."""

_SYLLABIC = "ぁ"
"""From this character on (Japanese, Chinese, Korean), most letters are a syllable or more."""

_CYCLE = 16
"""Frames of the longest cycle that is looked for, 1.3 s."""

_STUCK = 40
"""Frames that repeat those before them until speech counts as stuck, 3.2 s. No two frames of speech have the same eight
codes for long, and a pause of 3.2 s is none of an answer."""


def longest_speech(text: str) -> float:
    """Seconds that saying `text` takes at most: half as much again as a slow voice needs, and more for a short text."""
    return _AROUND + sum(map(_seconds, text))


def _seconds(character: str) -> float:
    kind = unicodedata.category(character)[0]
    if kind == "L":
        return _LETTER if character < _SYLLABIC else _SYLLABLE
    return _SYMBOL if kind in "NS" else 0.0


class Repetition:
    """Watches frames, and says when they only repeat themselves."""

    def __init__(self) -> None:
        self._seen: deque[bytes] = deque(maxlen=_CYCLE)
        self._same = [0] * _CYCLE  # for each length of a cycle: the frames in a row that were as those before

    def stuck(self, codes: NDArray[np.int64]) -> bool:
        """Take the next frame's codes (codebooks,); whether it and many before it were all said before."""
        frame = codes.tobytes()
        for back, before in enumerate(reversed(self._seen)):
            self._same[back] = self._same[back] + 1 if frame == before else 0
        self._seen.append(frame)
        return max(self._same) >= _STUCK
