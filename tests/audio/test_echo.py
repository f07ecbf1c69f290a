"""Echo cancellation through a loudspeaker and a microphone, with a synthetic room between them."""

import sys

import numpy as np
import pytest

from tests.signals import integers, speech_like
from tests.sound_cards import FakeSounddevice, card
from voxrill.runtime.audio.echo import LATE, EchoCancellingMicrophone, canceller
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.protocols import BLOCK, RATE
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.errors import MissingDependency

PERIOD = RATE // 100
SECONDS = 8


def room(delay=0.06, gain=0.5, reverberation=0.2):
    """A room's impulse response at 16 kHz: a direct sound and a decaying tail."""
    start, length = round(delay * RATE), RATE // 4
    response = np.zeros(length)
    time = np.arange(length - start) / RATE
    noise = integers(len(time), 5) / 2.0**31 - 1.0
    response[start:] = 0.2 * noise * 10 ** (-3 * time / reverberation)
    response[start] = 1.0
    return gain * response / np.linalg.norm(response)


def conversation(cancel, near, gate=None):
    """All that is heard while 8 s of speech are played and `near` is said: what arrives, and what is left of it."""
    backend = FakeSounddevice(card("Both", 1, 1))
    system = AudioSystem(backend, backend.clock)
    played, arrives, left = [np.zeros(RATE // 4)], [], []
    with Speaker(system, RATE, tapped=True) as speaker:
        microphone = EchoCancellingMicrophone(DeviceMicrophone(system), speaker, cancel, gate)
        with microphone:
            speaker.begin(0.1, SECONDS)
            speaker.push(speech_like(SECONDS * RATE, 1))
            for at in range(0, SECONDS * RATE, PERIOD):
                played.append(backend.stream("output").play()[:, 0])
                sounded = np.concatenate(played[-26:])
                echo = np.convolve(sounded, room(), "valid")[-PERIOD:]
                noise = 3e-4 * (integers(PERIOD, at) / 2.0**31 - 1.0)
                arrives.append((echo + noise + near[at : at + PERIOD]).astype(np.float32))
                backend.stream("input").hear(arrives[-1])
                while (block := microphone.read(0)) is not None:
                    left.append(block)
    return np.concatenate(arrives), left


def decibels(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12)


@pytest.fixture
def cancel():
    pytest.importorskip("pywebrtc_audio", reason="the echo extra is not installed")
    return canceller()


def test_the_echo_goes_and_the_user_stays(cancel):
    near = np.zeros(SECONDS * RATE)
    near[6 * RATE : 7 * RATE] = 2 * speech_like(RATE, 9)
    arrives, left = conversation(cancel, near)
    heard = np.concatenate([block.samples for block in left])
    alone, both = slice(2 * RATE, 6 * RATE), slice(6 * RATE, 7 * RATE)
    assert decibels(arrives[alone]) - decibels(heard[alone]) > 20
    assert decibels(heard[both]) > decibels(near[both]) - 12


def test_blocks_come_as_before_only_later():
    arrives, left = conversation(lambda heard, _: heard, np.zeros(SECONDS * RATE), gate=lambda _p, _h, left: left)
    assert [block.at for block in left] == list(range(0, len(left) * BLOCK, BLOCK))
    heard = np.concatenate([block.samples for block in left])
    assert not heard[:LATE].any()
    np.testing.assert_array_equal(heard[LATE:], arrives[: len(heard) - LATE])
    # the clock of the fake card runs on with both of its streams
    assert left[1].captured == pytest.approx(left[0].captured + 2 * BLOCK / RATE, abs=0.021)


def test_the_canceller_is_told_of_a_sound_before_it_is_heard():
    """What is heard is the very sound that is played: it may not be known later."""
    leads = []

    def cancel(heard, played):
        if np.abs(played).max() > 0.01 and not leads:
            leads.append("played")
        if np.abs(heard).max() > 0.01 and not leads:
            leads.append("heard")
        return heard

    conversation(cancel, np.zeros(SECONDS * RATE))
    assert leads == ["played"]


def test_without_the_extra_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(MissingDependency, match=r"pip install \"voxrill\[echo\]\""):
        canceller()
