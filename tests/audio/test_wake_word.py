"""The wake word: asleep until it is heard, never part of a question, and not needed again for some seconds."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr

import voxrill
from benchmarks.talk.sound_server import WIRE_RATE
from benchmarks.talk.subject import Subject
from benchmarks.talk.virtual_user import VirtualUser
from tests.talking import CLIPS, HELD_OUT, SPOKEN, WORD, FakeDetector, Scene, silence, spoken
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.endpointing import blocks
from voxrill.runtime.audio.protocols import BLOCK, RATE, Block
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.audio.wake_word import AHEAD, WakeWord, Waking, after_word
from voxrill.runtime.errors import UsageError
from voxrill.runtime.talk.events import StateChanged
from voxrill.runtime.talk.listener import Ended, Interrupted, Paused, Resumed, Slept, Woke

ASKED = [SPOKEN[0], SPOKEN[2]]

FOLLOW_UP = 2.0
LIMIT = 60  # seconds, for whatever runs over PulseAudio

COMMANDS = {
    "flite rms": ("flite", "-voice", "rms", "-o", "{file}", "-t"),
    "espeak-ng en-gb": ("espeak-ng", "-v", "en-gb", "-s", "150", "-w", "{file}"),
    "espeak-ng en-us": ("espeak-ng", "-v", "en-us", "-s", "150", "-w", "{file}"),
}
"""Voices in which "okay nabu" is known (not all are)."""


def block(number, loudness=0.0):
    return Block(np.full(BLOCK, loudness, np.float32), BLOCK * number, 0.0)


def feed(waking, samples, busy=False):
    """The blocks let through of (n,) samples, a list for each block taken."""
    let_through = []
    for at in range(0, len(samples), BLOCK):
        waking.hears_word(Block(samples[at : at + BLOCK], at, 0.0))
        let_through.append([one.at // BLOCK for one in waking.let_through(busy)])
    return let_through


def seconds_of_silence(count):
    return np.zeros(blocks(count) * BLOCK, np.float32)


def test_nothing_is_let_through_before_the_word_and_everything_after():
    waking = Waking(FakeDetector(), FOLLOW_UP)
    assert not any(feed(waking, seconds_of_silence(1.0))) and not waking.awake
    known = len(WORD) // BLOCK - 1
    let_through = feed(waking, np.concatenate([WORD, seconds_of_silence(1.0)]))
    found = known + blocks(AHEAD)
    assert waking.awake and not any(let_through[:found])
    assert let_through[found] == list(range(known + 1, found + 1))  # silence is quieter than the word
    assert let_through[found + 1 :] == [[number] for number in range(found + 1, len(let_through))]


def test_it_falls_asleep_after_the_follow_up_window_unless_busy():
    waking = Waking(FakeDetector(), FOLLOW_UP)
    feed(waking, np.concatenate([WORD, seconds_of_silence(AHEAD)]))
    feed(waking, seconds_of_silence(60), busy=True)
    assert waking.awake
    let_through = feed(waking, seconds_of_silence(FOLLOW_UP + 1.0))
    assert not waking.awake
    assert sum(map(len, let_through)) == blocks(FOLLOW_UP) - 1


def test_the_word_ends_where_it_is_quietest_around_the_moment():
    around = [block(0, 0.1), block(1, 0.2), block(2, 0.01), block(3, 0.3)]
    assert after_word(around) == around[2:]


def test_a_word_half_heard_before_a_gap_is_forgotten():
    detector = FakeDetector()
    waking = Waking(detector, FOLLOW_UP)
    feed(waking, WORD[: 5 * BLOCK])
    waking.reset()
    assert not any(feed(waking, WORD[5 * BLOCK :])) and not waking.awake
    assert detector.resets == 1


def test_a_follow_up_window_must_last():
    with pytest.raises(UsageError, match="more than 0"):
        Waking(FakeDetector(), 0.0)


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def scene_of(pebble, **options):
    return Scene(pebble, waking=Waking(FakeDetector(), FOLLOW_UP), **options)


def states(scene):
    return [event.state for event in scene.shown if isinstance(event, StateChanged)]


def test_what_is_said_while_asleep_is_not_answered(pebble):
    scene = scene_of(pebble)
    scene.listener.begin()
    scene.hear(silence(0.5), spoken(SPOKEN[0]), silence(1.5))
    assert scene.signals == [] and states(scene) == ["asleep"]
    assert scene.notices() == ['Waiting for "the word"']


def test_the_word_and_the_question_in_one_breath_then_a_follow_up_then_sleep(pebble):
    scene = scene_of(pebble)
    scene.hear(silence(0.512), WORD, silence(0.1), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.turns)
    scene.hear(silence(FOLLOW_UP / 2))
    scene.ask(ASKED[1])
    scene.hear(silence(FOLLOW_UP + 0.5))
    scene.hear(spoken(ASKED[0]), silence(1.5))
    assert [turn.answer.text.strip() for turn in scene.turns] == [clip["reply"] for clip in ASKED]
    (woke,) = [signal for signal in scene.signals if isinstance(signal, Woke)]
    (slept,) = [signal for signal in scene.signals if isinstance(signal, Slept)]
    first, second = scene.turns
    assert first.utterance.start >= woke.end
    heard = np.concatenate(scene.blocks)
    assert np.array_equal(first.utterance.samples, heard[first.utterance.start : first.utterance.end])
    assert first.trace.woke is not None and first.trace.woke < first.trace.voice_end
    assert second.trace.woke is None
    assert slept.end > second.utterance.end
    cycle = ["thinking", "speaking", "listening"]
    assert states(scene) == ["listening", *cycle, *cycle, "asleep"]


def test_the_word_alone_is_no_question(pebble):
    scene = scene_of(pebble)
    scene.hear(silence(0.512), WORD, silence(FOLLOW_UP + 1.0))
    assert [type(signal) for signal in scene.signals] == [Woke, Slept]


def test_the_word_before_a_follow_up_is_no_part_of_it(pebble):
    scene = scene_of(pebble, voice_activity=Voiced(lambda samples: np.abs(samples).max() > 0.05))
    scene.hear(silence(0.512), WORD, silence(0.5))
    loud = np.full(BLOCK * 40, 0.5, np.float32)
    scene.hear(loud, silence(0.25))
    assert isinstance(scene.signals[-1], Paused)
    scene.hear(WORD, silence(0.4), loud, silence(0.8))
    kinds = [type(signal) for signal in scene.signals]
    assert kinds.index(Resumed) > kinds.index(Paused)
    (ended,) = [signal for signal in scene.signals if isinstance(signal, Ended)]
    last_word = [signal for signal in scene.signals if isinstance(signal, Woke)][-1]
    assert ended.utterance.start >= last_word.end


class Voiced:
    """A voice detector by a rule."""

    def __init__(self, rule):
        self._rule = rule

    def __call__(self, samples):
        return float(self._rule(samples))

    def reset(self):
        pass


def test_the_word_is_heard_while_an_answer_is_played_with_barge_in_only(pebble):
    for barge_in in (True, False):
        scene = scene_of(pebble, barge_in=barge_in)
        scene.hear(silence(0.512), WORD, silence(0.1), spoken(SPOKEN[0]))
        scene.hear_until(lambda scene=scene: scene.player.played() > 12_000)
        scene.hear(spoken(SPOKEN[1]))
        assert any(isinstance(signal, Interrupted) for signal in scene.signals) is barge_in


# The real detector


@pytest.fixture
def say(tmp_path):
    """`say(voice, text)`: samples at 16 kHz."""

    def run(voice, text):
        command = [part.format(file=tmp_path / "said.wav") for part in COMMANDS[voice]]
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        subprocess.run([*command, text], check=True)
        samples, rate = soundfile.read(tmp_path / "said.wav", dtype="float32")
        return as_waveform((samples, rate))

    return run


@pytest.fixture
def nabu():
    pytest.importorskip("pymicro_wakeword", reason="the wake extra is not installed")
    return WakeWord("Okay Nabu")


def known_in(detector, samples):
    """Blocks in which the word becomes known; the room is not digitally silent."""
    room = np.random.default_rng(0).normal(0, 1e-3, RATE + len(samples) + RATE).astype(np.float32)
    room[RATE : RATE + len(samples)] += samples
    return [at // BLOCK for at in range(0, len(room) - BLOCK + 1, BLOCK) if detector(room[at : at + BLOCK])]


@pytest.mark.parametrize("voice", COMMANDS)
def test_a_spoken_word_is_known_once(say, nabu, voice):
    word = say(voice, "okay nabu")
    (known,) = known_in(nabu, word)
    assert RATE / BLOCK < known < (RATE + len(word)) / BLOCK + 10


def test_other_speech_is_not_taken_for_the_word(nabu):
    assert not [clip["file"] for clip in HELD_OUT if known_in(nabu, read_audio(CLIPS / clip["file"]))]


@pytest.mark.parametrize("voice", COMMANDS)
def test_a_spoken_word_and_a_question_in_one_breath(pebble, say, nabu, voice):
    scene = Scene(pebble, waking=Waking(nabu))
    room = np.random.default_rng(1).normal(0, 1e-3, RATE).astype(np.float32)
    scene.hear(room, say(voice, "okay nabu"), room[: RATE // 10], spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.turns)
    assert scene.turns[0].answer.text.strip() == SPOKEN[0]["reply"]


# On the command line


def test_the_words_are_listed_and_others_refused(cli):
    pytest.importorskip("pymicro_wakeword", reason="the wake extra is not installed")
    words = cli("talk", "--wake-word", "list").out.split()
    assert "okay_nabu" in words
    cli.refuses("talk", "--wake-word", "hey nobody", saying=("hey nobody", ", ".join(words)))
    cli.refuses("talk", "--wake-word", words[0], "--follow-up", 0, saying="follow-up")


def test_without_the_extra_its_name_is_given(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymicro_wakeword", None)
    cli.refuses("talk", "--wake-word", "okay_nabu", saying='pip install "voxrill[wake]"')


@pytest.mark.parametrize("option", ["--text", "--push-to-talk"])
def test_a_word_and_a_key_do_not_go_together(cli, option):
    cli.refuses("talk", "--wake-word", "okay_nabu", option, saying="--wake-word")


def test_a_talk_with_a_wake_word_over_pulseaudio_is_recorded_and_replayed(server, say, nabu, cli, tmp_path):
    wire = server.wire("test")
    command = ["-m", "voxrill", "talk", "--json", "--wake-word", nabu.name, "--record", str(tmp_path / "kept")]
    word, question = say("flite rms", "okay nabu"), spoken(SPOKEN[0])
    said = np.concatenate([question, silence(1.5), word, silence(0.1), question])
    with Subject("talk", command, server, wire) as talk, VirtualUser(wire) as user:
        time.sleep(0.3)
        user.say(soxr.resample(said, RATE, WIRE_RATE))
        told = [talk.told(LIMIT), talk.told(LIMIT)]
    assert told[0]["state"] == "listening" and told[0]["at"] > (len(question) + 1.5 * RATE) / RATE
    assert told[1]["text"].strip() == SPOKEN[0]["reply"]
    assert told[1]["trace"]["woke"] is not None
    events = [json.loads(line) for line in (tmp_path / "kept" / "events.jsonl").read_text().splitlines()]
    assert [event["end"] / RATE for event in events if event.get("signal") == "Woke"] == [told[0]["at"]]
    assert cli("replay", tmp_path / "kept").out.startswith("1\tsame\t")
