"""The wake word: nothing is taken for a question before it was heard.

In: blocks of the microphone. Out: the blocks that follow the word, while the talk is awake. The word wakes the talk. It
stays awake while a question is asked and answered, and for some seconds after each answer; then it falls asleep. If the
word is heard while the talk is awake, the question begins again, so that the word itself is never part of a question.
With barge-in, any speech interrupts an answer, as without a wake word: if only the word did, the answer would go on for
as long as it takes to say the word.

The detector is microWakeWord, from the package pymicro-wakeword (Apache-2.0, its networks too; wheels for x86-64 and
aarch64). It was compared with openWakeWord (package pyopen-wakeword) on the four words that both have, in 11 voices of
flite and espeak-ng, each at its own threshold:

    |                                                        | microWakeWord | openWakeWord |
    | words recognised, of 44                                |            33 |           28 |
    | with a command right behind the word, of 44            |            17 |           16 |
    | false alarms in the 44 held-out clips                  |             0 |            0 |
    | false alarms in 360 trials of phrases meant to confuse |            13 |            6 |
    | processor time for a second of sound, ms               |             2 |           66 |
    | size of the wheel, MB                                  |             2 |            7 |

openWakeWord's own networks are published under CC BY-NC-SA, which forbids commercial use. "okay nabu", "hey mycroft"
and "alexa" were recognised in 9, 9 and 10 of the voices, "hey jarvis" in 5 (openWakeWord: 11). No person's voice was
tried.
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
"""Seconds before and after the block in which the word is recognised; the end of the word is looked for among them.

Words were recognised from 0.3 s before their end to 0.4 s after it. Then two commands followed, in 11 voices. When they
followed by 0.1 or 0.25 s, the built-in model transcribed 120 of 121 rightly. When some of them followed at once, it was
149 of 161. It was 146 when the sound was cut at the moment of recognition, 142 when the end was not looked for after
that moment, and 161 when the word was cut off by hand."""

AGAIN = blocks(0.7)
"""Blocks without the word after which it may be recognised again. A word that was said once was recognised, lost and
recognised again within 0.5 s."""

LIST = "list"
"""As a word: list the words there are."""


class WordDetector(Protocol):
    """Recognises a word, block by block."""

    name: str

    def __call__(self, samples: Floats) -> bool:
        """Take the stream's next samples (512,); return whether the word was recognised with them."""

    def reset(self) -> None:
        """Forget what was heard."""


class WakeWord:
    """The detector of one stream for one of `wake_words()`.

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
        """Take the stream's next `samples` (512,); return whether the word was recognised with them."""
        # Its features are computed from 16-bit samples. They come every 10 ms: several for one block, or none.
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
    """The words that can be recognised.

    Raises:
        MissingDependency: the extra `wake` is not installed.
    """
    return tuple(sorted(model.value for model in _package().Model))


def _package() -> Any:
    with needs_extra("wake", "pymicro-wakeword"):
        import pymicro_wakeword
    return pymicro_wakeword


class Waking:
    """Lets blocks through while the talk is awake, from the end of the wake word on.

    Args:
        detector: recognises the word.
        follow_up: seconds for which the talk stays awake while nothing is said or answered.
    """

    def __init__(self, detector: WordDetector, follow_up: float = FOLLOW_UP) -> None:
        if follow_up <= 0:
            raise UsageError(f"the follow-up window is {follow_up:g} s", "Give more than 0 seconds")
        self._detector = detector
        self._follow_up = blocks(follow_up)
        self._ahead = blocks(AHEAD)
        self._recent: deque[Block] = deque(maxlen=blocks(BEHIND) + self._ahead)
        self._left = 0  # blocks until the talk falls asleep; 0: it is asleep
        self._until_end = 0  # blocks until the word's end is looked for; 0: no word was heard

    @property
    def word(self) -> str:
        """The wake word."""
        return self._detector.name.replace("_", " ")

    @property
    def awake(self) -> bool:
        """Whether the talk is awake."""
        return self._left > 0

    def hears_word(self, block: Block) -> bool:
        """Take the next block; return whether the word was recognised with it."""
        self._recent.append(block)
        known = self._detector(block.samples)
        if known:
            # `let_through` counts this block too: one more than the blocks that are to follow.
            self._left, self._until_end = self._follow_up, self._ahead + 1
        return known

    def let_through(self, busy: bool) -> list[Block]:
        """The blocks that are let through now: the newest one, or several when the end of the word is found.

        Args:
            busy: a question is being asked or answered, so that the talk must not fall asleep.
        """
        if not self._left:
            return []
        self._left = self._follow_up if busy or self._until_end else self._left - 1
        if not self._until_end:
            return [self._recent[-1]] if self._left else []
        self._until_end -= 1
        return [] if self._until_end else after_word(self._recent)

    def reset(self) -> None:
        """The next block does not follow the ones before: forget the half of a word."""
        self._detector.reset()
        self._recent.clear()
        self._until_end = 0


def after_word(around: Sequence[Block]) -> list[Block]:
    """The blocks from the end of the word on, among those around its recognition: it ends in the quietest one."""
    power = [float(np.square(block.samples, dtype=np.float64).sum()) for block in around]
    return list(around)[int(np.argmin(power)) :]
