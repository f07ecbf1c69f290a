"""Output files: no input is overwritten, by whatever name; what others made is kept; suffixes mean what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.command_line import clean_environment, run_alone
from tests.places import PEBBLE, QUESTION, ROOT
from voxrill.commands.output_files import check_output
from voxrill.runtime.audio.sound_writer import made_by_us, write_sound
from voxrill.runtime.errors import UsageError
from voxrill.runtime.picture import figure_class, save_picture

COMMANDS = ROOT / "examples" / "commands.toml"
WHY = "writing would destroy it"


@pytest.fixture
def recording(tmp_path):
    """A recording of somebody, `in.wav`, and what it holds."""
    shutil.copy(QUESTION, "in.wav")
    return Path("in.wav").read_bytes()


COMMANDS_WITH_SOUND = {
    "chat": ("chat", "--audio"),
    "translate": ("translate", "--to", "German", "--output", "both"),
    "control": ("control", COMMANDS, "--dry-run"),
    "transcribe": ("transcribe", "--format", "srt"),
}


# No input is overwritten


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize("name", ["in.wav", "./in.wav", "soft.wav", "hard.wav", "../{folder}/in.wav"])
@pytest.mark.parametrize("command", COMMANDS_WITH_SOUND)
def test_a_recording_is_not_overwritten_by_what_was_heard_in_it(cli, recording, tmp_path, command, name, force):
    os.symlink("in.wav", "soft.wav")
    os.link("in.wav", "hard.wav")
    out = name.format(folder=tmp_path.name)
    cli.refuses(*COMMANDS_WITH_SOUND[command], "in.wav", "-o", out, *force, saying=("also an input", WHY))
    assert Path("in.wav").read_bytes() == recording


def test_the_commands_file_and_the_journal_are_inputs_too(cli, recording):
    shutil.copy(COMMANDS, "mine.wav")
    cli.refuses("control", "mine.wav", "in.wav", "-o", "mine.wav", "--force", saying=WHY)
    shutil.copy("in.wav", "a.srt.journal")
    cli.refuses("transcribe", "a.srt.journal", "-o", "a.srt", saying=WHY)


def test_other_commands_keep_their_inputs(cli, recording):
    Path("golden").mkdir()
    shutil.copy("in.wav", "golden/vectors.json")
    cli.refuses("golden", "golden", "--audio", "golden/vectors.json", "--force", saying=WHY)
    Path("notes.md").write_text("years of work")
    cli.refuses("snapshot", "--document", "notes.md", "-o", "notes.md", saying=WHY)
    shutil.copytree(PEBBLE, "bundle")
    cli.refuses("pack", "bundle", "-o", "bundle/manifest.json", "--force", saying=WHY)


# What others made is kept


@pytest.mark.parametrize("command", ["speak", *COMMANDS_WITH_SOUND])
def test_a_recording_that_is_in_the_way_is_kept_unless_it_is_forced(cli, recording, command):
    Path("old.wav").write_bytes(recording)
    question = ("speak", "kitchen lights on") if command == "speak" else (*COMMANDS_WITH_SOUND[command], "in.wav")
    cli.refuses(*question, "-o", "old.wav", saying=("old.wav exists already", "--force"))
    assert cli(*question, "-o", "old.wav", "--force").status == 0
    assert Path("old.wav").read_bytes() != recording


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.ogg", "a.opus"])
def test_a_sound_of_ours_is_replaced_as_often_as_one_likes(cli, name):
    for words in ("kitchen lights on", "kitchen lights off"):
        ran = cli("speak", words, "-o", name)
        assert ran.status == 0 and f"wrote {name}" in ran.err
        assert made_by_us(name) and soundfile.info(name).frames > 12_000


def test_a_transcript_that_may_have_been_corrected_is_kept(cli, recording):
    assert cli("transcribe", "in.wav", "-o", "a.srt").status == 0
    Path("a.srt").write_text("corrected by hand")
    cli.refuses("transcribe", "in.wav", "-o", "a.srt", saying=("a.srt exists already", "--force"))
    assert cli("transcribe", "in.wav", "-o", "a.srt", "--force").status == 0
    assert "-->" in Path("a.srt").read_text()


def test_a_pack_and_a_recipe_are_kept(cli):
    shutil.copytree(PEBBLE, "bundle")
    assert cli("pack", "bundle", "-o", "b.voxrill").status == 0
    cli.refuses("pack", "bundle", "-o", "b.voxrill", saying=("b.voxrill exists already", "--force"))
    assert cli("pack", "bundle", "-o", "b.voxrill", "--force").status == 0


def test_golden_vectors_are_kept(cli, recording):
    assert cli("golden", "folder", "--audio", "in.wav").status == 0
    cli.refuses("golden", "folder", "--audio", "in.wav", saying=("vectors.npz exists already", "--force"))
    assert cli("golden", "folder", "--audio", "in.wav", "--force").status == 0
    assert cli("golden", "folder").status == 0


def test_a_snapshot_of_ours_is_replaced_and_a_letter_is_not(cli):
    for _ in range(2):
        assert cli("snapshot", "-o", "a.snapshot").status == 0
    Path("letter").write_text("Dear Voxrill")
    cli.refuses("snapshot", "-o", "letter", saying="letter exists already")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_plot_of_ours_is_replaced_and_another_is_not(tmp_path, suffix):
    pytest.importorskip("matplotlib", reason="the demo extra is not installed")
    figure = figure_class("demo")()
    figure.subplots().plot(range(1000))
    figure.savefig(tmp_path / f"other.{suffix}")
    save_picture(figure, tmp_path / f"ours.{suffix}")
    check_output(tmp_path / f"ours.{suffix}")
    with pytest.raises(UsageError, match="exists already"):
        check_output(tmp_path / f"other.{suffix}")


@pytest.mark.parametrize("content", [b"", b"Voxrill", b"<p>Voxrill wrote this", b"RIFF\0\0\0\0WAVEVoxrill"])
def test_a_name_in_a_text_makes_no_file_ours(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UsageError, match="exists already"):
        check_output(tmp_path / "a")


def test_devices_may_always_be_written_to(tmp_path):
    check_output(os.devnull)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        check_output(tmp_path / "pipe")


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout here")
def test_dev_stdout_is_stdout(cli, recording, tmp_path):
    for command in (("transcribe", "in.wav", "--format", "srt"), ("speak", "kitchen lights on")):
        done = subprocess.run(
            [sys.executable, "-m", "voxrill", *command, "-o", "/dev/stdout"],
            cwd=tmp_path, env=clean_environment(), capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"-->" in done.stdout or done.stdout.startswith(b"RIFF")
    assert not Path("/dev/stdout.journal").exists()


# Suffixes mean what they say


@pytest.mark.parametrize("name", ["x.m4a", "x.docx", "x.aac"])
@pytest.mark.parametrize("command", ["speak", "chat", "translate", "control"])
def test_a_sound_format_that_cannot_be_written_is_refused_by_name(cli, recording, command, name):
    question = ("speak", "lights on") if command == "speak" else (*COMMANDS_WITH_SOUND[command], "in.wav")
    cli.refuses(*question, "-o", name, saying=(name[1:], ".wav, .flac, .ogg, .opus, .mp3"))


@pytest.mark.parametrize("name", ["q.docx", "q.pdf", "q.wav"])
def test_a_form_of_transcript_that_cannot_be_written_is_refused_by_name(cli, recording, name):
    cli.refuses("transcribe", "in.wav", "-o", name, saying=(name[1:], ".txt, .srt, .vtt, .json", "--format"))
    assert cli("transcribe", "in.wav", "-o", name, "--format", "plain").status == 0


def test_a_sound_that_nobody_makes_is_not_asked_for_in_vain(cli):
    cli.refuses("chat", "--text", "lights on", "--output", "text", "-o", "a.wav", saying="--output text makes no sound")


def test_a_hyphen_is_stdout_for_a_transcript_too(cli, recording):
    ran = cli("transcribe", "in.wav", "-o", "-")
    assert ran.status == 0 and ran.out.startswith("turn on") and [path.name for path in Path().iterdir()] == ["in.wav"]


# Pipes


def piped(tmp_path, data, *command):
    done = subprocess.run(
        [sys.executable, "-m", "voxrill", *map(str, command)], input=data, cwd=tmp_path, env=clean_environment(),
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("options", [(), ("--format", "srt"), ("-o", "a.srt")], ids=["plain", "format", "out"])
def test_a_transcript_of_a_pipe(cli, recording, tmp_path, name, options):
    wanted = cli("transcribe", "in.wav", *options).out
    if options[:1] == ("-o",):
        wanted = Path("a.srt").read_text()
        Path("a.srt").unlink()
    status, out, err = piped(tmp_path, recording, "transcribe", name, *options)
    assert status == 0, err
    assert (Path("a.srt").read_text() if options[:1] == ("-o",) else out) == wanted


@pytest.mark.parametrize(
    "command",
    [
        ("chat", "--output", "text", "--audio"),
        ("control", COMMANDS, "--dry-run"),
        ("classify",),
        ("translate", "--to", "German"),
    ],
    ids=lambda command: command[0],
)
def test_other_commands_hear_a_pipe(cli, recording, tmp_path, command):
    wanted = cli(*command, "in.wav").out
    status, out, err = piped(tmp_path, recording, *command, "-")
    assert (status, out) == (0, wanted), err


def test_what_a_pipe_does_not_bring_is_told(tmp_path):
    assert "stdin is empty" in piped(tmp_path, b"", "transcribe", "-")[2]
    assert "stdin is not a sound file" in piped(tmp_path, b"no sound at all, only text", "transcribe", "-")[2]
    both = piped(tmp_path, b"", "chat", "--audio", "-", "--text", "-")
    assert both[0] == 2 and "stdin cannot be both" in both[2]


# Folders


def test_what_a_folder_holds_beside_sounds_is_named(cli, tmp_path):
    Path("calls", "more").mkdir(parents=True)
    write_sound("calls/a.flac", soundfile.read(QUESTION, dtype="float32")[0], 16_000)
    for name in ("a.txt", "notes.docx", "more/film.avi", ".hidden.wav", "b.txt"):
        Path("calls", name).write_text("x")
    ran = cli("transcribe", "calls")
    assert ran.status == 0
    (line,) = [line for line in ran.err.splitlines() if "left out" in line]
    assert all(name in line for name in ("notes.docx", "film.avi", "b.txt"))
    assert "a.txt" not in line and "hidden" not in line


def test_of_many_other_files_the_first_are_named(cli):
    Path("calls").mkdir()
    shutil.copy(QUESTION, "calls/a.wav")
    for number in range(30):
        Path("calls", f"{number:02}.doc").touch()
    err = cli("transcribe", "calls").err
    assert "19.doc and 10 more" in err and "20.doc" not in err


@pytest.mark.parametrize("suffix", [".opus", ".aiff", ".OGG", ".m4a"])
def test_a_folder_leaves_no_kind_out(cli, suffix):
    Path("calls").mkdir()
    samples = soundfile.read(QUESTION, dtype="float32")[0]
    if suffix == ".m4a":
        Path("calls/a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
        ran = cli("transcribe", "calls")
        assert ran.status == 2 and "a.m4a" in ran.err and '"error"' in ran.out
        return
    form = {".opus": ("OGG", "OPUS"), ".aiff": ("AIFF", "PCM_16"), ".OGG": ("OGG", "VORBIS")}[suffix]
    soundfile.write(f"calls/a{suffix}", samples, 16_000, format=form[0], subtype=form[1])
    ran = cli("transcribe", "calls")
    assert ran.status == 0 and '"text"' in ran.out and "left out" not in ran.err


def test_what_is_amiss_with_a_sound_of_a_folder_is_in_its_record(cli):
    Path("calls").mkdir()
    data = QUESTION.read_bytes()
    Path("calls/cut.wav").write_bytes(data[: len(data) // 2])
    ran = cli("transcribe", "calls")
    assert ran.status == 0 and '"notices":["calls/cut.wav is cut off: ' in ran.out


def test_a_sound_that_cancels_itself_is_heard_and_told(cli, tmp_path):
    samples = soundfile.read(QUESTION, dtype="float32")[0]
    soundfile.write("a.wav", np.stack([samples, -samples], axis=1), 16_000)
    ran = run_alone("transcribe", "a.wav", cwd=tmp_path)
    assert ran.status == 0 and ran.out == cli("transcribe", QUESTION).out != "\n"
    assert "a.wav: its channels cancel each other" in ran.err


def test_a_cut_file_is_told_on_stderr(cli, tmp_path):
    samples, rate = soundfile.read(QUESTION, dtype="int16")
    soundfile.write("cut.wav", np.concatenate([samples, np.zeros(rate, np.int16)]), rate)
    Path("cut.wav").write_bytes(Path("cut.wav").read_bytes()[:-rate])  # half a second of the silence is lost
    ran = run_alone("transcribe", "cut.wav", cwd=tmp_path)
    assert ran.status == 0 and "cut.wav is cut off" in ran.err and ran.out.strip() == "turn on the kitchen lights"


def test_sounds_that_are_kept_replace_no_recordings(cli):
    Path("texts.txt").write_text("kitchen lights on\n")
    Path("kept").mkdir()
    command = ("eval", "tts", "--data", "texts.txt", "--judge", "none", "--sounds", "kept")
    assert cli(*command).status == 0
    (kept,) = Path("kept").iterdir()
    assert made_by_us(kept) and cli(*command).status == 0
    shutil.copy(QUESTION, kept)
    cli.refuses(*command, saying=f"{kept} exists already")
