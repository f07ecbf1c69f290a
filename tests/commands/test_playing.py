"""speak and chat play aloud where somebody listens, with a loudspeaker that only counts."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.talk.measuring import voiced
from benchmarks.talk.sound_server import WIRE_RATE
from benchmarks.talk.virtual_user import VirtualUser
from tests.command_line import run_alone
from tests.places import QUESTION
from tests.sound_cards import FakeSounddevice, card
from tests.talking import FakePlayer, InstantPlayer
from voxrill.commands import loudspeaker
from voxrill.runtime.audio.streams import AudioSystem

SAY = ("speak", "kitchen lights on", "--threads", 1, "--seed", 3)


@pytest.fixture
def room(monkeypatch):
    """`room(*cards)`: sound cards, a terminal for stdout, and players that play at once; the players."""
    players = []

    def player(_system, rate, *_rest):
        players.append(InstantPlayer(rate))
        return players[-1]

    def furnish(*cards, terminal=True):
        monkeypatch.setattr(loudspeaker, "AudioSystem", lambda: AudioSystem(FakeSounddevice(*cards)))
        monkeypatch.setattr(loudspeaker, "Speaker", player)
        monkeypatch.setattr(loudspeaker, "is_terminal", lambda: terminal)
        monkeypatch.setattr(loudspeaker, "AFTER_LAST", 0)
        return players

    return furnish


DESK = card("Desk", outputs=2)
EAR = card("Ear", inputs=1)


def test_speak_plays_where_nothing_else_was_asked_for(cli, room):
    players = room(DESK)
    ran = cli(*SAY)
    assert (ran.status, ran.raw) == (0, b"")
    assert cli(*SAY, "-o", "a.wav").status == 0 and len(players) == 1
    written = soundfile.read("a.wav")[0]
    assert np.abs(players[0].heard[0] - written).max() < 1e-4 and np.abs(written).max() > 0.01
    assert players[0].begun[0][0] > 0  # playing begins when it is known how fast sound is made


def test_both_if_both_are_asked_for(cli, room):
    players = room(DESK, terminal=False)
    assert cli(*SAY, "--play", "-o", "a.wav").status == 0
    assert len(players[0].heard[0]) == soundfile.info("a.wav").frames > 0


def test_chat_plays_and_writes_its_words_to_stdout(cli, room):
    players = room(DESK)
    ran = cli("chat", QUESTION, "--threads", 1)
    assert ran.status == 0 and ran.out.strip() and "not kept" not in ran.err
    assert np.abs(players[0].heard[0]).max() > 0.01


@pytest.mark.parametrize("arguments", [("--no-play",), ("--output", "text")])
def test_chat_is_silent_if_told(cli, room, arguments):
    players = room(DESK)
    assert cli("chat", QUESTION, "--threads", 1, *arguments).status == 0
    assert players == []


def test_a_script_does_not_begin_to_speak(cli, room):
    players = room(DESK, terminal=False)
    assert "not kept: give -o OUT.wav or --play" in cli("chat", QUESTION, "--threads", 1).err
    cli.refuses(*SAY, saying=("nowhere to put the sound", "-o OUT.wav, --play"))
    assert players == []


def test_without_a_loudspeaker_it_says_once_where_the_sound_can_go(cli, room):
    room(EAR)
    ran = cli("chat", QUESTION, "--threads", 1)
    assert ran.status == 0 and ran.out.strip()
    assert ran.err.count("no loudspeaker on this machine: give -o OUT.wav") == 1
    ran = cli(*SAY)
    assert ran.status == 2 and ran.raw == b"" and "no loudspeaker" in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("arguments", [("--play",), ("--speaker", "Attic")])
def test_a_loudspeaker_that_was_asked_for_must_be_there(cli, room, arguments):
    room(EAR)
    cli.refuses(*SAY, *arguments, saying="no loudspeaker on this machine")
    room(DESK)
    if "--speaker" in arguments:
        cli.refuses(*SAY, *arguments, saying="'Attic' is not among: Desk")


def test_an_answer_shorter_than_the_measurement_is_played(monkeypatch):
    player = FakePlayer()
    playing = loudspeaker._Playing(player, 24_000)
    playing.take(loudspeaker.AudioEvent(np.ones(1920, np.float32), 24_000, None, 0.5))
    playing.finish()
    player.play(1.0)
    assert player.begun == [(None, loudspeaker.EXPECTED)] and len(player.heard[0]) == 1920


def test_the_answer_leaves_the_loudspeaker_whole(server, tmp_path):
    """On PulseAudio's wire, with the real PortAudio: from the first voiced sample to the last."""
    wire = server.wire("test")
    with VirtualUser(wire) as user:
        ran = run_alone(*SAY, "--play", "-o", "a.wav", cwd=tmp_path, **wire.program)
        played = user.recording()[:, 1]
    assert ran.status == 0, ran.err
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    (first, end), (started, ended) = voiced(played, WIRE_RATE), voiced(samples, rate)
    assert (end - first) / WIRE_RATE == pytest.approx((ended - started) / rate, abs=0.1)


# The question of chat


def test_the_spoken_question_is_an_argument(cli, room, monkeypatch):
    room(EAR, terminal=False)
    command = ("--output", "text", "--threads", 1)
    asked = cli("chat", QUESTION, *command)
    assert asked.status == 0 and asked.out == cli("chat", "--audio", QUESTION, *command).out != "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(QUESTION.read_bytes())))
    assert cli("chat", "-", *command).out == asked.out


def test_a_question_that_is_no_file(cli):
    cli.refuses("chat", "what time is it", saying=("There is no file what time is it", "--text"))
    Path("a.wav").write_bytes(QUESTION.read_bytes())
    cli.refuses("chat", "a.wav", "--audio", "a.wav", saying="two spoken questions")
    cli.refuses("chat", saying=("no question", "Give a sound file"))
