"""transcribe and translate on the command line: long files, subtitles, journals, folders, the microphone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.talk.sound_server import WIRE_RATE
from benchmarks.talk.virtual_user import VirtualUser
from tests.command_line import clean_environment, run_alone
from tests.places import ROOT
from tests.signals import SAMPLE_RATE, speech_like
from tests.talking import CLIPS, SPOKEN, ClipMicrophone, silence, spoken
from voxrill.commands import transcribe as transcribe_cli
from voxrill.commands import transcript_writer as writing
from voxrill.runtime.apps import one_writer
from voxrill.runtime.apps.batch import ResultsFile
from voxrill.runtime.apps.journal import Journal
from voxrill.runtime.apps.subtitles import FORMS
from voxrill.runtime.apps.transcript import SegmentEvent
from voxrill.runtime.audio import end_of_turn
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.errors import DataError, UsageError

SPOKEN = SPOKEN[:1] + SPOKEN[2:]  # of the second, the built-in model hears "forty" for "thirty" in a segment
SAID = [clip["words"] for clip in SPOKEN[:12]]


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    """Twelve commands with pauses: 40 seconds, `meeting.flac`."""
    file = tmp_path_factory.mktemp("meeting") / "meeting.flac"
    soundfile.write(
        file, np.concatenate([part for clip in SPOKEN[:12] for part in (silence(0.9), spoken(clip))]), 16_000
    )
    return file


@pytest.fixture
def long(meeting, tmp_path):
    """The meeting in the current folder."""
    shutil.copy(meeting, tmp_path)
    return "meeting.flac"


def lines_of_json(text):
    return [json.loads(line) for line in text.splitlines()]


# Files of any length


def test_a_long_file_is_a_line_a_segment(cli, long):
    ran = cli("transcribe", long)
    assert ran.status == 0 and ran.out.splitlines() == SAID


def test_a_short_file_is_heard_whole(cli, tmp_path):
    """Two commands in one file are one line, as they always were."""
    soundfile.write("short.wav", np.concatenate([spoken(SPOKEN[0]), silence(1), spoken(SPOKEN[1])]), 16_000)
    assert cli("transcribe", "short.wav").out.count("\n") == 1
    assert cli("transcribe", "short.wav", "--format", "plain").out.splitlines() == SAID[:2]


def test_events_for_machines(cli, long):
    found = lines_of_json(cli("transcribe", long, "--json").out)
    assert [one["text"] for one in found] == SAID and {one["event"] for one in found} == {"segment"}
    assert [one["number"] for one in found] == list(range(1, 13))
    assert all(one["start"] < one["end"] for one in found)
    assert all(first["end"] < second["start"] for first, second in pairwise(found))


def test_long_and_short_files_together_say_their_names(cli, long):
    shutil.copy(CLIPS / SPOKEN[0]["file"], "short.flac")
    ran = cli("transcribe", long, "short.flac")
    assert ran.out.splitlines() == [f"{long}\t{text}" for text in SAID] + [f"short.flac\t{SAID[0]}"]


@pytest.mark.parametrize("name", ["notes.srt", "notes.vtt", "notes.json", "notes.txt"])
def test_an_output_file_is_what_stdout_would_be(cli, long, name):
    form = {"txt": "plain"}.get(name[-3:], name[6:])
    ran = cli("transcribe", long, "-o", name)
    assert ran.status == 0 and ran.raw == b""
    assert Path(name).read_text() == cli("transcribe", long, "--format", form).out
    assert sorted(path.name for path in Path().iterdir()) == ["meeting.flac", name]


def test_subtitles_can_be_read_by_others(cli, long):
    """WebVTT and SubRip by ffmpeg, where it is installed."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    for name in ("notes.vtt", "notes.srt"):
        cli("transcribe", long, "-o", name)
        read = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", name, "-f", "webvtt", "-"], capture_output=True, text=True
        )
        assert read.returncode == 0 and read.stderr == ""
        assert [line for line in read.stdout.splitlines() if line in SAID] == SAID


def test_a_sparse_recording_of_three_hours_is_read_in_pieces(cli, tmp_path, monkeypatch):
    """Most of its 345 MB are a hole in the file; a file read whole would be refused here."""
    header = 44
    soundfile.write("long.wav", spoken(SPOKEN[0]), 16_000)
    size = 3 * 3600 * 16_000 * 2
    with open("long.wav", "r+b") as file:
        file.truncate(header + size)
        file.seek(4)
        file.write((size + header - 8).to_bytes(4, "little"))
        file.seek(40)
        file.write(size.to_bytes(4, "little"))
    monkeypatch.setattr(writing, "Transcriber", Quick)
    ran = cli("transcribe", "long.wav")
    assert ran.status == 0 and ran.out.splitlines() == [f"{size // 2} samples, at most {1 << 16} at a time"]


class Quick:
    """Counts what it hears."""

    def __init__(self, *_arguments, **_options):
        pass

    def stream(self, sound, _hurry=None):
        counts = [len(piece) for piece in sound]
        yield SegmentEvent(1, 0.0, 1.0, f"{sum(counts)} samples, at most {max(counts)} at a time")


def test_a_header_that_promises_ten_hours_is_not_believed(cli, tmp_path):
    soundfile.write("liar.wav", spoken(SPOKEN[0])[:500], 16_000)
    with open("liar.wav", "r+b") as file:
        file.seek(40)
        file.write((10 * 3600 * 16_000 * 2).to_bytes(4, "little"))
    assert Path("liar.wav").stat().st_size < 1100
    for more in ((), ("--format", "srt")):
        ran = run_alone("transcribe", "liar.wav", *more, cwd=tmp_path)
        assert ran.status == 0 and "35999.969 s of the 36000.000 s" in ran.err


# Journals


def begun(long, name, segments, monkeypatch, cli):
    """A transcript that is interrupted by Ctrl-C after so many segments."""
    add = Journal.add

    def then_interrupt(self, segment):
        add(self, segment)
        if self.found == segments:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", then_interrupt)
        ran = cli("transcribe", long, "-o", name)
    assert ran.status != 0 and f"{segments} segments are kept in {name}.journal" in ran.err
    assert not Path(name).exists() and Path(f"{name}.journal").exists()


def test_an_interrupted_transcript_goes_on(cli, long, monkeypatch):
    begun(long, "notes.srt", 5, monkeypatch, cli)
    asked = []
    hear = writing.ModelRecogniser.__call__
    monkeypatch.setattr(
        writing.ModelRecogniser, "__call__", lambda self, samples: asked.append(1) or hear(self, samples)
    )
    ran = cli("transcribe", long, "-o", "notes.srt")
    assert ran.status == 0 and "5 segments were finished before" in ran.err
    assert len(asked) == 7
    assert Path("notes.srt").read_text() == cli("transcribe", long, "--format", "srt").out
    assert not Path("notes.srt.journal").exists()


def test_the_journal_of_another_sound_is_refused(cli, long, monkeypatch):
    begun(long, "notes.srt", 2, monkeypatch, cli)
    soundfile.write(long, spoken(SPOKEN[0]), 16_000)
    ran = cli("transcribe", long, "-o", "notes.srt")
    assert ran.status == 2 and "notes.srt.journal is of an unfinished transcript with another sound" in ran.err
    assert Path("notes.srt.journal").exists()


def test_the_journal_of_other_options_is_refused(cli, long, monkeypatch):
    begun(long, "notes.srt", 2, monkeypatch, cli)
    ran = cli("transcribe", long, "-o", "notes.srt", "--seed", 3)
    assert ran.status == 2 and "another options" in ran.err


def segment(number):
    return SegmentEvent(number, float(number), number + 0.5, f"text {number}")


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path):
    with Journal(tmp_path / "a", {"sound": "x"}) as journal:
        journal.add(segment(1))
        journal.add(segment(2))
    with open(journal.path, "r+b") as file:
        file.truncate(journal.path.stat().st_size - 5)
    with Journal(tmp_path / "a", {"sound": "x"}) as journal:
        assert list(journal.segments()) == [segment(1)]
        journal.add(segment(3))
        journal.finish(FORMS["plain"])
    assert (tmp_path / "a").read_text() == "text 1\ntext 3\n"


def test_a_journal_without_segments_leaves_nothing(tmp_path):
    with Journal(tmp_path / "a", {"sound": "x"}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_journal_is_not_overwritten(tmp_path):
    (tmp_path / "a.journal").write_text("my own notes\n")
    with pytest.raises(DataError, match="not a journal of ours"), Journal(tmp_path / "a", {"sound": "x"}):
        pass
    assert (tmp_path / "a.journal").read_text() == "my own notes\n"


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started without it
from voxrill.commands import transcript_writer as writing
hear = writing.ModelRecogniser.__call__
def slowly(self, samples):
    time.sleep(0.3)
    return hear(self, samples)
writing.ModelRecogniser.__call__ = slowly
from voxrill.__main__ import main
main()
"""


def started(script, *arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=cwd, env=clean_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_lines(file, count, process, seconds=60):
    until = time.monotonic() + seconds
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_transcript_loses_no_finished_segment(cli, long, tmp_path):
    journal = tmp_path / "notes.vtt.journal"
    with started(SLOW, "transcribe", long, "-o", "notes.vtt", cwd=tmp_path) as process:
        wait_for_lines(journal, 4, process)
        process.kill()
    kept = journal.read_bytes().count(b"\n") - 1
    ran = cli("transcribe", long, "-o", "notes.vtt")
    assert ran.status == 0 and f"{kept} segments were finished before" in ran.err
    assert (tmp_path / "notes.vtt").read_text() == cli("transcribe", long, "--format", "vtt").out


# One writer at a time


def test_a_second_writer_of_a_transcript_is_refused(cli, long, tmp_path):
    with Journal(tmp_path / "notes.srt", {"sound": "x"}) as journal:
        journal.add(segment(1))
        before = journal.path.read_bytes()
        cli.refuses("transcribe", long, "-o", "notes.srt", saying=("notes.srt is being written by another voxrill",))
        assert journal.path.read_bytes() == before
    with pytest.raises(UsageError, match="another sound"), Journal(tmp_path / "notes.srt", {"sound": "y"}):
        pass  # the lock ends with the first one


def test_a_second_writer_of_a_list_is_refused(cli, folder, tmp_path):
    with ResultsFile(tmp_path / "all.jsonl", "made") as results:
        record = {"file": "a", "sha256": "b", "made_with": "made"}
        results.add(record)
        ran = cli("transcribe", folder, "-o", "all.jsonl", "--force")
        assert ran.status == 2 and "all.jsonl is being written by another voxrill" in ran.err
    assert lines_of_json(Path("all.jsonl").read_text()) == [record]


def test_a_finished_output_is_not_mistaken_for_one_in_use(tmp_path, monkeypatch):
    """The other process ends, and removes its journal, between the look at the file and its lock."""
    file = tmp_path / "a.journal"
    file.touch()
    lock = one_writer.lock_folder

    def late(path):
        taken = lock(path)
        file.unlink()
        return taken

    monkeypatch.setattr(one_writer, "lock_folder", late)
    assert one_writer.lock_output(file, tmp_path / "a") is None


# Folders


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of six commands, in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calls" / "more").mkdir(parents=True)
    for number, clip in enumerate(SPOKEN[:6]):
        shutil.copy(CLIPS / clip["file"], tmp_path / "calls" / ("more" if number % 2 else ".") / f"{number}.flac")
    return "calls"


def texts(text):
    return {Path(one["file"]).stem: one.get("text") for one in lines_of_json(text)}


WANTED = {str(number): text for number, text in enumerate(SAID[:6])}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_is_a_line_a_sound(cli, folder, jobs):
    ran = cli("transcribe", folder, "--jobs", jobs)
    assert ran.status == 0 and texts(ran.out) == WANTED
    for one in lines_of_json(ran.out):
        assert tuple(one) == ("file", "sha256", "made_with", "seconds", "text", "segments")
        (only,) = one["segments"]
        assert only["text"] == one["text"] and only["end"] <= one["seconds"] + 0.032


def test_a_folder_becomes_a_file_of_subtitles_beside_each_sound(cli, folder):
    ran = cli("transcribe", folder, "--format", "srt")
    assert ran.status == 0 and ran.raw == b""
    sounds = sorted(Path(folder).rglob("*.flac"))
    assert sorted(Path(folder).rglob("*.srt")) == [sound.with_suffix(".srt") for sound in sounds]
    assert ran.err.count("wrote ") == 6
    one = sounds[0]
    assert one.with_suffix(".srt").read_text() == cli("transcribe", one, "--format", "srt").out
    again = cli("transcribe", folder, "--format", "srt")
    assert (again.status, again.raw) == (0, b"") and "6 of 6 sounds have their file already" in again.err


def test_a_file_for_each_sound_in_a_folder_of_their_own(cli, folder):
    one, two = Path(folder, "0.flac"), Path(folder, "more", "1.flac")
    assert cli("transcribe", one, two, "--format", "vtt", "-o", "subtitles").status == 0
    assert sorted(path.name for path in Path("subtitles").iterdir()) == ["0.vtt", "1.vtt"]
    assert cli("transcribe", folder, "--format", "plain", "-o", "words").status == 0
    assert Path("words", "more", "1.txt").read_text() == SAID[1] + "\n"
    Path("words", "0.txt").write_text("mended by hand")
    ran = cli("transcribe", folder, "--format", "plain", "-o", "words")
    assert "6 of 6 sounds" in ran.err and Path("words", "0.txt").read_text() == "mended by hand"
    assert cli("transcribe", folder, "--format", "plain", "-o", "words", "--force").status == 0
    assert Path("words", "0.txt").read_text() == SAID[0] + "\n"


def test_one_of_several_that_is_no_sound_does_not_stop_the_others(cli, folder):
    Path(folder, "bad.wav").write_text("no sound")
    ran = cli("transcribe", folder, "--format", "srt")
    assert ran.status == 2 and "1 of 7 files" in ran.err and not Path(folder, "bad.srt").exists()
    assert len(list(Path(folder).rglob("*.srt"))) == 6


def test_two_sounds_never_share_a_file(cli, folder):
    shutil.copy(Path(folder, "0.flac"), Path(folder, "0.wav"))
    cli.refuses("transcribe", folder, "--format", "srt", saying=("0.flac", "0.wav", "would both become", "0.srt"))
    Path("subtitles").touch()
    cli.refuses("transcribe", folder, "--format", "srt", "-o", "subtitles", saying="subtitles is a file")


def test_several_files_are_a_list_as_a_folder_is(cli, folder):
    ran = cli("transcribe", Path(folder, "0.flac"), Path(folder, "2.flac"), "-o", "all.jsonl")
    assert ran.status == 0 and "wrote all.jsonl, 2 sounds\n" in ran.err
    assert texts(Path("all.jsonl").read_text()) == {"0": SAID[0], "2": SAID[2]}
    ran = cli("transcribe", folder, "-o", "all.jsonl", "-q")
    assert ran.err == "" and len(texts(Path("all.jsonl").read_text())) == 6


def test_a_bad_file_is_reported_and_the_rest_goes_on(cli, folder):
    Path(folder, "bad.wav").write_text("no sound")
    ran = cli("transcribe", folder, "-o", "all.jsonl")
    assert ran.status == 2 and ran.raw == b""
    assert "bad.wav is not a sound file" in ran.err and "1 of 7 files" in ran.err
    assert texts(Path("all.jsonl").read_text()) == {**WANTED, "bad": None}
    Path(folder, "bad.wav").unlink()
    shutil.copy(CLIPS / SPOKEN[6]["file"], Path(folder, "bad.flac"))
    ran = cli("transcribe", folder, "-o", "all.jsonl")
    assert ran.status == 0 and "6 of 7 sounds were finished before" in ran.err
    assert texts(Path("all.jsonl").read_text()) == {**WANTED, "bad": SAID[6]}


def test_a_sound_that_changed_is_heard_again(cli, folder):
    cli("transcribe", folder, "-o", "all.jsonl")
    shutil.copy(CLIPS / SPOKEN[8]["file"], Path(folder, "0.flac"))
    assert "5 of 6 sounds" in cli("transcribe", folder, "-o", "all.jsonl").err
    assert texts(Path("all.jsonl").read_text()) == {**WANTED, "0": SAID[8]}


def test_what_was_made_otherwise_is_refused(cli, folder):
    cli("transcribe", folder, "-o", "all.jsonl")
    before = Path("all.jsonl").read_bytes()
    ran = cli("transcribe", folder, "-o", "all.jsonl", "--seed", 3)
    assert ran.status == 2 and "another Voxrill, bundle or options" in ran.err
    assert Path("all.jsonl").read_bytes() == before
    Path("all.jsonl").write_text("my own notes\n")
    ran = cli("transcribe", folder, "-o", "all.jsonl")
    assert ran.status == 2 and "is not a list of transcripts" in ran.err
    assert Path("all.jsonl").read_text() == "my own notes\n"
    assert cli("transcribe", folder, "-o", "all.jsonl", "--force").status == 0
    assert texts(Path("all.jsonl").read_text()) == WANTED


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout here")
def test_a_list_may_go_down_a_pipe(folder, tmp_path):
    ran = run_alone("transcribe", folder, "-o", "/dev/stdout", cwd=tmp_path)
    assert ran.status == 0 and texts(ran.out) == WANTED


def test_a_folder_without_sounds_is_refused(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty is a folder without sounds" in cli("transcribe", "empty").err


SLOW_BATCH = SLOW.replace("apps import writing", "apps import transcription as writing")


def test_a_finished_batch_has_nothing_left_to_do(cli, folder):
    cli("transcribe", folder, "-o", "all.jsonl")
    before = Path("all.jsonl").read_bytes()
    ran = cli("transcribe", folder, "-o", "all.jsonl")
    assert ran.status == 0 and "6 of 6 sounds" in ran.err and Path("all.jsonl").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_a_file_name_that_is_no_text(cli, folder):
    os.rename(os.path.join(folder, "0.flac"), os.path.join(os.fsencode(folder), b"caf\xe9.flac"))
    ran = cli("transcribe", folder, "-o", "all.jsonl")
    assert ran.status == 0 and texts(Path("all.jsonl").read_text())["caf\N{REPLACEMENT CHARACTER}"] == SAID[0]
    assert "6 of 6 sounds" in cli("transcribe", folder, "-o", "all.jsonl").err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_batch_keeps_what_is_done(cli, folder, tmp_path, how):
    out = tmp_path / "all.jsonl"
    with started(SLOW_BATCH, "transcribe", folder, "-o", "all.jsonl", "--jobs", "2", cwd=tmp_path) as process:
        wait_for_lines(out, 2, process)
        process.send_signal(how)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and b"Traceback" not in errors
    done = out.read_bytes().count(b"\n")
    ran = cli("transcribe", folder, "-o", "all.jsonl")
    assert ran.status == 0 and f"{done} of 6 sounds were finished before" in ran.err
    assert texts(out.read_text()) == WANTED


def test_an_archive_on_a_cluster(folder, tmp_path):
    """Two processes of a local Dask cluster; run again, nothing is left to do."""
    pytest.importorskip("distributed", reason="the archive extra is not installed")
    Path(folder, "bad.wav").write_text("no sound")
    command = [sys.executable, ROOT / "examples" / "archive.py", folder, "-o", "all.jsonl"]
    first, again = (
        subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=300)
        for _ in range(2)
    )
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert first.stdout.count("\n") == 7 and again.stdout.count("\n") == 1 and "bad.wav" in again.stdout
    assert texts((tmp_path / "all.jsonl").read_text()) == {**WANTED, "bad": None}


# The microphone


class Alone:
    """Stands for the watcher of a `ClipMicrophone`: nobody answers, so every clip follows at once."""

    @staticmethod
    def ended():
        return len(SPOKEN)


@pytest.fixture
def live(cli, monkeypatch):
    """`live(clips, *arguments)`: `voxrill transcribe --live` that hears these clips, then Ctrl-C."""
    monkeypatch.setattr(transcribe_cli, "AudioSystem", object)

    def run(clips, *arguments):
        ended = []

        def end():
            if not ended:  # a second Ctrl-C would end the program
                ended.append(True)
                os.kill(os.getpid(), signal.SIGINT)

        heard = ClipMicrophone(Alone(), *(spoken(clip) for clip in clips), then=end)
        monkeypatch.setattr(transcribe_cli, "DeviceMicrophone", lambda *_arguments: heard)
        return cli("transcribe", "--live", *arguments)

    return run


def test_what_the_microphone_hears_is_written(live):
    ran = live(SPOKEN[:3])
    assert ran.status == 0 and ran.out.splitlines() == SAID[:3]


@pytest.mark.parametrize(("probability", "segments"), [(0.0, 1), (1.0, 3)])
def test_a_model_ends_segments(live, monkeypatch, probability, segments):
    """The clips follow each other with pauses of 1.3 s: patience of 10 s makes one segment of them."""
    monkeypatch.setattr(end_of_turn, "installed", lambda: "a file")
    monkeypatch.setattr(end_of_turn, "TurnModel", lambda _path: lambda _sound: probability)
    ran = live(SPOKEN[:3], "--json", "--end-of-turn", "auto", "--patience", "10")
    stable = [one for one in lines_of_json(ran.out) if one["event"] == "segment"]
    assert (len(stable) == 1) if segments == 1 else (len(stable) >= segments)


@pytest.mark.parametrize("option", [("--end-of-turn", "auto"), ("--patience", "1")])
def test_ends_of_turns_are_for_the_microphone(cli, option):
    ran = cli("transcribe", str(CLIPS / SPOKEN[0]["file"]), *option)
    assert ran.status == 2 and "--live" in ran.err


def test_tentative_and_stable_text_are_kept_apart(live):
    ran = live(SPOKEN[:2], "--json")
    found = lines_of_json(ran.out)
    assert {one["event"] for one in found} <= {"tentative", "segment"}
    assert [one["text"] for one in found if one["event"] == "segment"] == SAID[:2]


def test_a_live_transcript_goes_on_after_a_kill(live, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", lambda *_arguments: None)  # what a kill leaves is a journal
        live(SPOKEN[:2], "-o", "notes.json")
    assert not Path("notes.json").exists()
    ran = live(SPOKEN[2:4], "-o", "notes.json")
    assert ran.status == 0 and "2 segments were finished before" in ran.err
    found = json.loads(Path("notes.json").read_text())["segments"]
    assert [one["text"] for one in found] == SAID[:4] and [one["number"] for one in found] == [1, 2, 3, 4]
    assert found[2]["start"] > found[1]["start"]


def test_a_microphone_of_wires(server, tmp_path):
    """A sound server plays a command to the command line at real speed, which is then ended by Ctrl-C."""
    wire = server.wire("test")
    command = [sys.executable, "-m", "voxrill", "transcribe", "--live", "--json"]
    with (
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**clean_environment(), **wire.program},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
        VirtualUser(wire) as user,
    ):
        while process.poll() is None and not server.listeners(wire):
            time.sleep(0.1)
        user.say(read_audio(CLIPS / SPOKEN[0]["file"], WIRE_RATE))
        found = []
        while not found or found[-1]["event"] != "segment":
            found.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and rest == b""
    assert {one["event"] for one in found[:-1]} == {"tentative"}
    assert found[-1]["text"].startswith("set a timer for twenty minutes in the")


# Bad input


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (("a.wav", "--format", "doc"), "plain, srt, vtt, json"),
        (("a.wav", "--jobs", 2), "--jobs is for a list"),
        (("calls", "--jobs", 2, "--format", "srt"), "--jobs is for a list"),
        (("a.wav", "b.wav", "-o", "c.srt"), "--format srt and -o FOLDER"),
        (("calls", "-o", "c.vtt"), "--format vtt and -o FOLDER"),
        (("a.wav", "-", "--format", "srt"), "stdin has no name"),
        (("calls", "--format", "doc"), "plain, srt, vtt, json"),
        (("a.wav", "--json", "--format", "srt"), "--json shows events"),
        (("a.wav", "-o", "nowhere/c.srt"), "no folder nowhere"),
        (("missing.wav", "-o", "c.srt"), "There is no file missing.wav"),
    ],
)
def test_what_does_not_go_together_is_refused(cli, folder, arguments, saying):
    ran = cli("transcribe", *arguments)
    assert ran.status == 2 and saying in ran.err and ran.raw == b""
    assert [path.name for path in Path().iterdir()] == ["calls"]


@pytest.mark.parametrize("arguments", [(), ("--live", "a.wav")])
def test_one_source_must_be_given(cli, arguments):
    ran = cli("transcribe", *arguments)
    assert ran.status == 2 and ran.err.startswith("Usage: voxrill transcribe") and "--live" in ran.err


# Translating


def test_the_built_in_model_writes_german(cli):
    ran = cli("translate", CLIPS / SPOKEN[3]["file"], "--to", "german")
    assert ran.status == 0 and ran.out.endswith("licht im bad ein\n")


def test_a_language_that_the_model_has_no_word_for_is_refused(cli):
    ran = cli("translate", CLIPS / SPOKEN[3]["file"], "--to", "French")
    assert ran.status == 2 and "does not know French" in ran.err


def test_a_language_must_have_a_name(cli):
    assert "not the name of a language" in cli("translate", "a.wav", "--to", "French. Sing").err
    assert "not the name of a language" in cli("translate", "a.wav", "--to", " ").err


@pytest.mark.parametrize("output", ["text", "both"])
def test_a_translation_has_the_form_of_an_answer(cli, bundles, models, tmp_path, output):
    """Random weights: what comes out means nothing, only that it comes from this prompt, written or spoken."""
    soundfile.write("a.wav", speech_like(SAMPLE_RATE), SAMPLE_RATE)
    command = ("translate", "a.wav", "--to", "French", "--output", output, "--seed", 0, "--max-new-tokens", 60)
    ran = cli(*command, "--bundle", bundles["lfm2"], *(["-o", "b.wav"] if output == "both" else []), "--json")
    (found,) = lines_of_json(ran.out)
    wanted = models["lfm2"].translate("a.wav", "French", output=output, seed=0, max_new_tokens=60)
    *_, end = wanted
    assert found["text"] == end.result.text and found["frames"] == end.result.codes.shape[1]
    assert Path("b.wav").exists() == (output == "both")
