"""Hearing: blocks of the microphone in, what the user does out.

Runs in a thread of its own, so that it hears while the model computes. It touches the model never, the player only to
stop it. Blocks are counted as they are heard, from 0, and gaps are filled with a little silence, so that a turn which
a lost device cuts off ends like any other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.endpointing import Decision, Endpointer, PushToTalk, blocks
from voxrill.runtime.audio.level import CLIPPED
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, Block, Floats
from voxrill.runtime.audio.voice_activity import VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.talk.events import Notice, StateChanged, TalkEvent, UserSpeaking
from voxrill.runtime.talk.floor import Floor

BEFORE = 0.32
"""Seconds kept before the first voiced block: consonants begin quietly. Of 32 held-out spoken commands the built-in
model answers 31 rightly with this and the pause after the last block, and 30 with neither (chosen on these clips)."""

_CLIPPED_BLOCKS = 8
"""Blocks of a turn with clipped samples from which the user is told."""


@dataclass(frozen=True)
class Utterance:
    """What the user said: samples (n,) at 16 kHz, heard from sample `start` to `end`; voiced until `voice_end` s.

    woke: when the wake word before it was heard, seconds; None if it needed none.
    """

    samples: Floats
    start: int
    end: int
    voice_end: float
    woke: float | None = None


@dataclass(frozen=True)
class Began:
    """The user began to speak."""


@dataclass(frozen=True)
class Paused:
    """A short silence: the turn may be over."""

    utterance: Utterance
    at: float


@dataclass(frozen=True)
class Resumed:
    """It was not over."""


@dataclass(frozen=True)
class Ended:
    """The turn is over, and its answer due under `ticket`. An utterance that `paused` before is the very same."""

    utterance: Utterance
    at: float
    ticket: int
    cut_off: bool = False


@dataclass(frozen=True)
class Interrupted:
    """The user took the floor; `heard` samples of the answer had been played."""

    heard: int
    at: float


@dataclass(frozen=True)
class Typed:
    """The user typed something."""

    text: str
    at: float


@dataclass(frozen=True)
class Woke:
    """The wake word became known with sample `end`."""

    end: int


@dataclass(frozen=True)
class Slept:
    """Nothing was asked for so long, until sample `end`, that the wake word is needed again."""

    end: int


@dataclass(frozen=True)
class Closed:
    """Nothing more will be heard; `error` says why, None if it was wished. `finish`: an answer is still played."""

    error: Exception | None = None
    finish: bool = False


Signal = Began | Paused | Resumed | Ended | Interrupted | Typed | Closed

WakeChange = Woke | Slept


class Listener:
    """Follows the microphone.

    Args:
        voice_activity: the probability of speech of the stream's next samples (512,), and its `reset`.
        endpointer: decides when turns begin and end.
        floor: what is asked whether an answer is being played, and told when the user interrupts.
        post: takes each signal to the thinking thread, and each change between sleep and waking.
        show: takes what the user should see.
        barge_in: listen while an answer is played; otherwise the microphone is ignored until `tail` seconds after.
        clock: seconds.
        waking: lets through what is to be listened to; None for all.
    """

    def __init__(
        self,
        voice_activity: VoiceDetector,
        endpointer: Endpointer | PushToTalk,
        floor: Floor,
        post: Callable[[Signal | WakeChange], None],
        show: Callable[[TalkEvent], None] = lambda _event: None,
        barge_in: bool = False,
        tail: float = 0.25,
        clock: Callable[[], float] = time.perf_counter,
        waking: Waking | None = None,
    ) -> None:
        self._voice_activity = voice_activity
        self._floor = floor
        self._post = post
        self._show = show
        self._barge_in = barge_in
        self._tail = blocks(tail)
        self._clock = clock
        self._waking = waking
        self._woke: float | None = None
        self._endpointer = endpointer
        self._before = blocks(BEFORE)
        self._after = endpointer.options.pause_blocks
        self._kept: deque[tuple[int, Block]] = deque()
        self._number = 0
        self._expected = 0
        self._deaf = 0  # blocks still to be ignored after an answer was played
        self._clipped = 0

    def hear(self, block: Block) -> list[Floats]:
        """Take the next block; the samples heard, silence that stands for a gap included."""
        gap = (block.at - self._expected) // BLOCK if self._expected else 0
        self._expected = block.at + BLOCK
        silence = np.zeros(BLOCK, np.float32)
        fill = [silence] * min(gap, self._endpointer.options.endpoint_blocks + 1)
        if gap:
            self._show(Notice(f"The microphone was away for {gap * BLOCK_SECONDS:.1f} seconds"))
        for samples in (*fill, block.samples):
            self._hear(Block(samples, self._number * BLOCK, block.captured))
            self._number += 1
        return [*fill, block.samples]

    def begin(self) -> None:
        """Show what is waited for."""
        if self._waking is not None:
            self._show(Notice(f'Waiting for "{self._waking.word}"'))
            self._show(StateChanged("asleep"))

    def hear_nothing(self) -> None:
        """The microphone is away: an answer that was held because the user seemed to begin goes on."""
        self._floor.hush(False)

    def _hear(self, block: Block) -> None:
        if self._is_deaf():
            return
        for awaited in [block] if self._waking is None else self._let_through(self._waking, block):
            self._attend(awaited)

    def _let_through(self, waking: Waking, block: Block) -> list[Block]:
        """What is to be listened to, now that this block was heard."""
        if waking.hears_word(block):
            self._begin_anew(block)
        elif not waking.awake:
            return []
        busy = self._endpointer.state in ("speaking", "paused") or self._floor.answering()
        heard = waking.let_through(busy)
        if not waking.awake:
            self._woke = None
            self._post(Slept(block.at + BLOCK))
            self._show(StateChanged("asleep"))
        return heard

    def _begin_anew(self, block: Block) -> None:
        """The wake word was heard: whatever was said before it, and the word itself, is no question."""
        if self._endpointer.state == "paused":
            self._post(Resumed())
        self._forget()
        self._woke = self._clock()
        self._post(Woke(block.at + BLOCK))
        self._show(StateChanged("listening"))

    def _forget(self) -> None:
        self._endpointer.reset()
        self._voice_activity.reset()
        self._kept.clear()

    def _attend(self, block: Block) -> None:
        """Listen to a block."""
        self._kept.append((self._endpointer.number, block))
        decision = self._endpointer.hear(self._voice_activity(block.samples))
        if decision != "began":
            self._floor.hush(self._endpointer.suspecting)
        self._watch_clipping(block)
        if decision is not None:
            self._decide(decision)
        if self._endpointer.state in ("quiet", "noisy"):
            while len(self._kept) > self._before + blocks(self._endpointer.options.begin):
                self._kept.popleft()
        elif self._number % 8 == 0:
            spoken = self._endpointer.last - self._endpointer.first + 1
            self._show(UserSpeaking(spoken * BLOCK_SECONDS))

    def _is_deaf(self) -> bool:
        """Whether this block is to be ignored, because the loudspeaker is (or just was) heard in it."""
        if self._barge_in:
            return False
        if self._floor.sounding():
            self._deaf = self._tail
        elif self._deaf:
            self._deaf -= 1
            if not self._deaf:
                self._forget()
                if self._waking is not None:
                    self._waking.reset()
        return self._deaf > 0

    def _decide(self, decision: Decision) -> None:
        now = self._clock()
        if decision == "began":
            heard = self._floor.interrupt()
            if heard is not None:
                self._post(Interrupted(heard, now))
            self._post(Began())
        elif decision == "paused":
            self._post(Paused(self._utterance(), now))
        elif decision == "resumed":
            self._post(Resumed())
        else:
            self._post(Ended(self._utterance(), now, self._floor.question(), decision == "too long"))
            self._woke = None

    def _utterance(self) -> Utterance:
        """From a little before the first voiced block to the end of the pause after the last."""
        first, last = self._endpointer.first - self._before, self._endpointer.last
        kept = [(number, block) for number, block in self._kept if first <= number <= last + self._after]
        start = kept[0][1].at
        samples = np.concatenate([block.samples for _, block in kept])
        return Utterance(samples, start, start + len(samples), dict(kept)[last].captured, self._woke)

    def _watch_clipping(self, block: Block) -> None:
        if self._endpointer.state == "quiet":
            self._clipped = 0
        elif np.abs(block.samples).max() >= CLIPPED:
            self._clipped += 1
            if self._clipped == _CLIPPED_BLOCKS:
                self._show(Notice("The microphone is too loud and clips: turn it down, or speak from further away"))
