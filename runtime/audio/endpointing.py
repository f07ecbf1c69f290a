"""When does the user begin, pause, go on and end? Probabilities of speech in, decisions out; no clock and no sound.

Time is counted in blocks. A turn begins with a few voiced blocks in a row, pauses after a short silence (the answer
can be begun on suspicion), and ends after a longer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from voxrill.runtime.audio.protocols import BLOCK_SECONDS
from voxrill.runtime.errors import UsageError

Decision = Literal["began", "paused", "resumed", "ended", "too long"]
"""What became known with a block.

began: the user speaks, since `first`. paused: nothing was voiced since `last`, for the pause's length. resumed: the
user went on after a pause. ended: the turn is over. too long: the user was cut off; nothing begins until it is quiet.
"""


State = Literal["quiet", "speaking", "paused", "noisy"]


@dataclass(frozen=True)
class EndpointOptions:
    """When a turn begins and ends.

    threshold: probability from which a block is voiced; once the user speaks, `release` less is enough. The rest are
    seconds: begin of voice in a row that begins a turn, pause of silence to suspect its end, endpoint of silence that
    ends it, hold that the detector takes to notice silence, longest a turn may be. After the last sound of 32 held-out
    spoken commands silero's network held on for 62 ms (median; 104 ms at most). With this pause one of the 32 was taken
    for over too early, with 160 ms or more none; the built-in model answers 31 of them rightly with any from 92 to 192.
    """

    threshold: float = 0.5
    release: float = 0.15
    begin: float = 0.064
    pause: float = 0.128
    endpoint: float = 0.5
    hold: float = 0.06
    longest: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(f"the threshold of speech is {self.threshold}", "Give a number between 0 and 1")
        if not self.pause <= self.endpoint <= self.longest:
            raise UsageError(
                f"a turn would end after {self.endpoint:g} s of silence",
                f"Give {self.pause:g} (the pause) to {self.longest:g} seconds",
            )

    @property
    def pause_blocks(self) -> int:
        """Unvoiced blocks after which the turn may be over: 2 of 32 ms."""
        return max(1, round((self.pause - self.hold) / BLOCK_SECONDS))

    @property
    def endpoint_blocks(self) -> int:
        """Unvoiced blocks after which the turn is over: 14 of 32 ms."""
        return max(1, round((self.endpoint - self.hold) / BLOCK_SECONDS))


BEFORE = 0.32
"""Seconds kept before the first voiced block: consonants begin quietly. Of 32 held-out spoken commands the built-in
model answers 31 rightly with this and the pause after the last block, and 30 with neither (chosen on these clips)."""

SUSPICIOUS = 0.15
"""Probability from which the user may be about to begin. Of 32 held-out spoken commands it is reached 36 ms after the
first sound (median; 88 at most), a threshold of 0.5 only after 56 (120); of music and noise in 0.4 % of the blocks."""


def blocks(seconds: float) -> int:
    """So many blocks last at least `seconds`; at least one."""
    return max(1, math.ceil(seconds / BLOCK_SECONDS - 1e-6))


class Endpointer:
    """Follows one stream of probabilities.

    number: of the next block. first, last: the voiced blocks, by number, of the turn so far.
    """

    def __init__(self, options: EndpointOptions) -> None:
        self.options = options
        self._begin = blocks(options.begin)
        self._pause = options.pause_blocks
        self._endpoint = options.endpoint_blocks
        self._longest = blocks(options.longest)
        self.number = 0
        self.reset()

    def reset(self) -> None:
        """Forget the turn, and wait for one to begin."""
        self.state: State = "quiet"
        self.first = self.last = self.number
        self._newest = 0.0
        self._run = 0  # blocks in a row: voiced ones while quiet, unvoiced ones otherwise

    @property
    def suspecting(self) -> bool:
        """Whether the user may be about to begin."""
        return self.state == "quiet" and self._newest >= SUSPICIOUS

    def split(self, number: int) -> None:
        """After `too long`: the turn ended before block `number`, a voiced one of it, and another began there."""
        self.state, self.first, self._run = "speaking", number, self.number - 1 - self.last

    def hear(self, probability: float) -> Decision | None:
        """Take the next block's probability; what became known with it."""
        number, self.number = self.number, self.number + 1
        self._newest = probability
        voiced = probability >= self.options.threshold - self.options.release * (self.state in ("speaking", "paused"))
        if self.state == "quiet":
            return self._hear_quiet(number, voiced)
        self._run = 0 if voiced else self._run + 1
        if self.state == "noisy":
            if self._run >= self._endpoint:
                self.reset()
            return None
        return self._hear_turn(number, voiced)

    def _hear_quiet(self, number: int, voiced: bool) -> Decision | None:
        self._run = self._run + 1 if voiced else 0
        if self._run < self._begin:
            return None
        self.state, self.first, self.last, self._run = "speaking", number - self._begin + 1, number, 0
        return "began"

    def _hear_turn(self, number: int, voiced: bool) -> Decision | None:
        if voiced:
            self.last = number
        if number - self.first >= self._longest and self.state == "speaking":
            self.state = "noisy"
            return "too long"
        if voiced and self.state == "paused":
            self.state = "speaking"
            return "resumed"
        if self._run >= self._endpoint:
            self.state, self._run = "quiet", 0
            return "ended"
        if self.state == "speaking" and self._run >= self._pause:
            self.state = "paused"
            return "paused"
        return None


class PushToTalk:
    """An endpointer for a key instead of silence: a turn lasts from one press to the next, or `options.longest` s.

    `first` and `last` are those of the voiced blocks between the presses, all of them if none is voiced: of 20 spoken
    commands with half a second of silence on both sides the built-in model answers 19 rightly so, and none otherwise.
    """

    def __init__(self, options: EndpointOptions) -> None:
        self.options = options
        self._longest = blocks(options.longest)
        self._down = False
        self.number = 0
        self.reset()

    def press(self) -> None:
        """The key was pressed: the turn begins or ends. May be called from any thread."""
        self._down = not self._down

    def reset(self) -> None:
        """Forget the turn, and wait for one to begin."""
        self.state: State = "quiet"
        self.first = self.last = self.number
        self._voiced = False

    @property
    def suspecting(self) -> bool:
        """Never: a key leaves no doubt."""
        return False

    def hear(self, probability: float) -> Decision | None:
        """Take the next block's probability; what became known with it."""
        number, self.number = self.number, self.number + 1
        if self.state == "quiet":
            self._pressed = self.first = self.last = number
            self._voiced = False
            if not self._down:
                return None
            self.state = "speaking"
            self._follow(number, probability)
            return "began"
        self._follow(number, probability)
        if self._down and number - self._pressed < self._longest:
            return None
        self.state = "quiet"
        decision: Decision = "too long" if self._down else "ended"
        self._down = False
        return decision

    def _follow(self, number: int, probability: float) -> None:
        voiced = probability >= self.options.threshold
        if voiced and not self._voiced:
            self.first, self._voiced = number, True
        if voiced or not self._voiced:
            self.last = number
