"""The virtual user: waits are read off recordings as they are, and PulseAudio carries both sides of a talk.

Tests over PulseAudio run in processes of their own, with a limit in seconds, and skip where it is not installed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from benchmarks.talk import asking, sound_server
from benchmarks.talk import commands as bench_commands
from benchmarks.talk.asking import AskedTurn, Interruption, SpokenQuestion, ask, interrupt
from benchmarks.talk.cascade import check_cascade
from benchmarks.talk.measuring import voiced
from benchmarks.talk.questions import read_questions
from benchmarks.talk.report import ProgramResult, as_json, growth, growth_table, plot, table
from benchmarks.talk.sound_server import WIRE_RATE, SoundServer
from benchmarks.talk.subject import Subject
from benchmarks.talk.virtual_user import VirtualUser
from tests.command_line import run_alone
from tests.signals import speech_like
from voxrill.runtime.apps.evaluation.figures import percentile
from voxrill.runtime.audio.protocols import RATE
from voxrill.runtime.errors import AudioDeviceError, DataError, UsageError, VoxrillError

LIMIT = 60  # seconds, for whatever runs over PulseAudio


def tone(seconds, level=0.3):
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * WIRE_RATE)) / WIRE_RATE)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * WIRE_RATE), np.float32)


# Measuring


def test_voiced_samples_are_those_within_40_db_of_the_loudest():
    quiet, hum = tone(0.5, 0.3 * 10 ** (-45 / 20)), tone(0.2, 0.3 * 10 ** (-35 / 20))
    first, end = voiced(np.concatenate([quiet, tone(1.0), hum, quiet]), WIRE_RATE)
    assert (first, end) == (round(0.5 * WIRE_RATE), round(1.7 * WIRE_RATE))


@pytest.mark.parametrize("nothing", [silence(1.0), tone(1.0, 5e-4), silence(0.001)], ids=["silence", "hiss", "short"])
def test_what_is_no_sound_is_not_voiced(nothing):
    assert voiced(nothing, WIRE_RATE) is None


def test_percentiles_are_values_that_were_measured():
    values = [0.4, 0.1, 0.3, 0.2]
    assert [percentile(values, share) for share in (0.0, 0.25, 0.5, 0.51, 0.9, 1.0)] == [0.1, 0.1, 0.2, 0.3, 0.4, 0.4]


# Asking, with a recording that grows as a test says


class FakeSubject:
    """A program that answers (start, sound) of the recording's right channel."""

    def __init__(self, text="yes"):
        self.text = text

    def told(self, timeout=1.0):
        return {"text": self.text} if timeout else {}

    def check(self):
        pass


class FakeUser:
    """A user whose recording grows by 50 ms each time that it is looked at; `answers` follow what is said."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.whole = np.zeros((0, 2), np.float32)
        self.now = self.passed = 0
        self.began = []  # seconds at which each sentence was begun

    def listen(self):
        self.whole, self.now, self.passed = self.whole[self.now :], 0, self.passed + self.now

    def say(self, samples):
        self.began.append((self.passed + self.now) / WIRE_RATE)
        answer = self.answers.pop(0)
        length = max(len(samples), len(answer), len(self.whole))
        grown = np.zeros((length + 40 * WIRE_RATE, 2), np.float32)
        grown[: len(self.whole)] = self.whole
        grown[: len(samples), 0] += samples
        if len(answer):
            grown[:, 1] = 0
        grown[: len(answer), 1] += answer
        self.whole = grown

    def recording(self):
        self.now += round(0.05 * WIRE_RATE)
        return self.whole[: self.now]


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(asking, "_LOOK_SECONDS", 0)


QUESTION = SpokenQuestion("q", np.concatenate([silence(0.2), tone(1.0), silence(0.3)]), "yes")


def test_the_wait_is_from_the_last_voiced_sample_to_the_first(no_waiting):
    answer = np.concatenate([silence(1.2 + 0.55), tone(0.5), silence(0.4), tone(0.5)])
    asked = ask(FakeUser(answer), FakeSubject(), QUESTION)
    assert asked.wait == pytest.approx(0.55, abs=0.011) and asked.right and not asked.early


def test_an_answer_that_does_not_come_is_lost(no_waiting):
    asked = ask(FakeUser(silence(0)), FakeSubject("no"), QUESTION)
    assert asked.wait is None and asked.right is False and not asked.early


def test_an_answer_before_the_question_is_over_is_early(no_waiting):
    asked = ask(FakeUser(np.concatenate([silence(0.8), tone(1.5)])), FakeSubject(), QUESTION)
    assert asked.wait is None and asked.early


def test_an_interruption_ends_with_the_interrupted_answer(no_waiting):
    user = FakeUser(
        np.concatenate([silence(1.7), tone(9.0)]),
        np.concatenate([tone(0.2 + 0.08), silence(1.5), tone(0.5)]),
    )
    assert interrupt(user, FakeSubject(), QUESTION, QUESTION) == Interruption("q", pytest.approx(0.08, abs=0.011), True)


def test_an_answer_that_was_over_by_itself_was_not_interrupted(no_waiting):
    user = FakeUser(np.concatenate([silence(1.7), tone(0.6)]), np.concatenate([tone(0.1), silence(1.7), tone(0.5)]))
    assert interrupt(user, FakeSubject(), QUESTION, QUESTION) == Interruption("q", None, True)


def test_only_the_answer_to_a_whole_question_is_interrupted(no_waiting):
    """The first half was answered already, and the second is still being said: no answer to interrupt."""
    early = np.concatenate([silence(0.5), tone(0.3), silence(0.9), tone(9.0)])
    user = FakeUser(early, np.concatenate([tone(0.2 + 0.06), silence(1.5), tone(0.5)]))
    assert interrupt(user, FakeSubject(), QUESTION, QUESTION) == Interruption("q", pytest.approx(0.06, abs=0.011), True)
    assert user.began == [0.0, pytest.approx(1.7 + asking.INTERRUPT_SECONDS, abs=0.06)]


def test_an_early_answer_is_not_the_interrupted_one(no_waiting):
    """It sounds again before the interrupting question is over, because the first half of that was answered."""
    second = SpokenQuestion("q", np.concatenate([silence(0.2), tone(0.3), silence(0.6), tone(0.4), silence(0.3)]))
    user = FakeUser(
        np.concatenate([silence(1.7), tone(9.0)]),
        np.concatenate([tone(0.2 + 0.05), silence(0.6), tone(0.3), silence(0.7), tone(0.5)]),
    )
    assert interrupt(user, FakeSubject(), QUESTION, second).stopped == pytest.approx(0.05, abs=0.011)


# Questions and results


def test_the_held_out_questions_are_spoken_ones_and_come_round_again():
    questions = read_questions(None, 40)
    assert len(questions) == 40 and questions[32].name == questions[0].name
    assert questions[0].reply == "the kitchen timer is set for twenty minutes"
    assert not any(word in question.name for question in questions for word in ("music", "silence", "typed"))


def test_questions_of_ones_own(tmp_path):
    soundfile.write(tmp_path / "b.wav", speech_like(RATE), RATE)
    (tmp_path / "notes.txt").write_text("no sound")
    (question,) = read_questions(tmp_path, 1)
    assert question.name == "b.wav" and question.reply is None and len(question.samples) == WIRE_RATE


def test_a_folder_without_sounds_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no sounds"):
        read_questions(tmp_path, 1)


RESULTS = [
    ProgramResult(
        "voxrill",
        [
            AskedTurn("a", 0.6, False, True, {"underruns": 1}),
            AskedTurn("b", 0.5, False, False, {}),
            AskedTurn("c", None, False, True, {}),
            AskedTurn("d", None, True, True, {}),
        ],
        [Interruption("a", 0.1, True), Interruption("b", None, False)],
    ),
    ProgramResult("cascade", [AskedTurn("a", 0.7, False, None, {})]),
]


def test_figures():
    ours, other = (result.figures() for result in RESULTS)
    assert (ours["turns"], ours["lost"], ours["early"], ours["right"], ours["underruns"]) == (4, 1, 1, 3, 1)
    assert ours["wait"] == {"median": 0.5, "p90": 0.6, "p99": 0.6, "max": 0.6}
    assert ours["stop"]["median"] == 0.1 and ours["interruptions"] == 1 and ours["unanswered_interruptions"] == 1
    assert other["right"] is None and other["stop"] == {}


def test_growth_is_from_the_first_fifth_to_the_last():
    waits = [0.5, None, 0.7, *[9.0] * 9, 0.6, 0.8, 0.9]
    turns = [AskedTurn("a", wait, False, True, {"private_memory": 100 + n}) for n, wait in enumerate(waits)]
    assert growth(turns) == {"wait": [0.5, 0.8], "private_memory": [101, 113]}
    assert growth(turns[:4]) == {}
    assert list(growth_table([ProgramResult("voxrill", turns)]).columns[1].cells) == ["500 to 800"]


def test_asking_goes_on_for_so_many_minutes(monkeypatch):
    passing = iter([0, 10, 30, 50, 70])
    monkeypatch.setattr(bench_commands, "time", Mock(monotonic=lambda: next(passing)))
    assert list(bench_commands._rounds(["a", "b"], 1.0)) == [(10, 60, "a"), (30, 60, "b"), (50, 60, "a")]
    assert list(bench_commands._rounds(["a", "b"], None)) == [(0, 2, "a"), (1, 2, "b")]


def test_table_json_and_plot_hold_every_program(tmp_path):
    assert [list(column.cells) for column in table(RESULTS).columns][:2] == [["voxrill", "cascade"], ["500", "700"]]
    written = json.loads(json.dumps(as_json(RESULTS, {"endpoint": 0.5})))
    assert written["endpoint"] == 0.5 and len(written["programs"][0]["each_turn"]) == 4
    pytest.importorskip("matplotlib", reason="nothing to plot with")
    plot(RESULTS, tmp_path / "waits.png", "waits")
    assert (tmp_path / "waits.png").stat().st_size > 10_000


def test_what_the_cascade_lacks_is_said(monkeypatch):
    with pytest.raises(UsageError, match="no synthesiser 'x'"):
        check_cascade("x")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UsageError, match="apt-get install flite"):
        check_cascade("flite")


def test_the_command_says_what_to_install_for_the_virtual_user(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(AudioDeviceError, match="apt-get install pulseaudio pulseaudio-utils"):
        bench_commands.talk()


def test_the_installed_command_says_where_the_virtual_user_is(cli):
    cli.refuses("bench", "talk", "--turns", "3", saying="python -m benchmarks.talk talk")


# Over PulseAudio

ANSWERER = """
import json, sys, numpy as np
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.protocols import RATE
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.speaker import Speaker

system, loud, quiet = AudioSystem(), False, 0
notify = lambda text: print(json.dumps({"notice": text, "text": ""}), flush=True)
# The microphone comes last: with it the program counts as ready, and the test may end PulseAudio at once.
with Speaker(system, RATE) as speaker, DeviceMicrophone(system, notify=notify) as microphone:
    while True:
        block = microphone.read(5.0)
        if block is None:
            continue
        voiced = np.abs(block.samples).max() > 0.05
        quiet = 0 if voiced else quiet + 1
        loud = loud or voiced
        if loud and quiet == 5:
            loud = False
            speaker.begin(0.1, 0.5)
            speaker.push((0.3 * np.sin(np.arange(RATE // 2) * 0.3)).astype(np.float32))
            speaker.finish()
            print(json.dumps({"text": "tone", "at": block.at}), flush=True)
"""


@pytest.fixture
def answerer(tmp_path, server):
    """A program that answers each sound with half a second's tone."""
    (tmp_path / "answerer.py").write_text(ANSWERER)
    with Subject("answerer", [str(tmp_path / "answerer.py")], server, server.wire("test")) as started:
        yield started


def test_a_program_is_asked_over_pulseaudio(answerer):
    with VirtualUser(answerer.wire) as user:
        time.sleep(0.3)
        turns = [ask(user, answerer, SpokenQuestion("q", QUESTION.samples, "tone")) for _ in range(2)]
    assert all(turn.right and turn.wait is not None and turn.wait > 4 * 0.032 for turn in turns)


def test_user_and_program_are_on_channels_of_their_own(answerer):
    """Half a second is asked, and half a second is answered later: one channel with both would hold a whole one.

    A busy machine makes gaps in a sound, which then is longer.
    """
    with VirtualUser(answerer.wire) as user:
        time.sleep(0.3)
        user.listen()
        user.say(tone(0.5))
        until = time.monotonic() + LIMIT
        while voiced(user.recording()[:, 1], WIRE_RATE) is None and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1.0)  # until the answer is over
        sound = user.recording()
    (first, end), (answered, _) = voiced(sound[:, 0], WIRE_RATE), voiced(sound[:, 1], WIRE_RATE)
    assert 0.45 * WIRE_RATE < end - first < 0.9 * WIRE_RATE
    assert answered > end


def noticed(answerer):
    """The next sentence about its devices. Before it, the program may hear the end of what another test said."""
    until = time.monotonic() + LIMIT
    said = []
    while time.monotonic() < until:
        said.append(answerer.told(LIMIT))
        if "notice" in said[-1]:
            return said[-1]["notice"]
    answerer.check()
    pytest.fail(f"no notice came in {LIMIT} s: {said}")


def test_a_program_goes_on_when_its_devices_are_back(answerer, server):
    """PulseAudio ends and comes back, which for a program is all its devices pulled out and plugged in."""
    server.stop()
    assert "is gone" in noticed(answerer)
    server.start()
    until = time.monotonic() + LIMIT
    while not server.listeners(answerer.wire) and time.monotonic() < until:
        time.sleep(0.1)
    with VirtualUser(answerer.wire) as user:
        time.sleep(0.3)
        user.say(QUESTION.samples)
        assert noticed(answerer).endswith("is back.")
        told = answerer.told(LIMIT)
    assert told["text"] == "tone" and told["at"] > 0


def test_a_program_that_ends_is_named_with_its_last_words(server, tmp_path):
    (tmp_path / "ends.py").write_text("raise SystemExit('no such model')")
    with (
        pytest.raises(VoxrillError, match="ends ended: no such model"),
        Subject("ends", [str(tmp_path / "ends.py")], server, server.wire("test")),
    ):
        pass


def test_devices_are_listed_heard_and_played(server, tmp_path):
    wire = server.wire("test")
    with VirtualUser(wire) as user:
        time.sleep(0.3)
        user.say(tone(20.0))
        ran = run_alone("devices", "--audio", "--test", "--tone", "--json", cwd=tmp_path, **wire.program)
        played = user.recording()[:, 1]
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert "pulse" in {device["name"] for device in found["devices"]}
    assert found["heard"]["level"] == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=1.0)
    first, end = voiced(played, WIRE_RATE)
    assert (end - first) / WIRE_RATE == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("source", "status", "saying"),
    [
        ("test.microphone", 1, "hears nothing"),
        ("test.speaker.monitor", 0, "The microphone hears the loudspeaker"),
    ],
    ids=["muted", "echo"],
)
def test_the_doctor_finds_echo_and_silence(server, tmp_path, source, status, saying):
    environment = {**server.wire("test").program, "PULSE_SOURCE": source}
    ran = run_alone("doctor", "--audio", cwd=tmp_path, **environment)
    assert ran.status == status, ran.err
    assert saying in ran.out and "ok  PortAudio: " in ran.out
    assert ran.out.startswith("BAD" if status else "ok ")


def test_the_doctor_without_devices(tmp_path):
    """Without a sound server, and on a machine without sound cards, nothing is there to be checked."""
    script = (
        "import sys; from voxrill.runtime.audio.devices import found_devices, portaudio\n"
        "sys.exit(len(found_devices(portaudio())) > 0)"
    )
    nowhere = {"PULSE_SERVER": f"unix:{tmp_path}/nowhere"}
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **nowhere}, timeout=LIMIT, check=False)
    if done.returncode:
        pytest.skip("this machine has sound cards, or lacks PortAudio")
    ran = run_alone("doctor", "--audio", "--json", cwd=tmp_path, **nowhere)
    checks = json.loads(ran.out)["checks"]
    assert ran.status == 1 and [check["ok"] for check in checks] == [True, False, False]
    assert "there is no microphone on this machine" in checks[1]["found"]


def test_pulseaudio_that_does_not_start_is_told(server, monkeypatch):
    monkeypatch.setattr(sound_server, "_OPTIONS", ("--no-such-option",))
    with pytest.raises(VoxrillError, match="PulseAudio did not start: "), SoundServer("test"):
        pass
