"""The live loop with its two threads: it answers, and however it ends nothing hangs and no turn is lost."""

from types import SimpleNamespace

import numpy as np
import pytest

import voxrill
from tests.talking import SPOKEN, ClipMicrophone, FakePlayer, InstantPlayer, Watcher, spoken
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK, Block
from voxrill.runtime.errors import AudioDeviceLost
from voxrill.runtime.talk import listening_thread
from voxrill.runtime.talk.events import Notice, StateChanged, UserSpeaking
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Listener
from voxrill.runtime.talk.loop import Talk, TalkOptions, TalkSinks
from voxrill.runtime.talk.responder import ResponderOptions

ASKED = [SPOKEN[0], SPOKEN[2]]
CLIPS = [spoken(clip) for clip in ASKED]
ALONE = ResponderOptions(turns=0)


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Held:
    """A talk that is set up; `turns` are those that ended."""

    def __init__(
        self, model, *clips, on=lambda _event: None, then=None, options=None, voice_activity=None, player=None
    ):
        self.turns = []
        self.watcher = Watcher(on)
        self.player = player or InstantPlayer(model.sample_rate)
        self.microphone = ClipMicrophone(self.watcher, *clips, then=then or self.close) if clips else None
        self.talk = Talk(
            model.conversation(),
            self.microphone,
            self.player,
            self.watcher,
            options or TalkOptions(ALONE),
            TalkSinks(turn=self.turns.append),
            voice_activity,
        )

    def close(self):
        self.talk.close()


def test_questions_are_answered(pebble):
    held = Held(pebble, *CLIPS)
    held.talk.run()
    assert [turn.answer.text.strip() for turn in held.turns] == [clip["reply"] for clip in ASKED]
    assert held.player.begun[0][0] is not None  # warming up measured how fast this machine is
    assert max(held.watcher.levels) > -40
    assert not held.microphone.open


@pytest.mark.parametrize("heard", [np.zeros(8000, np.float32), CLIPS[1]], ids=["nothing to say", "an answer"])
def test_warming_up_makes_sound_whatever_the_model_says_to_a_tone(pebble, heard, monkeypatch):
    monkeypatch.setattr("voxrill.runtime.talk.responder.tone", lambda: heard)
    held = Held(pebble, *CLIPS[:1])
    held.talk.run()
    assert held.player.begun[0][0] is not None
    assert [turn.answer.text.strip() for turn in held.turns] == [ASKED[0]["reply"]], "the greeting is forgotten"


@pytest.mark.parametrize("state", ["thinking", "speaking", "listening"])
def test_closing_in_every_state_keeps_the_turn(pebble, state):
    held = Held(pebble, *CLIPS, on=lambda event: event == StateChanged(state) and held.talk.close())
    held.talk.run()
    assert len(held.turns) == 1
    assert not held.microphone.open


def test_closing_while_the_user_speaks(pebble):
    held = Held(pebble, *CLIPS, on=lambda event: isinstance(event, UserSpeaking) and held.talk.close())
    held.talk.run()
    assert held.turns == []


def test_closing_before_anything_was_heard(pebble):
    held = Held(pebble)
    held.talk.close()
    held.talk.run()
    assert held.turns == []


def test_a_microphone_that_is_gone_for_good_ends_the_talk(pebble):
    def lose():
        raise AudioDeviceLost("the microphone is gone", "Plug it in")

    held = Held(pebble, CLIPS[0], then=lose)
    with pytest.raises(AudioDeviceLost, match="the microphone is gone"):
        held.talk.run()
    assert len(held.turns) == 1


def test_a_loudspeaker_that_is_gone_for_good_keeps_the_turn(pebble):
    class Leaving(InstantPlayer):
        """Is gone once it has played half a second."""

        def ensure(self):
            if self.played() > 12_000:
                raise AudioDeviceLost("the loudspeaker is gone", "Plug it in")

    held = Held(pebble, *CLIPS, player=Leaving(pebble.sample_rate))
    with pytest.raises(AudioDeviceLost, match="the loudspeaker is gone"):
        held.talk.run()
    (turn,) = held.turns
    assert 12_000 < turn.heard == len(held.player.heard[0])
    assert not held.microphone.open


def test_an_error_in_the_hearing_thread_is_not_swallowed(pebble):
    class Broken:
        def __call__(self, _samples):
            raise RuntimeError("broken on purpose")

        def reset(self):
            pass

    with pytest.raises(RuntimeError, match="broken on purpose"):
        Held(pebble, CLIPS[0], voice_activity=Broken()).talk.run()


def test_typed_questions_need_no_microphone(pebble):
    held = Held(pebble)
    held.talk.type("kitchen lights on")
    held.talk.close(finish=True)
    held.talk.run()
    assert [turn.answer.text.strip() for turn in held.turns] == ["kitchen lights on"]
    assert np.array_equal(held.player.heard[0], held.turns[0].answer.waveform())


def test_a_question_that_cannot_be_answered_is_said_to_be(npu_models):
    model = npu_models["lfm2.5"]
    held = Held(model, options=TalkOptions(ResponderOptions(budget=128, max_new_tokens=4)))
    held.talk.type("word " * 300)
    held.talk.close(finish=True)
    held.talk.run()
    assert held.turns[0].answer.tokens == []
    assert "128" not in str(held.turns[0].error) and "256" in str(held.turns[0].error)
    notices = [event.text for event in held.watcher.shown if isinstance(event, Notice)]
    assert notices[0].startswith("This could not be answered")


def test_push_to_talk_needs_no_silence(pebble):
    class Pressing:
        """Presses at the first block of the clip and at the last."""

        blocks = 0

        def __call__(self, _samples):
            self.blocks += 1
            if self.blocks in (1, 100):
                held.talk.press()
            return 0.0

        def reset(self):
            pass

    held = Held(pebble, CLIPS[0], options=TalkOptions(ALONE, push_to_talk=True), voice_activity=Pressing())
    held.talk.run()
    assert [turn.answer.text.strip() for turn in held.turns] == [SPOKEN[0]["reply"]]


def test_an_answer_is_held_at_the_first_piece_and_let_go_if_nobody_speaks():
    """A glance holds the answer before a block is whole; blocks without speech let it go on again."""
    player, now = FakePlayer(), [False]
    floor = Floor(player)
    ticket = floor.question()
    floor.begin(ticket, 0.1, 3.0)
    floor.push(ticket, np.ones(24_000, np.float32))
    listener = Listener(
        lambda _samples: 0.0, Endpointer(EndpointOptions()), floor, print, barge_in=True, begins=lambda _fresh: now[0]
    )
    assert listener.alert
    listener.glance(np.zeros(128, np.float32))
    assert not player.held
    now[0] = True
    listener.glance(np.zeros(256, np.float32))
    assert player.held
    now[0] = False
    held = []
    for number in range(5):
        listener.hear(Block(np.zeros(BLOCK, np.float32), number * BLOCK, 0.0))
        held.append(player.held)
    assert held == [True, True, True, False, False]
    floor.interrupt()
    assert not listener.alert


class Pieces:
    """A microphone that gives what it is asked for, or nothing where `gaps` say so; it counts what it is asked for."""

    def __init__(self, gaps=()):
        self.at, self.asked, self._gaps = 0, [], set(gaps)

    def read(self, _timeout, size=BLOCK):
        self.asked.append(size)
        if len(self.asked) in self._gaps:
            return None
        self.at += size
        return Block(np.arange(self.at - size, self.at, dtype=np.float32), self.at - size, float(self.at))


def test_blocks_are_whole_whatever_pieces_they_are_read_in():
    """While an answer is played, each piece is looked at. A microphone that pauses within a block loses none."""
    listener, microphone = SimpleNamespace(alert=True, glance=lambda fresh: looked.append(len(fresh))), Pieces([3, 9])
    looked, blocks = [], listening_thread._Blocks(microphone, listener)
    found = [blocks.next(), blocks.next(), blocks.next()]
    assert [block and block.at for block in found] == [None, 0, None]
    listener.alert = False
    found += [blocks.next(), blocks.next()]
    samples = np.concatenate([block.samples for block in found if block is not None])
    np.testing.assert_array_equal(samples, np.arange(len(samples)))
    assert all(len(block.samples) == BLOCK for block in found if block is not None)
    assert looked[:4] == [128, 256, 384, 512] and microphone.asked[-1] == BLOCK
