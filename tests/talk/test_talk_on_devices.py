"""`voxrill talk` on real sound devices, PulseAudio's: keys, snapshots, echo, two talks on one device.

Every talk is a process of its own with a limit in seconds. The tests skip where PulseAudio is not installed.
"""

import os
import subprocess
import time
from contextlib import contextmanager

import pytest

from benchmarks.talk.measuring import voiced
from benchmarks.talk.questions import read_questions
from benchmarks.talk.sound_server import WIRE_RATE
from benchmarks.talk.subject import Subject
from benchmarks.talk.virtual_user import VirtualUser
from tests.command_line import run_alone

LIMIT = 60
TALK = ("-m", "voxrill", "talk", "--json", "--threads", "1")


@pytest.fixture(scope="module")
def question():
    return read_questions(None, 1)[0]


def asked(user, question):
    """Ask, and wait until the question was said, and half a second."""
    user.listen()
    user.say(question.samples)
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        time.sleep(0.05)
        said = user.recording()[:, 0]
        edges = voiced(said, WIRE_RATE)
        if edges and edges[1] > 0.8 * len(question.samples) and len(said) - edges[1] > WIRE_RATE / 2:
            return
    raise AssertionError("the question was not said")


def test_push_to_talk_hears_from_key_to_key(server, question):
    wire = server.wire("test")
    with Subject("talk", [*TALK, "--push-to-talk"], server, wire) as talk, VirtualUser(wire) as user:
        asked(user, question)  # without a key nobody listens
        talk.press()
        asked(user, question)
        talk.press()
        told = [talk.told(LIMIT), talk.told(2.0)]
    assert told[0]["text"].strip() == question.reply and told[0]["underruns"] == 0
    assert told[1] == {}


def test_a_talk_on_devices_goes_on_from_a_snapshot(server, question, tmp_path):
    file = str(tmp_path / "prompt.snapshot")
    assert run_alone("snapshot", "-o", file, cwd=tmp_path).status == 0
    wire = server.wire("test")
    with Subject("talk", [*TALK, "--snapshot", file], server, wire) as talk, VirtualUser(wire) as user:
        asked(user, question)
        told = talk.told(LIMIT)
    assert told["text"].strip() == question.reply


def test_two_talks_share_a_device(server, question):
    """Each hears the question and answers it; as neither listens while it speaks, they do not answer each other."""
    wire = server.wire("test")
    with (
        Subject("one", TALK, server, wire) as one,
        Subject("other", TALK, server, wire) as other,
        VirtualUser(wire) as user,
    ):
        asked(user, question)
        told = [one.told(LIMIT), other.told(LIMIT)]
    assert [turn["text"].strip() for turn in told] == [question.reply] * 2


def test_a_talk_that_does_not_listen_while_it_speaks_does_not_hear_itself(server):
    first, second = told_with_echo(server)
    assert first["text"] and not first["interrupted"] and second == {}


def test_a_talk_does_not_answer_its_own_echo(server):
    """What the canceller cannot follow is a loopback that a busy machine holds up, so that it has three tries."""
    pytest.importorskip("pywebrtc_audio", reason="the echo extra is not installed")
    for _ in range(3):
        first, second = told_with_echo(server, "--echo-cancel")
        if first["text"] and not first["interrupted"] and second == {}:
            return
    pytest.fail(f"it heard itself three times: {first}, then {second}")


def told_with_echo(server, *options):
    """Two turns of a talk that is asked once, and whose sound comes back into the microphone 40 ms later.

    Without protection it answers itself for ever; {} for a turn that does not come.
    """
    wire = server.wire("test")
    (question,) = read_questions(None, 1)
    with (
        looped_back(wire),
        Subject("talk", ["-m", "voxrill", "talk", "--json", *options], server, wire) as talk,
        VirtualUser(wire) as user,
    ):
        time.sleep(0.3)
        user.say(question.samples)
        return talk.told(LIMIT), talk.told(3.0)


@contextmanager
def looped_back(wire):
    """The wire's loudspeaker is heard by its microphone, until the block ends."""

    def pactl(*words):
        environment = {**os.environ, **wire.server}
        return subprocess.run(
            ["pactl", *words], env=environment, timeout=LIMIT, check=True, capture_output=True, text=True
        )

    loopback = ("module-loopback", "source=test.speaker.monitor", "sink=test.user", "latency_msec=40")
    number = pactl("load-module", *loopback).stdout.strip()
    try:
        yield
    finally:
        pactl("unload-module", number)
