"""Endpointing: when does the user begin, pause, go on and end?

In: a probability of speech for each block. Out: decisions. There is no clock and no sound: time is counted in blocks. A
turn begins with a few voiced blocks in a row. It pauses after a short silence: an answer may be begun then, on the
suspicion that the turn is over. It ends after a longer silence. A judge of the sound may be asked at the pause:
then the turn ends after less silence, or after more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from voxrill.runtime.audio.protocols import BLOCK_SECONDS
from voxrill.runtime.errors import UsageError

Decision = Literal["began", "paused", "resumed", "ended", "too long"]
"""What a block decided.

began: the user has been speaking since block `first`. paused: no block after `last` was voiced, for the length of a
pause. resumed: the user went on after a pause. ended: the turn is over. too long: the user was cut off; no turn begins
until it has been quiet.
"""


State = Literal["quiet", "speaking", "paused", "noisy"]


@dataclass(frozen=True)
class Patience:
    """How long a turn may be silent, by the probability at its first pause that it is over.

    least: seconds where it is surely over; most: seconds where it surely is not. Between them it is in proportion.

    With these, 1.1 % of 353 spoken orders are cut in two, after a wait of 0.35 s (median; mean 0.51 s). Silence alone
    cuts 2.0 % after 0.35 s, and 1.1 % after 0.4 s (docs/performance.md).
    """

    least: float = 0.3
    most: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most < math.inf:
            raise UsageError(
                f"the patience with an unfinished turn is {self.most:g} s", f"Give at least {self.least:g} seconds"
            )

    def silence(self, probability: float) -> float:
        """Seconds of silence that end a turn which is over with this probability."""
        return self.most - probability * (self.most - self.least)


@dataclass(frozen=True)
class EndpointOptions:
    """When a turn begins and ends.

    threshold: probability from which a block is voiced. release: by how much less is enough once the user speaks. The
    rest are seconds. begin: voice in a row that begins a turn. pause: silence after which the turn may be over.
    endpoint: silence that ends the turn. hold: what the detector needs to notice silence. longest: a turn at most.

    patience: the silence instead of `endpoint`, where a pause is judged; None where no pause is.

    The values were measured with 32 held-out spoken commands. After their last sound, silero's network still said
    "speech" for 62 ms (median; 104 ms at most). With this pause, one of the 32 turns was taken to be over too early,
    and none with 160 ms or more. The built-in model answers 31 of them rightly with any pause from 92 to 192 ms.
    """

    threshold: float = 0.5
    release: float = 0.15
    begin: float = 0.064
    pause: float = 0.128
    endpoint: float = 0.5
    hold: float = 0.06
    longest: float = 30.0
    patience: Patience | None = None

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
        return self.silent_blocks(self.pause)

    @property
    def endpoint_blocks(self) -> int:
        """Unvoiced blocks after which the turn is over: 14 of 32 ms."""
        return self.silent_blocks(self.endpoint)

    @property
    def longest_silence(self) -> float:
        """Seconds of silence that end any turn."""
        return self.endpoint if self.patience is None else max(self.endpoint, self.patience.most)

    def silent_blocks(self, seconds: float) -> int:
        """Unvoiced blocks after which it has been silent for so long; at least one."""
        return max(1, round((seconds - self.hold) / BLOCK_SECONDS))

    @property
    def within(self) -> float:
        """Seconds from the pause to the end of the turn: a judgement that takes longer saves nothing."""
        return (self.endpoint_blocks - self.pause_blocks) * BLOCK_SECONDS


def for_recordings(longest: float) -> EndpointOptions:
    """The options for a recording: a block is voiced from a much smaller probability on than live.

    Whispered words hardly look like speech to the network. Live they wait for the next louder word; in a recording they
    would be lost. The built-in model, as it was then, misheard 5.9 % of the words of 150 whispered commands with the
    options of live sound, and 2.5 % with these; 1.6 % and 1.6 % of the same commands said aloud, 1.5 and 1.6 % in pink
    noise of 10 dB, 1.4 and 2.1 % between two seconds of silence (`whispered` and the voices for choices, in pebble/). A
    lower threshold, and more sound on both sides, were no better.

    Args:
        longest: seconds after which a segment is cut.
    """
    return EndpointOptions(threshold=0.2, release=0.0, longest=longest)


BEFORE = 0.32
"""Seconds kept before the first voiced block: consonants begin quietly. Of 32 held-out spoken commands the built-in
model answers 31 rightly with this and the pause after the last block, and 30 with neither (chosen on these clips)."""

SUSPICIOUS = 0.15
"""Probability from which the user may be about to begin. In 32 held-out spoken commands it was reached 36 ms after the
first sound (median; 88 ms at most), and 0.5 only after 56 ms (120 ms). In music and noise, 0.4 % of the blocks reach
it."""


def blocks(seconds: float) -> int:
    """How many blocks last at least `seconds`; at least one."""
    return max(1, math.ceil(seconds / BLOCK_SECONDS - 1e-6))  # less a little: 0.064 / 0.032 may be 2.0000000000000004


class Endpointer:
    """Follows one stream of probabilities.

    number: of the next block. first, last: numbers of the first and the last voiced block of the turn so far.
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
        self._due = self._endpoint  # unvoiced blocks in a row that end the turn

    def judge(self, silence: float) -> None:
        """Say, at a pause, how many seconds of silence end the turn. It holds until the user goes on.

        No block before the next one ends it: the user may have gone on while the pause was judged.
        """
        if self.state == "paused":
            self._due = self.options.silent_blocks(silence)

    @property
    def suspecting(self) -> bool:
        """Whether the user may be about to begin."""
        return self.state == "quiet" and self._newest >= SUSPICIOUS

    def split(self, number: int) -> None:
        """After `too long`: end the turn before block `number`, a voiced one, and begin another one there."""
        # The run of unvoiced blocks goes on. It is as long as there are blocks after the last voiced one.
        self.state, self.first, self._run = "speaking", number, self.number - 1 - self.last

    def hear(self, probability: float) -> Decision | None:
        """Take the next block's probability; return what it decided."""
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
            self.state, self._due = "speaking", self._endpoint
            return "resumed"
        if self._run >= self._due:
            self.state, self._run, self._due = "quiet", 0, self._endpoint
            return "ended"
        if self.state == "speaking" and self._run >= self._pause:
            self.state = "paused"
            return "paused"
        return None


class PushToTalk:
    """An endpointer for a key instead of silence: a turn lasts from one press to the next, or as long as is allowed.

    `first` and `last` are the first and last voiced block between the presses, or all blocks if none is voiced. Of 20
    spoken commands with half a second of silence on both sides, the built-in model answers 19 rightly when it hears
    these blocks only, and none when it hears the silence too.
    """

    def __init__(self, options: EndpointOptions) -> None:
        self.options = options
        self._longest = blocks(options.longest)
        self._down = False
        self.number = 0
        self.reset()

    def judge(self, silence: float) -> None:
        """Nothing: the key ends the turn."""

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
        """Never: a press is no suspicion."""
        return False

    def hear(self, probability: float) -> Decision | None:
        """Take the next block's probability; return what it decided."""
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
