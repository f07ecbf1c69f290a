"""Commands as they are spoken, on fake edges: each is done once, and however it ends nothing hangs."""

import time

import numpy as np
import pytest

import voxrill
from benchmarks.talk.measuring import voiced
from benchmarks.talk.questions import read_questions
from benchmarks.talk.sound_server import WIRE_RATE
from benchmarks.talk.subject import Subject
from benchmarks.talk.virtual_user import VirtualUser
from tests.places import ROOT
from tests.talking import SPOKEN, WORD, ClipMicrophone, FakeDetector, InstantPlayer, Watcher, silence, spoken
from voxrill.runtime.apps.control import Control
from voxrill.runtime.apps.grammar import Call, parse_grammar
from voxrill.runtime.apps.live_control import LiveControl, LiveOptions
from voxrill.runtime.apps.own_end import pause_judge
from voxrill.runtime.audio.protocols import BLOCK
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.errors import AudioDeviceLost, UsageError
from voxrill.runtime.talk.events import Notice, StateChanged

COMMANDS = ROOT / "examples" / "commands.toml"
LIMIT = 60
BATHROOM = spoken(SPOKEN[4])
HALL = spoken(SPOKEN[6])
OTHER = spoken(SPOKEN[2])
LIGHTS = """
[slots]
room = ["hall", "bathroom"]
state = ["on", "off"]
[commands.lights]
say = ["{room} lights {state}"]
confirm = "{room} lights {state}"
"""
HEARING = LiveOptions(barge_in=True)
"""The microphone is faster than real time: what is said next comes while the answer to the first is played."""
ON, OFF = Call("lights", {"room": "bathroom", "state": "on"}), Call("lights", {"room": "hall", "state": "off"})


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Watching(Watcher):
    """An utterance is over when it is listened again."""

    def ended(self):
        return self.shown.count(StateChanged("listening"))


class Held:
    """A live control that is set up.

    `reports` is what came of each utterance, `done` the calls that were run, `heard` the samples of every sound that
    the control was given, and what it made of them.
    """

    def __init__(self, model, folder, *clips, then=None, player=None, fail=None, options=None, waking=None, judge=None):
        self.reports, self.done, self.heard = [], [], []
        self.control = Control(model, parse_grammar(LIGHTS, folder))
        hear, fail = self.control.hear, fail or (lambda _call: None)

        def counted(samples, trim, sample_rate):
            assert trim is False  # the listener cut it
            self.heard.append((len(samples), hear(samples, trim, sample_rate)))
            return self.heard[-1][1]

        def run(call):
            self.done.append(call)
            fail(call)

        self.control.hear, self.control.run = counted, run
        self.watcher = Watching()
        self.player = player or InstantPlayer(model.sample_rate)
        self.microphone = ClipMicrophone(self.watcher, *clips, then=then or self.close)
        self.live = LiveControl(
            model, self.control, self.microphone, self.player, self.watcher, self.reports.append,
            options or LiveOptions(), waking, judge=judge,
        )  # fmt: skip

    def close(self):
        self.live.close()

    def close_after(self, call):
        """Close when this was understood, or late: a clip may have several turns."""
        until = time.monotonic() + LIMIT

        def then():
            if time.monotonic() > until or call in [report.understood.call for report in self.reports]:
                self.close()

        self.microphone._then = then
        return self

    def run(self):
        self.live.run()
        return [report.understood.call for report in self.reports]


def test_commands_are_done_and_confirmed_aloud(pebble, tmp_path):
    held = Held(pebble, tmp_path, BATHROOM, HALL)
    assert held.run() == held.done == [ON, OFF]
    assert [report.answer for report in held.reports] == ["bathroom lights on", "hall lights off"]
    spoken_back = [pebble.transcribe((heard, pebble.sample_rate)).text.strip() for heard in held.player.heard]
    assert spoken_back == ["bathroom lights on", "hall lights off"]
    assert all(0 <= report.latency < report.after_voice for report in held.reports)


def test_it_is_understood_at_the_first_pause_and_not_again(pebble, tmp_path):
    held = Held(pebble, tmp_path, BATHROOM)
    held.run()
    assert len(held.heard) == 2  # the tone to warm up, and the command


def test_a_command_that_is_finished_is_done_at_its_first_pause(pebble, tmp_path):
    """Two commands with a pause between them, shorter than the silence that ends one: without a judge they are one."""
    both = np.concatenate([BATHROOM, HALL])
    alone = Held(pebble, tmp_path, both)
    alone.run()
    judged = Held(pebble, tmp_path, both, options=HEARING, judge=lambda _sound, _options: 0.0).close_after(OFF)
    assert len(alone.reports) == 1 and judged.run()[-1] == OFF and len(judged.reports) >= 2


def test_the_built_in_models_own_word_ends_each_of_two_commands(pebble, tmp_path):
    judge = pause_judge(pebble, None, None, print)
    held = Held(pebble, tmp_path, np.concatenate([BATHROOM, HALL]), options=HEARING, judge=judge)
    assert held.close_after(OFF).run() == held.done == [ON, OFF]


def test_whoever_goes_on_is_understood_anew(pebble, tmp_path):
    """The command before the pause is complete, and still only what was made of the whole counts."""
    held = Held(pebble, tmp_path, np.concatenate([BATHROOM, OTHER]))
    held.run()
    _tone, (begun, before), (whole, understood) = held.heard
    assert before.accepted and before.call == ON and whole > begun + len(OTHER) / 2
    assert [report.understood for report in held.reports] == [understood] and held.done == []


def test_what_is_no_command_is_asked_again_and_not_done(pebble, tmp_path):
    held = Held(pebble, tmp_path, OTHER)
    held.run()
    assert held.done == [] and held.reports[0].answer == held.control.ask_back and len(held.player.heard) == 1


def test_a_hook_that_fails_is_told_and_the_next_command_heard(pebble, tmp_path):
    def fail(call):
        if call == ON:
            raise UsageError("no bulb")

    held = Held(pebble, tmp_path, BATHROOM, HALL, fail=fail)
    held.run()
    assert held.done == [ON, OFF] and str(held.reports[0].error) == "no bulb." and held.reports[0].answer == ""
    assert held.reports[1].error is None and len(held.player.heard) == 1


def test_a_dry_run_does_nothing(pebble, tmp_path):
    held = Held(pebble, tmp_path, BATHROOM, options=LiveOptions(run=False))
    assert held.run() == [ON] and held.done == []


def test_what_the_model_cannot_take_is_told(pebble, tmp_path):
    held = Held(pebble, tmp_path, BATHROOM, HALL)
    hear, told = held.control.hear, []

    def refusing(samples, trim, sample_rate):
        if len(samples) > 20_000 and not told:
            told.append(len(samples))
            raise UsageError("too long")
        return hear(samples, trim, sample_rate)

    held.control.hear = refusing
    held.run()
    assert held.done[-1] == OFF
    assert any("too long" in event.text for event in held.watcher.shown if isinstance(event, Notice))


def test_a_lost_microphone_ends_it(pebble, tmp_path):
    def lost():
        raise AudioDeviceLost("the microphone is gone", "Plug it in")

    held = Held(pebble, tmp_path, BATHROOM, then=lost)
    with pytest.raises(AudioDeviceLost, match="gone"):
        held.run()
    assert held.done == [ON] and not held.microphone.open


def test_a_lost_loudspeaker_ends_it(pebble, tmp_path):
    class Lost(InstantPlayer):
        def ensure(self):
            raise AudioDeviceLost("the loudspeaker is gone", "Plug it in")

    held = Held(pebble, tmp_path, BATHROOM, player=Lost(pebble.sample_rate))
    with pytest.raises(AudioDeviceLost, match="loudspeaker"):
        held.run()
    assert held.done == [ON]


def test_asleep_nothing_is_a_command(pebble, tmp_path):
    before = np.concatenate([BATHROOM, silence(1.0)])
    fitting = -(len(silence(0.5)) + len(before)) % BLOCK  # the detector knows whole blocks; half a second comes first
    said = np.concatenate([np.zeros(fitting, np.float32), before, WORD, silence(0.1), HALL])
    held = Held(pebble, tmp_path, said, waking=Waking(FakeDetector()))
    assert held.run() == [OFF] == held.done
    assert len(held.heard) == 2  # a tone at first


def test_a_wake_word_on_the_command_line(cli):
    pytest.importorskip("pymicro_wakeword", reason="the wake extra is not installed")
    assert "okay_nabu" in cli("control", COMMANDS, "--live", "--wake-word", "list").out.split()
    cli.refuses("control", COMMANDS, "--live", "--wake-word", "hey nobody", saying="okay_nabu")
    cli.refuses("control", COMMANDS, "clip.wav", "--wake-word", "okay_nabu", saying="--live")


def test_the_command_on_real_devices(server):
    """A command said at real speed into PulseAudio's wire is called, and confirmed aloud."""
    question = next(q for q in read_questions(None, 20) if q.reply == "bathroom lights on")
    wire = server.wire("test")
    command = ["-m", "voxrill", "control", str(COMMANDS), "--live", "--json", "--threads", "1"]
    with Subject("control", command, server, wire) as listening, VirtualUser(wire) as user:
        user.say(question.samples)
        told = listening.told(LIMIT)
        assert told["command"] == "lights" and told["slots"] == {"room": "bathroom", "state": "on"}
        assert told["accepted"] and told["answer"] == question.reply
        assert 0 <= told["latency_ms"] < told["after_voice_ms"]
        until = time.monotonic() + LIMIT
        while voiced(user.recording()[:, 1], WIRE_RATE) is None:
            assert time.monotonic() < until, "it was not confirmed aloud"
            time.sleep(0.05)
