"""Listening: blocks of the microphone in, what the user does out.

It runs in a thread of its own, so that it hears while the model computes. It never touches the model, and the player
only to hold or stop it. Blocks are counted from 0 as they are heard. Gaps are filled with a little silence, so that a
turn ends as usual when the device is lost in its middle.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import BEFORE, Decision, Endpointer, PushToTalk, blocks
from voxrill.runtime.audio.level import CLIPPED
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, Block, Floats
from voxrill.runtime.audio.voice_activity import VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.talk.events import Notice, StateChanged, TalkEvent, UserSpeaking
from voxrill.runtime.talk.floor import Floor

_DOUBT = 3
"""Blocks for which an answer is held because somebody seems to begin: speech that was noticed after 8 ms has made the
network suspicious by then."""

_CLIPPED_BLOCKS = 8
"""Blocks of a turn that hold clipped samples before the user is told."""


@dataclass(frozen=True)
class Utterance:
    """What the user said.

    samples: (n,) at 16 kHz. start, end: their place in all that was heard, in samples. voice_end: when the last voiced
    block was captured, seconds. woke: when the wake word before it was heard, seconds; None if it needed none.
    """

    samples: Floats
    start: int
    end: int
    voice_end: float
    woke: float | None = None


@dataclass(frozen=True)
class Began:
    """The user began to speak. anew: what was heard before belongs to no question."""

    anew: bool = True


@dataclass(frozen=True)
class Heard:
    """More of what the user is saying: samples (n,) at 16 kHz, and their place in the next `Paused`'s utterance."""

    samples: Floats
    at: int

    def after(self, known: int) -> Floats:
        """Those after the first `known` samples of the utterance; none if some before them are not known."""
        return self.samples[max(0, known - self.at) :] if known >= self.at else self.samples[:0]


@dataclass(frozen=True)
class Paused:
    """A short silence: the turn may be over."""

    utterance: Utterance
    at: float


@dataclass(frozen=True)
class Resumed:
    """The turn was not over: the user speaks again."""


@dataclass(frozen=True)
class Ended:
    """The turn is over, and its answer is due under `ticket`. The utterance is that of the pause before."""

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
    """The user typed something. utterance: what was said before it, as part of the same question."""

    text: str
    at: float
    utterance: Utterance | None = None


@dataclass(frozen=True)
class Recited:
    """The program wants a sentence said."""

    text: str
    at: float


@dataclass(frozen=True)
class Woke:
    """The wake word became known with sample `end`."""

    end: int


@dataclass(frozen=True)
class Slept:
    """From sample `end` on the wake word is needed again: nothing was asked for too long."""

    end: int


@dataclass(frozen=True)
class Closed:
    """The talk ends. error: the reason; None if the user wants it. finish: an answer is still played to its end."""

    error: Exception | None = None
    finish: bool = False


Signal = Began | Heard | Paused | Resumed | Ended | Interrupted | Typed | Recited | Closed

WakeChange = Woke | Slept


class Listener:
    """Follows the microphone.

    Args:
        voice_activity: the probability of speech of the stream's next samples (512,), and its `reset`.
        endpointer: decides when turns begin and end.
        floor: knows whether an answer is being played, and is told when the user interrupts.
        post: takes signals and changes between sleep and waking; it carries them to the answering thread.
        show: takes what the user should see.
        barge_in: listen while an answer is played; otherwise the microphone is ignored until `tail` seconds after.
        clock: seconds.
        waking: passes on what is to be listened to; None for all.
        before: seconds that are kept before the first voiced block.
        streams: whether to post what the user says while it is said; asked at each block, so that nothing piles up
            where it is not taken. What was not posted comes with the next post.
        begins: whether somebody seems to begin in the samples (n,) of the block under way; None to look at whole
            blocks only.
        judge: says at a pause whether the turn is over; None where silence alone decides.
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
        before: float = BEFORE,
        begins: Callable[[Floats], bool] | None = None,
        judge: PauseJudge | None = None,
        streams: Callable[[], bool] = lambda: False,
    ) -> None:
        self._streams = streams
        self._streamed = 0  # the endpointer's number of the first block that was not posted yet
        self._begins = begins
        self._doubted = 0  # blocks for which an answer is still held on suspicion
        self._voice_activity = voice_activity
        self._floor = floor
        self._post = post
        self._show = show
        self._barge_in = barge_in
        self._tail = blocks(tail)
        self._clock = clock
        self._waking = waking
        self._woke: float | None = None
        self._judge = judge
        self._endpointer = endpointer
        self._before = blocks(before)
        self._after = endpointer.options.pause_blocks
        self._kept: deque[tuple[int, Block]] = deque()
        self._number = 0
        self._expected = 0
        self._deaf = 0  # blocks that are still ignored after an answer was played
        self._clipped = 0

    def hear(self, block: Block) -> list[Floats]:
        """Take the next block; the samples that count as heard, with silence in place of a gap."""
        gap = (block.at - self._expected) // BLOCK if self._expected else 0  # whole blocks that were lost
        self._expected = block.at + BLOCK
        silence = np.zeros(BLOCK, np.float32)
        # Enough silence to end a turn, however long the gap was: nobody can go on with it after hours.
        options = self._endpointer.options
        fill = [silence] * min(gap, options.silent_blocks(options.longest_silence) + 1)
        if gap:
            self._show(Notice(f"The microphone gave no sound for {gap * BLOCK_SECONDS:.1f} seconds"))
        for samples in (*fill, block.samples):
            self._hear(Block(samples, self._number * BLOCK, block.captured))
            self._number += 1
        return [*fill, block.samples]

    @property
    def alert(self) -> bool:
        """Whether each piece of a block is to be looked at: an answer is played, and the user may interrupt it."""
        looks = self._barge_in and self._begins is not None and self._endpointer.state == "quiet"
        return looks and self._floor.sounding()

    def glance(self, fresh: Floats) -> None:
        """Have a look at the samples so far (n,) of the block under way: hold the answer if somebody seems to begin."""
        awake = self._waking is None or self._waking.awake
        if awake and self._begins is not None and self._begins(fresh):
            self._doubted = _DOUBT
            self._floor.hold(True)

    def begin(self) -> None:
        """Show what the listener waits for."""
        if self._waking is not None:
            self._show(Notice(f'Waiting for "{self._waking.word}"'))
            self._show(StateChanged("asleep"))

    def hear_nothing(self) -> None:
        """There is no block. An answer that is held because the user seemed to begin goes on."""
        self._floor.hold(False)

    def end(self) -> bool:
        """End the user's turn here, without waiting for silence. Returns whether there was one."""
        if self._endpointer.state not in ("speaking", "paused"):
            return False
        self._decide("ended")
        self._forget()
        return True

    def _hear(self, block: Block) -> None:
        if self._is_deaf():
            return
        for awaited in [block] if self._waking is None else self._let_through(self._waking, block):
            self._attend(awaited)

    def _let_through(self, waking: Waking, block: Block) -> list[Block]:
        """The blocks to listen to, now that this one was heard."""
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
        """The wake word was heard. What was said before it is not a question, nor is the word itself."""
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
        if decision == "began":
            self._streamed = 0
        if decision != "began":  # then the answer is stopped below, and holding it could let it go on for a moment
            self._floor.hold(self._endpointer.suspecting or self._doubted > 0)
        self._doubted = max(0, self._doubted - 1)
        self._watch_clipping(block)
        if decision in ("paused", "too long") and self._streams():
            self._stream()  # this block belongs to the utterance, too
        if decision is not None:
            self._decide(decision)
        if self._endpointer.state == "speaking" and self._streams():
            self._stream()
        if self._endpointer.state in ("quiet", "noisy"):
            # Keep what a turn that begins with the next block would need: its first voiced blocks, and those before.
            while len(self._kept) > self._before + blocks(self._endpointer.options.begin):
                self._kept.popleft()
        elif self._number % 8 == 0:  # four times a second
            spoken = self._endpointer.last - self._endpointer.first + 1
            self._show(UserSpeaking(spoken * BLOCK_SECONDS))

    def _is_deaf(self) -> bool:
        """Whether to ignore this block, because the loudspeaker is heard in it, or was a moment ago."""
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
            if heard is not None:  # before `Began`, at which an answer that is still there counts as heard to its end
                self._post(Interrupted(heard, now))
            self._post(Began())
        elif decision == "paused":
            utterance = self._utterance()
            self._post(Paused(utterance, now))
            self._judge_pause(utterance)
        elif decision == "resumed":
            self._post(Resumed())
        else:
            # The ticket is taken in this thread: sound of the answer before is worthless from this moment on.
            self._post(Ended(self._utterance(), now, self._floor.question(), decision == "too long"))
            self._woke = None

    def _judge_pause(self, utterance: Utterance) -> None:
        """Ask whether the turn is over. Blocks wait meanwhile, while the answering thread begins the answer."""
        if self._judge is None:
            return
        silence = self._judge(utterance.samples, self._endpointer.options)
        if silence is not None:
            self._endpointer.judge(silence)

    def _stream(self) -> None:
        """Post what the user said since it was posted last: from a little before the first voiced block on."""
        said = [(number, block.samples) for number, block in self._kept if number >= self._since]
        new = [(number, samples) for number, samples in said if number >= self._streamed]
        if new:
            self._streamed = new[-1][0] + 1
            self._post(Heard(np.concatenate([samples for _, samples in new]), (new[0][0] - said[0][0]) * BLOCK))

    @property
    def _since(self) -> int:
        """The number of the block with which the utterance begins, if it was kept."""
        return self._endpointer.first - self._before

    def _utterance(self) -> Utterance:
        """From a little before the first voiced block to the end of the pause after the last."""
        last = self._endpointer.last
        kept = [(number, block) for number, block in self._kept if self._since <= number <= last + self._after]
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
