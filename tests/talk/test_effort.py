"""What is given up when sound is made too slowly: in order, told, and so that it has no gaps."""

import numpy as np
import pytest

import voxrill
from tests.talking import SPOKEN, Scene
from voxrill.runtime.audio.jitter import CAUTION, JitterPolicy
from voxrill.runtime.audio.reply_sound import ReplySound
from voxrill.runtime.talk.effort import PATIENCE, SETTLED, SMALLER, Effort

RATE, TICK, FRAME = 1000, 0.01, 0.08
SECONDS = 6.0


def simulate(told, rate):
    """Play a reply that is really made at `rate`: seconds until it sounds, and times that it ran dry."""
    sound = ReplySound(RATE, JitterPolicy(*told))
    out = np.empty(round(RATE * TICK), np.float32)
    made, started = 0, None
    for tick in range(round(60 / TICK)):
        now = tick * TICK
        while made < round(SECONDS / FRAME) and now >= (made + 1) * FRAME * rate:
            sound.push(np.ones(round(RATE * FRAME), np.float32))
            made += 1
            if made == round(SECONDS / FRAME):
                sound.finish(np.empty(0, np.float32))
        if sound.fill(out) and started is None:
            started = now
        if sound.over:
            return started, sound.underruns
    raise AssertionError("it never ended")


@pytest.mark.parametrize(
    ("rate", "rung"),
    [(None, "as usual"), (0.3, "as usual"), (1.3, "as usual"), (1.5, "smaller target"), (2.0, "text first")],
)
def test_the_order_in_which_things_are_given_up(rate, rung):
    effort = Effort()
    effort.adapt(rate, SECONDS)
    assert effort.rung == rung


def test_a_rung_is_told_once():
    effort = Effort()
    told = [effort.adapt(rate, SECONDS) for rate in (0.5, 1.5, 1.5, 2.0, 2.1, 0.5)]
    assert [bool(sentence) for sentence in told] == [False, True, False, True, False, True]
    assert "1.5 s of work" in told[1] and "read answers first" in told[3] and "as usual" in told[5]


def test_what_the_player_is_told():
    effort = Effort()
    assert effort.told(None, 3.0) == (None, 3.0)
    effort.adapt(1.5, SECONDS)
    assert effort.told(1.5, SECONDS) == (1.5, SMALLER * SECONDS)
    effort.adapt(2.0, SECONDS)
    assert effort.told(2.0, SECONDS) == (2.0 * CAUTION, SECONDS)


def test_the_smaller_target_begins_sooner_and_pauses_once():
    effort = Effort()
    effort.adapt(1.5, SECONDS)
    usual, small = simulate((1.5, SECONDS), 1.5), simulate(effort.told(1.5, SECONDS), 1.5)
    assert usual[1] == 0 and small[1] == 1
    assert small[0] <= PATIENCE + FRAME < usual[0]


def test_text_first_bears_a_machine_that_slows_down():
    effort = Effort()
    effort.adapt(2.0, SECONDS)
    started, underruns = simulate(effort.told(2.0, SECONDS), 3.5)
    assert underruns == 0 and started < SECONDS * 3.5
    assert simulate((2.0, SECONDS), 3.5)[1] > 0


@pytest.mark.parametrize("rate", [0.9, 2.5, 5.0])
def test_whole_sound_never_stutters_however_slow_the_machine_becomes(rate):
    effort = Effort()
    effort.played(1)
    effort.adapt(0.9, SECONDS)
    started, underruns = simulate(effort.told(0.9, SECONDS), rate)
    assert underruns == 0 and started >= SECONDS * rate - FRAME


def test_after_running_dry_sound_is_whole_until_that_is_mended():
    effort = Effort()
    rungs = []
    for underruns in (0, 1, *[0] * SETTLED, 0):
        effort.adapt(0.9, SECONDS)
        rungs.append(effort.rung)
        effort.played(underruns)
    assert rungs == ["as usual"] * 2 + ["sound when whole"] * SETTLED + ["as usual"]


def test_running_dry_before_anything_was_measured():
    effort = Effort()
    effort.played(1)
    assert "read answers first" in effort.adapt(None, 3.0)


def test_a_model_that_slows_down_is_told_of_and_says_the_same():
    """Every step of the responder takes longer from one question to the next, on its own clock."""
    scene = Scene(voxrill.load(threads=1))
    cost, elapsed = [0.0], [0.0]

    def clock():
        elapsed[0] += cost[0]
        return scene.now + elapsed[0]

    scene.responder._clock = clock
    turns = []
    for cost[0] in (0.01, 0.2, 0.2, 0.01, 0.01):
        turns.append(scene.ask(SPOKEN[0]))
    assert len({turn.answer.text for turn in turns}) == 1
    rates = [rate for rate, _ in scene.player.begun]
    assert rates[0] is None and rates[2] > 3 > rates[4]
    assert ["read answers first" in notice for notice in scene.notices()] == [True, False]
