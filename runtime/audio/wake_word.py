"""The wake word: until it is heard, nothing is taken for a question.

In: blocks of the microphone. Out: of those, the ones that follow the word, while the talk is awake. It wakes with the
word, stays awake while a question is asked and answered and for some seconds after each answer, and falls asleep. A
word that is heard while awake begins the question anew, so that the word itself is never part of one. While an answer
is played, with barge-in any speech interrupts it, as without a wake word: to wait for the word would leave it sounding
for as long as the word takes to say.

The detector is microWakeWord, by way of pymicro-wakeword (Apache-2.0, its networks too; wheels for x86-64 and aarch64).
Beside openWakeWord (pyopen-wakeword), four words that both have, in 11 voices of flite and espeak-ng, each at its own
threshold: it knew 33 of 44 (28), and 17 of 44 (16) with a command run on without a pause; a false alarm was none over
the 44 held-out clips (none), and 13 times in 360 trials of phrases made to confuse it (6); a second of sound took 2 ms
of processor time (66); its wheel has 2 MB (7). openWakeWord's own networks are published as CC BY-NC-SA, not for trade.
"okay nabu", "hey mycroft" and "alexa" were known in 9, 9 and 10 of the voices, "hey jarvis" in 5 (openWakeWord: 11).
No person's voice was tried.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from voxrill.runtime.audio.endpointing import blocks
from voxrill.runtime.audio.protocols import Block, Floats
from voxrill.runtime.errors import UsageError, needs_extra

FOLLOW_UP = 8.0
"""Seconds after the word, and after each answer, in which a question may begin without the word."""

BEHIND, AHEAD = 0.25, 0.3
"""Seconds before and after the block in which the word is known, among which its end is looked for.

It became known from 0.3 s before its end to 0.4 s after. Of two commands in 11 voices that followed by 0.1 or 0.25 s,
the built-in model then wrote down 120 of 121 rightly (of 161 with those that followed at once 149; from the moment
itself on 146; with nothing looked for after it 142; all 161 if cut by hand)."""

AGAIN = blocks(0.7)
"""Blocks in which the word must not have been known, for it to be known again; one saying was known and lost and known
again after up to 0.5 s."""

LIST = "list"
"""The name with which the words are asked for."""


class WordDetector(Protocol):
    """Anything that knows a word, block by block."""

    name: str

    def __call__(self, samples: Floats) -> bool:
        """Whether the word became known with the stream's next samples (512,)."""

    def reset(self) -> None:
        """Forget what was heard."""


class WakeWord:
    """One stream's detector of one of `wake_words()`.

    Raises:
        MissingDependency: the extra `wake` is not installed.
        UsageError: there is no such word; the message lists those there are.
    """

    def __init__(self, name: str) -> None:
        package = _package()
        words = wake_words()
        chosen = name.casefold().replace(" ", "_")
        if chosen not in words:
            raise UsageError(f"there is no wake word {name!r}", f"Give one of: {', '.join(words)}")
        self.name = chosen
        self._package = package
        self._below = AGAIN
        self._detector = package.MicroWakeWord.from_builtin(package.Model(chosen))
        self.reset()

    def __call__(self, samples: Floats) -> bool:
        """Whether the word became known with `samples` (512,), the stream's next."""
        heard = (np.clip(samples, -1, 1) * np.iinfo(np.int16).max).astype("<i2").tobytes()
        above = [self._detector.process_streaming(features) for features in self._features.process_streaming(heard)]
        self._below += 1
        if not any(above):
            return False
        known, self._below = self._below > AGAIN, 0
        return known

    def reset(self) -> None:
        """Forget what was heard."""
        self._features = self._package.MicroWakeWordFeatures()
        self._detector.reset()
        self._below = AGAIN


def wake_words() -> tuple[str, ...]:
    """The words there are.

    Raises:
        MissingDependency: the extra `wake` is not installed.
    """
    return tuple(sorted(model.value for model in _package().Model))


def _package() -> Any:
    with needs_extra("wake", "pymicro-wakeword"):
        import pymicro_wakeword
    return pymicro_wakeword


class Waking:
    """Lets blocks through while awake, from the wake word's end on.

    Args:
        detector: knows the word.
        follow_up: seconds that it stays awake while nothing is said and nothing is answered.
    """

    def __init__(self, detector: WordDetector, follow_up: float = FOLLOW_UP) -> None:
        if follow_up <= 0:
            raise UsageError(f"the follow-up window is {follow_up:g} s", "Give more than 0 seconds")
        self._detector = detector
        self._follow_up = blocks(follow_up)
        self._ahead = blocks(AHEAD)
        self._recent: deque[Block] = deque(maxlen=blocks(BEHIND) + self._ahead)
        self._left = 0  # blocks until it is asleep, 0 if it is
        self._until_end = 0  # blocks until the word's end is looked for, 0 if no word was heard

    @property
    def word(self) -> str:
        """The word that is waited for."""
        return self._detector.name.replace("_", " ")

    @property
    def awake(self) -> bool:
        """Whether what is heard counts."""
        return self._left > 0

    def hears_word(self, block: Block) -> bool:
        """Take the next block; whether the word became known with it."""
        self._recent.append(block)
        known = self._detector(block.samples)
        if known:
            self._left, self._until_end = self._follow_up, self._ahead + 1
        return known

    def let_through(self, busy: bool) -> list[Block]:
        """What now counts of the blocks so far: the newest while awake, more of them when the word's end is found.

        Args:
            busy: a question is being asked or answered, so that this is no time to fall asleep.
        """
        if not self._left:
            return []
        self._left = self._follow_up if busy or self._until_end else self._left - 1
        if not self._until_end:
            return [self._recent[-1]] if self._left else []
        self._until_end -= 1
        return [] if self._until_end else after_word(self._recent)

    def reset(self) -> None:
        """The blocks to come do not follow those before: forget a word half heard."""
        self._detector.reset()
        self._recent.clear()
        self._until_end = 0


def after_word(around: Sequence[Block]) -> list[Block]:
    """Of the blocks around the moment in which the word was known, those from its end on: from the quietest of them."""
    power = [float(np.square(block.samples, dtype=np.float64).sum()) for block in around]
    return list(around)[int(np.argmin(power)) :]
