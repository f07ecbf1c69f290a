"""Does the echo canceller follow this room? If not, nothing is heard while the loudspeaker sounds.

In: frames of 10 ms: what was played, what the microphone heard, what the canceller left of it. Out: what may be
listened to, and a sentence when that changes. A canceller that fails would have the model interrupt itself. So the
microphone counts as deaf while an answer sounds, until what is left of it is seen to be small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from voxrill.runtime.audio.protocols import Floats

_SOUNDS = 1e-6
"""Mean square from which the loudspeaker sounds: -60 dB of full scale."""

_REACH = 80
"""Frames, 0.8 s, in which a room still gives back what was played, a loudspeaker on Bluetooth included."""

_DIRECT = 12
"""Frames in which it gives back most of it: only these are judged."""

_INAUDIBLE = 4.0
"""Power that may be left, as a multiple of the room's own noise: 6 dB."""

_CANCELLED = 0.02
"""Power that may be left, as a part of what was heard: -17 dB. Where the canceller works, it is -30 dB and less."""

_JUDGED = 300
"""Frames that are judged together: 3 s of sound. Before as many were heard, the gate stays closed."""

_OFTEN = 30
"""Frames after which the loudest of what is left is looked for again."""

_OPENS, _CLOSES = 0.05, 0.15
"""Shares of bad frames; of a canceller that works, 0 to 3 %. A user who interrupts is heard for a quarter of a second
before the answer ends: this alone, 25 of 300 frames, closes nothing."""

_QUIET = 1e-7
"""Mean square, -70 dB of full scale: a voice so quiet is not found."""

_LEAK, _ABOVE = 0.95, 4.0
"""What is left of an echo is as loud as this share of the judged frames at most, compared with what was played. A voice
must have several times that power: 6 dB more."""

_VOICE = 8
"""Frames, 80 ms, that are passed on after one that is loud enough: words have quiet places."""

_RISES = 10 ** (0.1 * 3 * 0.01)
"""By how much the noise of a room may grow from frame to frame: 3 dB a second. It shrinks at once."""

FOLLOWS = "The echo canceller follows this room now: you can interrupt answers by speaking"
FAILS = "The echo canceller does not follow this room: answers cannot be interrupted by speaking"

_PATIENCE = 2 * _JUDGED
"""Judged frames after which a canceller that still fails is told of: it is given 6 s of sound to learn the room."""


class EchoGate:
    """Judges a canceller by what it leaves.

    Args:
        notify: takes a sentence when the gate closes for good or opens again.

    open: whether the user may be heard while the loudspeaker sounds.
    """

    def __init__(self, notify: Callable[[str], None] = lambda _sentence: None) -> None:
        self._notify = notify
        self.open = False
        self._warned = False
        self._played: deque[float] = deque([0.0] * _REACH, maxlen=_REACH)
        self._bad: deque[bool] = deque(maxlen=_JUDGED)
        self._leaks: deque[float] = deque(maxlen=_JUDGED)
        self._judged = self._passing = 0
        self._leak = 1.0
        self._noise = _QUIET

    def __call__(self, played: Floats, heard: Floats, left: Floats) -> Floats:
        """What may be listened to of `left`: all of it, or silence. All are frames (160,)."""
        self._played.append(_power(played))
        self._noise = max(_QUIET, min(_power(heard), self._noise * _RISES))
        loudest = max(self._played)
        if loudest < _SOUNDS:
            return left
        power = _power(left)
        if power > self._leak * _ABOVE * loudest and power > _INAUDIBLE * self._noise:
            self._passing = _VOICE
        if max(list(self._played)[-_DIRECT:]) >= _SOUNDS:
            self._judge(_power(heard), power, loudest)
        self._passing = max(0, self._passing - 1)
        return left if self.open and self._passing else np.zeros_like(left)

    def _judge(self, heard: float, left: float, loudest: float) -> None:
        audible = _INAUDIBLE * self._noise
        self._bad.append(left > max(audible, _CANCELLED * heard))
        self._leaks.append(max(0.0, left - audible) / loudest)
        self._judged += 1
        if self._judged % _OFTEN == 0:
            self._leak = float(np.quantile(self._leaks, _LEAK))
        share = sum(self._bad) / len(self._bad)
        if not self.open and len(self._bad) == _JUDGED and share < _OPENS:
            self.open = True
            if self._warned:
                self._warned = False
                self._notify(FOLLOWS)
        elif share > _CLOSES:
            self.open = False
            if not self._warned and self._judged >= _PATIENCE:
                self._warned = True
                self._notify(FAILS)


def _power(samples: Floats) -> float:
    return float(np.dot(samples, samples)) / len(samples)
