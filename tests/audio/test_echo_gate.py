"""A canceller that knows when it fails: by what it leaves, in both directions, and in simulated rooms."""

import numpy as np
import pytest

from benchmarks.talk.rooms import impulse, rooms, visit
from tests.signals import speech_like
from tests.talking import SPOKEN, spoken
from voxrill.runtime.audio.echo import FRAME, canceller
from voxrill.runtime.audio.echo_gate import FAILS, FOLLOWS, EchoGate
from voxrill.runtime.audio.protocols import RATE


def played(seconds, seed=1):
    return 0.3 * speech_like(round(seconds * RATE), seed)


def passed(gate, sound, left, near=0.0):
    """What the gate passes on while `sound` is played, if the canceller leaves `left` of it, and all of `near`."""
    near = np.zeros_like(sound) + np.asarray(near, np.float32)
    frames = range(0, len(sound) - FRAME + 1, FRAME)
    cut = [slice(at, at + FRAME) for at in frames]
    return np.concatenate([gate(sound[s], 0.5 * sound[s] + near[s], left * sound[s] + near[s]) for s in cut])


def test_it_is_closed_until_the_canceller_is_known_to_work():
    gate = EchoGate()
    assert not passed(gate, played(2.0), 0.001).any() and not gate.open
    passed(gate, played(4.0, 2), 0.001)
    assert gate.open


def test_it_closes_when_the_canceller_fails_and_opens_when_it_works_again_and_says_each_once():
    told = []
    gate = EchoGate(told.append)
    passed(gate, played(8.0), 0.001)
    assert gate.open and told == []
    for seed in range(3):
        heard = passed(gate, played(6.0, seed), 0.5)
    assert not gate.open and told == [FAILS] and not heard.any()
    for seed in range(3):
        passed(gate, played(6.0, seed), 0.001)
    assert gate.open and told == [FAILS, FOLLOWS]


def test_a_user_who_interrupts_is_heard_and_closes_nothing():
    gate, user = EchoGate(), 0.2 * speech_like(RATE // 4, 7)
    passed(gate, played(8.0), 0.001)
    heard = passed(gate, played(0.25, 3), 0.001, user)
    assert gate.open and np.mean(heard**2) > 0.5 * np.mean(user**2)


def test_while_nothing_is_played_everything_is_passed_on_untouched():
    gate, user = EchoGate(), speech_like(RATE, 7)
    np.testing.assert_array_equal(passed(gate, np.zeros(RATE, np.float32), 1.0, user), user)


def test_a_room_gives_back_a_click_after_the_way_of_its_sound():
    (room, *_) = rooms(1).values()
    response = impulse(room, room.speaker)
    metres = np.linalg.norm(np.subtract(room.speaker, room.ear))
    assert np.argmax(np.abs(response)) == round(metres / 343.0 * RATE)
    first, last = np.split(response, 2)
    assert np.sum(last**2) < 0.2 * np.sum(first**2)


@pytest.mark.parametrize("number", [0, 1, 3, 4], ids=["near", "far", "far, distorts", "wireless"])
def test_no_room_lets_an_answer_interrupt_itself(number):
    pytest.importorskip("pywebrtc_audio", reason="the echo extra is not installed")
    name, room = list(rooms().items())[number]
    sounds = [spoken(clip) for clip in SPOKEN]
    result = visit(name, room, np.concatenate(sounds), sounds[number], canceller())
    assert result.interrupted == 0
    assert result.open != room.wireless and result.heard != room.wireless
