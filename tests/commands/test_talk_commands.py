"""talk, replay and snapshot on the command line, with a loudspeaker that only counts."""

import io
import json
import os
import signal
import threading
from functools import partial

import pytest
import soundfile

from tests.sound_cards import FakeSounddevice, card
from tests.talking import SPOKEN, ClipMicrophone, InstantPlayer, Watcher, spoken
from voxrill.commands import loudspeaker
from voxrill.commands import talk as talk_cli
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.talk.events import TurnEnded, UserHeard, UserSaid

NAMES = (
    "turn",
    "typed",
    "transcript",
    "text",
    "interrupted",
    "error",
    "waited",
    "underruns",
    "private_memory",
    "trace",
)


@pytest.fixture
def typed(cli, monkeypatch):
    """`typed(lines, *arguments)`: `voxrill talk --text` with these lines on stdin."""
    monkeypatch.setattr(loudspeaker, "AudioSystem", lambda: AudioSystem(FakeSounddevice(card("Desk", outputs=2))))
    monkeypatch.setattr(talk_cli, "Speaker", lambda _system, rate, *_rest, **_more: InstantPlayer(rate))

    def run(lines, *arguments):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines) if isinstance(lines, str) else lines)
        return cli("talk", "--text", "--threads", 1, *arguments)

    return run


def test_typed_lines_are_answered_one_by_one(typed):
    ran = typed("kitchen lights on\n\nhall lights off\n", "--json", "--seed", 5)
    turns = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 0
    assert [turn["typed"] for turn in turns] == ["kitchen lights on", "hall lights off"]
    assert [turn["text"].strip() for turn in turns] == ["kitchen lights on", "hall lights off"]
    assert all(tuple(turn) == NAMES and not turn["interrupted"] for turn in turns)


def test_a_talk_is_kept_and_replayed(typed, cli, tmp_path):
    ran = typed("kitchen lights on\nhall lights off\n", "--record", "kept", "--save", "turns", "--trace")
    assert ran.status == 0
    assert all(column in ran.err for column in ("encoder", "prefill", "queued", "waited"))
    ran = cli("replay", "kept")
    assert [line.split("\t")[:2] for line in ran.out.splitlines()] == [["1", "same"], ["2", "same"]]
    sound, rate = soundfile.read(tmp_path / "turns" / "turn-0001-answer.wav")
    assert rate == 24_000 and len(sound) > 12_000
    assert json.loads((tmp_path / "turns" / "turn-0002.json").read_text())["answer"].strip() == "hall lights off"
    assert typed("hall lights on\n", "--save", "turns").status == 0
    assert json.loads((tmp_path / "turns" / "turn-0003.json").read_text())["typed"] == "hall lights on"


def test_a_changed_recording_is_told_from_its_replay(typed, cli, tmp_path):
    typed("kitchen lights on\n", "--record", "kept")
    events = tmp_path / "kept" / "events.jsonl"
    events.write_text(events.read_text().replace('"text":"kitchen', '"text":"hall'))
    ran = cli("replay", "kept", "--json")
    assert ran.status == 2
    assert "turns 1 were not answered as recorded" in ran.err
    assert json.loads(ran.out)["same"] is False


def broken(old, new):
    """A change of a recording's events."""
    return lambda folder: (folder / "events.jsonl").write_text(
        (folder / "events.jsonl").read_text().replace(old, new, 1), encoding="utf-8"
    )


BROKEN = {
    "no sound": (lambda folder: (folder / "microphone.wav").unlink(), "is not a recording"),
    "sound that ends": (broken('"start":null,"end":null', '"start":0,"end":99999999'), "does not hold the sound"),
    "an end before the start": (broken('"start":null,"end":null', '"start":9,"end":1'), "does not hold the sound"),
    "a start below nothing": (broken('"start":null,"end":null', '"start":-9,"end":1'), "is not a recording"),
    "a seed below nothing": (broken('"seed":6', '"seed":-6'), "is not a recording"),
    "threads beyond number": (broken('"threads":1', '"threads":99999999'), "is not a recording"),
    "a limit of nothing": (broken('"max_new_tokens":null', '"max_new_tokens":-1'), ""),
    "no JSON": (lambda folder: (folder / "events.jsonl").write_bytes(b"\xff\n"), "is not a recording"),
}


@pytest.mark.parametrize(("change", "saying"), BROKEN.values(), ids=BROKEN.keys())
def test_a_recording_that_others_made_is_refused_without_a_traceback(typed, cli, tmp_path, change, saying):
    typed("kitchen lights on\n", "--record", "kept", "--mute", "--seed", 5)
    change(tmp_path / "kept")
    ran = cli("replay", "kept")
    assert ran.status == 2 and saying in ran.err and "Traceback" not in ran.err


def test_muted_answers_are_written_and_need_no_sound_at_all(typed, cli, monkeypatch):
    def none(*_arguments, **_options):
        raise AssertionError("a sound device was opened")

    monkeypatch.setattr(loudspeaker, "AudioSystem", none)
    monkeypatch.setattr(talk_cli, "Speaker", none)
    ran = typed("kitchen lights on\nhall lights off\n", "--mute", "--record", "kept", "--json")
    turns = [json.loads(line) for line in ran.out.splitlines()]
    assert [turn["text"].strip() for turn in turns] == ["kitchen lights on", "hall lights off"]
    assert [turn["trace"]["answer_seconds"] for turn in turns] == [0, 0]
    assert [line.split("\t")[1:3] for line in cli("replay", "kept").out.splitlines()] == [["same", "0 frames"]] * 2


def test_a_typed_talk_needs_no_sound_device(typed, monkeypatch):
    monkeypatch.setattr(loudspeaker, "AudioSystem", lambda: AudioSystem(FakeSounddevice(card("Ear", inputs=1))))
    ran = typed("kitchen lights on\n")
    assert (ran.status, ran.out) == (0, "kitchen lights on\n")
    assert ran.err.count("there is no loudspeaker on this machine: answers are only written") == 1


def test_a_typed_talk_refuses_a_loudspeaker_that_was_named_and_is_not_there(typed):
    ran = typed("kitchen lights on\n", "--speaker", "Attic")
    assert (ran.status, ran.out) == (2, "") and "'Attic' is not among: Desk" in ran.err


def test_a_talk_shows_what_it_heard(cli, monkeypatch):
    clip, watcher = SPOKEN[3], Watcher()  # its answer is not what was said
    ended = iter([partial(os.kill, os.getpid(), signal.SIGINT)])

    def microphone(*_arguments):
        return ClipMicrophone(watcher, spoken(clip), then=lambda: next(ended, lambda: None)())

    monkeypatch.setattr(talk_cli, "AudioSystem", object)
    monkeypatch.setattr(talk_cli, "DeviceMicrophone", microphone)
    monkeypatch.setattr(talk_cli, "make_view", lambda *_consoles: watcher)
    ran = cli("talk", "--mute", "--threads", 1, "--json")
    assert ran.status == 0, ran.err
    turn = json.loads(ran.out)
    assert turn["transcript"] == clip["text"] and turn["text"].strip() == clip["reply"]
    kinds = [type(event) for event in watcher.shown]
    assert watcher.shown[kinds.index(UserHeard)].text == clip["text"]
    assert kinds.index(UserSaid) < kinds.index(UserHeard) < kinds.index(TurnEnded)


def test_a_talk_may_go_on_from_a_snapshot(typed, cli, tmp_path):
    (tmp_path / "house.txt").write_text("turn on the kitchen lights")
    ran = cli("snapshot", "-o", "prompt.snapshot", "--document", "house.txt", "--json")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["bytes"] == (tmp_path / "prompt.snapshot").stat().st_size
    ran = typed("kitchen lights on\n", "--snapshot", "prompt.snapshot", "--record", "kept", "--json")
    assert json.loads(ran.out)["text"]
    assert "turn on the kitchen lights" in (tmp_path / "kept" / "events.jsonl").read_text()
    assert cli("replay", "kept").status == 0


def test_a_trace_for_the_browser(typed, tmp_path):
    typed("kitchen lights on\n", "--chrome-trace", "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"prefill", "text", "frame", "queued"} <= {event["name"] for event in events}
    assert all(event["dur"] >= 0 for event in events)


def test_ctrl_c_ends_the_talk_and_nothing_else(typed):
    over = threading.Event()

    def lines():
        yield "kitchen lights on\n"
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(60)  # a keyboard on which nothing more is typed

    before = signal.getsignal(signal.SIGINT)
    try:
        ran = typed(Keyboard(lines()), "--json")
        assert not over.is_set()
    finally:
        over.set()
    assert ran.status == 0 and "Traceback" not in ran.err
    assert [json.loads(line)["typed"] for line in ran.out.splitlines()] == ["kitchen lights on"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_terminal_that_is_closed_ends_the_talk_as_ctrl_c_does(typed, tmp_path):
    over = threading.Event()

    def lines():
        yield "kitchen lights on\n"
        os.kill(os.getpid(), signal.SIGHUP)
        over.wait(60)

    try:
        ran = typed(Keyboard(lines()), "--record", "kept", "--json")
    finally:
        over.set()
    assert ran.status == 0 and [json.loads(line)["typed"] for line in ran.out.splitlines()] == ["kitchen lights on"]
    assert soundfile.read(tmp_path / "kept" / "microphone.wav")[1] == 16_000
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("stdin", "saying"),
    [
        (None, "--text reads standard input, and that is closed"),
        (io.TextIOWrapper(io.BytesIO(b"kitchen \xff\n"), "utf-8"), "standard input cannot be read"),
    ],
    ids=["closed", "no text"],
)
def test_stdin_that_cannot_be_read_ends_the_talk(typed, stdin, saying):
    ran = typed(stdin)
    assert ran.status == 2 and saying in ran.err and "Traceback" not in ran.err


class Keyboard:
    """A stdin whose lines come as they are typed."""

    def __init__(self, lines):
        self._lines = lines

    def __iter__(self):
        return self._lines

    def isatty(self):
        return False


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (("--push-to-talk",), "--text"),
        (("--endpoint", "0.1"), "0.128"),
        (("--system", "x", "--snapshot", "y"), "--snapshot"),
        (("--snapshot", "missing"), "voxrill snapshot"),
        (("--record", "."), "new folder"),
    ],
)
def test_what_does_not_go_together_is_refused(typed, tmp_path, arguments, saying):
    (tmp_path / "something").touch()
    ran = typed("", *arguments)
    assert ran.status == 2
    assert saying in ran.err.splitlines()[-1]
