"""What stderr says beside the answer: the built-in model is introduced once, --quiet leaves warnings and errors."""

import os

import pytest
import soundfile

from tests.places import QUESTION
from tests.signals import SAMPLE_RATE, speech_like
from voxrill.commands import options
from voxrill.runtime.audio import end_of_turn
from voxrill.runtime.bundle.builtin import open_builtin

NOTE = options.builtin_note(open_builtin().manifest)
ASK = ("transcribe", QUESTION, "--threads", 1)


@pytest.fixture
def machine(monkeypatch, tmp_path_factory):
    """The state folder of a machine on which nothing was run yet."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def test_the_built_in_model_is_introduced_once_on_a_machine(cli, machine):
    first, second = cli(*ASK), cli(*ASK)
    assert first.err == f"{NOTE}\n" and second.err == ""
    assert first.out == second.out
    assert [path.read_bytes() for path in machine.rglob("*") if path.is_file()] == [b""]


def test_an_introduction_never_stands_before_an_error(cli, machine):
    cli.refuses("transcribe", "missing.wav", saying="missing.wav")
    cli.refuses("chat", "--text", "hello", "--output", "text", "-o", "-", saying="--output")
    assert cli(*ASK).err == f"{NOTE}\n"  # it is still to come


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written(cli, machine):
    machine.chmod(0o500)
    assert cli(*ASK).err == cli(*ASK).err == f"{NOTE}\n"


def test_a_state_folder_that_is_none(cli, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert cli(*ASK).err == cli(*ASK).err == f"{NOTE}\n"


def test_a_home_that_cannot_be_looked_into(cli, monkeypatch, tmp_path):
    """Its name is too long, which the system refuses as it refuses a home that may not be entered, root included."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / ("a" * 300)))
    assert cli(*ASK).err == cli(*ASK).err == f"{NOTE}\n"
    assert end_of_turn.find_model(end_of_turn.AUTO) is None


@pytest.mark.parametrize("command", [("-q", *ASK), (*ASK, "-q"), (*ASK, "--quiet")], ids=["before", "after", "long"])
def test_quiet_leaves_the_answer(cli, machine, command):
    ran = cli(*command)
    assert ran.status == 0 and ran.out.strip() and ran.err == ""


def test_quiet_holds_for_one_command(cli):
    assert cli(*ASK, "-q").err == "" and cli(*ASK).err == f"{NOTE}\n"


def test_quiet_keeps_warnings_and_errors(cli, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    soundfile.write(tmp_path / "a.wav", speech_like(SAMPLE_RATE), SAMPLE_RATE)
    ran = cli("transcribe", "a.wav", "bad.wav", "-q")
    assert ran.status == 2 and "bad.wav is not a sound file" in ran.err and "1 of 2 files" in ran.err
    assert ran.err.count("\n") == 2


def test_quiet_says_nothing_of_what_was_written(cli):
    ran = cli("speak", "kitchen lights on", "-o", "a.wav", "-q")
    assert (ran.status, ran.raw, ran.err) == (0, b"", "") and soundfile.info("a.wav").frames


def test_a_quiet_talk_writes_its_answers(cli, monkeypatch, tmp_path):
    (tmp_path / "lines").write_text("kitchen lights on\n")
    with open(tmp_path / "lines", encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        ran = cli("talk", "--text", "--mute", "-q")
    assert (ran.status, ran.out, ran.err) == (0, "kitchen lights on\n", "")
