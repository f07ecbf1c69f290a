"""A talk without sound card, threads or waiting: a clock that is turned by hand, a player that only counts.

In: what the user says and when. Out: what was shown, kept and played. One block of 32 ms passes at a time: the player
plays that much, the listener hears it, the responder does as many steps as it is given.
"""

import json
import time
from dataclasses import dataclass, field

import numpy as np

from tests.places import ROOT
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, Block
from voxrill.runtime.audio.voice_activity import VoiceActivity
from voxrill.runtime.talk.events import AssistantSaid, Notice, TurnEnded
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Listener
from voxrill.runtime.talk.responder import Responder, ResponderOptions

CLIPS = ROOT / "tests" / "pebble"
HELD_OUT = json.loads((CLIPS / "held_out.json").read_text(encoding="utf-8"))
SPOKEN = [clip for clip in HELD_OUT if clip["kind"] in ("known", "new")]


def spoken(clip):
    """A held-out clip's samples at 16 kHz."""
    return read_audio(CLIPS / clip["file"])


def silence(seconds):
    return np.zeros(round(seconds * 16_000), np.float32)


class FakePlayer:
    """Counts what it is given, and plays when time passes."""

    def __init__(self, rate=24_000):
        self.rate = rate
        self.begun = []  # what each reply was begun with
        self.heard = []  # each reply's samples that were played
        self.held = False
        self._queue = np.zeros(0, np.float32)
        self._finished = True
        self._underruns = 0

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def begin(self, rate, expected_seconds):
        self.begun.append((rate, expected_seconds))
        self.heard.append(np.zeros(0, np.float32))
        self._queue, self._finished, self._underruns = np.zeros(0, np.float32), False, 0
        self.held = False

    def push(self, samples):
        assert not self._finished
        self._queue = np.concatenate([self._queue, samples])

    def finish(self):
        self._finished = True

    def hold(self, held):
        self.held = held

    def ensure(self):
        pass

    def stop(self):
        self._queue, self._finished = np.zeros(0, np.float32), True
        return self.played()

    def played(self):
        return len(self.heard[-1]) if self.heard else 0

    def underruns(self):
        return self._underruns

    def busy(self):
        return bool(len(self._queue)) or not self._finished

    def first_queued(self):
        return 1.0

    def first_played(self):
        return 2.0

    def play(self, seconds):
        """Time passes."""
        count = round(seconds * self.rate)
        if not self.heard or self.held:
            return
        self._underruns += not self._finished and bool(self.played()) and len(self._queue) < count
        self.heard[-1] = np.concatenate([self.heard[-1], self._queue[:count]])
        self._queue = self._queue[count:]


@dataclass
class Scene:
    """A talk with `model`; `steps` is how much the responder does while a block of 32 ms passes."""

    model: object
    mind_options: ResponderOptions = field(default_factory=lambda: ResponderOptions(turns=0))
    endpointer: object = None
    barge_in: bool = False
    steps: int = 1000
    voice_activity: object = None
    waking: object = None
    judge: object = None
    shown: list = field(default_factory=list)
    turns: list = field(default_factory=list)

    def __post_init__(self):
        self.now = 0.0
        self.blocks = []
        self.player = FakePlayer(self.model.sample_rate)
        self.floor = Floor(self.player)
        self.conversation = self.model.conversation()
        self.signals = []
        self.responder = Responder(
            self.conversation,
            self.player,
            self.floor,
            self.shown.append,
            self.turns.append,
            self.mind_options,
            clock=lambda: self.now,
            cpu=lambda: self.now,
        )
        self.listener = Listener(
            self.voice_activity or VoiceActivity(),
            self.endpointer or Endpointer(EndpointOptions()),
            self.floor,
            self._post,
            self.shown.append,
            self.barge_in,
            clock=lambda: self.now,
            waking=self.waking,
            judge=self.judge,
        )

    def _post(self, signal):
        self.signals.append(signal)
        self.responder.inbox.put(signal)

    def pass_block(self, samples):
        """32 ms pass."""
        self.now += BLOCK_SECONDS
        self.player.play(BLOCK_SECONDS)
        block = Block(samples, BLOCK * len(self.blocks), self.now)
        self.blocks.extend(self.listener.hear(block))
        for _ in range(self.steps):
            if not self.responder.step():
                break

    def hear(self, *sounds):
        """The user makes these sounds (samples,), one after the other."""
        sound = np.concatenate(sounds)
        for start in range(0, len(sound) - BLOCK + 1, BLOCK):
            self.pass_block(sound[start : start + BLOCK])

    def hear_until(self, done, seconds=20.0):
        """It is silent until `done()`."""
        for _ in range(round(seconds / BLOCK_SECONDS)):
            if done():
                return
            self.hear(silence(BLOCK_SECONDS))
        raise AssertionError(f"still not after {seconds} s")

    def ask(self, clip):
        """Say a clip and listen to the answer; the turn."""
        count = len(self.turns)
        self.hear(silence(0.5), spoken(clip))
        self.hear_until(lambda: len(self.turns) > count)
        return self.turns[-1]

    def notices(self):
        return [event.text for event in self.shown if isinstance(event, Notice)]

    def said(self):
        return "".join(event.piece for event in self.shown if isinstance(event, AssistantSaid))

    def traces(self):
        return [event.trace for event in self.shown if isinstance(event, TurnEnded)]


class InstantPlayer(FakePlayer):
    """Has played what it is given at once."""

    def begin(self, rate, expected_seconds):
        super().begin(rate, expected_seconds)
        self.began = time.perf_counter()

    def push(self, samples):
        super().push(samples)
        self.play(len(samples) / self.rate)

    def first_queued(self):
        return self.began

    def first_played(self):
        return self.began


class Watcher:
    """A view that keeps what it is shown, and calls `on` with it."""

    def __init__(self, on=lambda _event: None):
        self.shown = []
        self.levels = []
        self.on = on

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def show(self, event):
        self.shown.append(event)
        self.on(event)

    def level(self, dbfs):
        self.levels.append(dbfs)

    def ended(self):
        return sum(isinstance(event, TurnEnded) for event in self.shown)


class ClipMicrophone:
    """Hears clips as fast as it is read, each after the turn before has ended; then `then()` is called for ever."""

    def __init__(self, watcher, *clips, then=lambda: None):
        self._watcher = watcher
        self._then = then
        self._clips = [np.concatenate([silence(0.5), clip, silence(0.8)]) for clip in clips]
        self._begun = 0
        self._left = np.zeros(0, np.float32)
        self._at = 0
        self.open = False

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *_error):
        self.open = False

    def read(self, timeout, size=BLOCK):
        if len(self._left) < size:
            if self._watcher.ended() < self._begun:
                time.sleep(min(timeout, 0.002))
                return None
            if self._begun == len(self._clips):
                self._then()
                time.sleep(min(timeout, 0.002))
                return None
            self._left = self._clips[self._begun]
            self._begun += 1
        block = Block(self._left[:size], self._at, time.perf_counter())
        self._left, self._at = self._left[size:], self._at + size
        return block


WORD = np.full(BLOCK * 10, 0.0625, np.float32)
"""What the fake detector knows, in the last of its blocks."""


class FakeDetector:
    """Knows `WORD` by its samples."""

    name = "the_word"

    def __init__(self):
        self._heard = 0
        self.resets = 0

    def __call__(self, samples):
        self._heard = self._heard + 1 if np.array_equal(samples, WORD[:BLOCK]) else 0
        return self._heard == len(WORD) // BLOCK

    def reset(self):
        self._heard = 0
        self.resets += 1
