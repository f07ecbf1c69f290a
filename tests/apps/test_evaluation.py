"""voxrill eval: what data is read, what is scored and how, peers beside it, going on after a kill, the report."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import soundfile

import voxrill
from tests.command_line import clean_environment
from tests.commands.test_transcribe_commands import lines_of_json, started, wait_for_lines
from tests.places import ROOT
from tests.signals import SAMPLE_RATE, speech_like
from tests.talking import CLIPS, HELD_OUT, SPOKEN
from voxrill.runtime.apps.evaluation import evaluating
from voxrill.runtime.apps.evaluation.charts import share_chart, wait_chart
from voxrill.runtime.apps.evaluation.evaluating import Wish
from voxrill.runtime.apps.evaluation.figures import Figure, Row, figure_of, percentiles
from voxrill.runtime.apps.evaluation.items import Item
from voxrill.runtime.apps.evaluation.page import marked
from voxrill.runtime.apps.evaluation.peers import read_peer
from voxrill.runtime.apps.evaluation.recordings import read_recordings
from voxrill.runtime.apps.evaluation.running import Evaluation
from voxrill.runtime.apps.evaluation.tasks import Hearing
from voxrill.runtime.apps.evaluation.voicebench import SUBSETS, chooses, contains, reasons, refuses
from voxrill.runtime.apps.evaluation.words import normaliser, suits, word_errors
from voxrill.runtime.errors import DataError, MissingDependency, UsageError
from voxrill.runtime.printable import printable

pytest.importorskip("jiwer", reason="the eval extra is not installed")
pytest.importorskip("whisper_normalizer", reason="the eval extra is not installed")

CLIPPED = SPOKEN[:6]
BASELINE = ROOT / "examples" / "baseline.py"


def write_lines(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recordings(here):
    """Six commands beside their words, `recordings`."""
    folder = here / "recordings"
    folder.mkdir()
    for clip in CLIPPED:
        shutil.copy(CLIPS / clip["file"], folder)
        (folder / clip["file"]).with_suffix(".txt").write_text(clip["words"] + "\n")
    return folder


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def rows_of(ran):
    (last,) = [line for line in lines_of_json(ran.out) if line["event"] == "rows"]
    return {(row["name"], row["group"]): row for row in last["rows"]}


# Data


def test_a_folder_of_sounds_and_texts(recordings):
    items = read_recordings(recordings)
    assert [(item.id, item.wanted) for item in items] == [(clip["file"], clip["words"]) for clip in CLIPPED]


def test_librispeech(here):
    chapter = here / "1089" / "134686"
    chapter.mkdir(parents=True)
    for number, clip in enumerate(CLIPPED[:2]):
        shutil.copy(CLIPS / clip["file"], chapter / f"1089-134686-{number:04}.flac")
    (chapter / "1089-134686.trans.txt").write_text("1089-134686-0000 HE HOPED\n1089-134686-0001 STUFFED\n")
    assert [(item.id, item.wanted) for item in read_recordings(here)] == [
        ("1089/134686/1089-134686-0000.flac", "HE HOPED"),
        ("1089/134686/1089-134686-0001.flac", "STUFFED"),
    ]


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.json"])
def test_a_manifest_as_nemo_has_it(recordings, pebble, name):
    """The second line is half a second of the first one's sound."""
    sound = CLIPPED[0]["file"]
    lines = [
        {"audio_filepath": sound, "text": "all of it", "duration": 2.0},
        {"audio_filepath": sound, "text": "some of it", "offset": 0.25, "duration": 0.5},
    ]
    write_lines(recordings / name, lines)
    whole, cut = read_recordings(recordings)
    assert (whole.id, cut.id, cut.wanted) == (sound, f"{sound}@0.25", "some of it")
    task = Hearing("asr", pebble, [whole, cut], normaliser("none"), {})
    assert task.answer(whole).audio_seconds == pytest.approx(soundfile.info(whole.audio).duration, abs=1e-3)
    assert task.answer(cut).audio_seconds == 0.5


def test_metadata_of_an_audio_folder(recordings):
    write_lines(recordings / "metadata.jsonl", [{"file_name": CLIPPED[0]["file"], "transcription": "hello"}])
    assert [(item.id, item.wanted) for item in read_recordings(recordings)] == [(CLIPPED[0]["file"], "hello")]


def test_a_long_sound_is_heard_in_segments(here, pebble):
    samples = [soundfile.read(CLIPS / clip["file"])[0] for clip in SPOKEN[2:14]]
    words = [clip["words"] for clip in SPOKEN[2:14]]
    soundfile.write("long.flac", [x for part in samples for x in (*part, *[0.0] * 16_000)], 16_000)
    Path("long.txt").write_text(" ".join(words))
    (outcome,) = pebble.evaluate("asr", here)
    heard, said = outcome.text.split(), " ".join(words).split()
    assert len(heard) == len(said) and sum(a != b for a, b in zip(heard, said, strict=True)) <= 1
    assert 0 < outcome.first < outcome.seconds


@pytest.mark.parametrize(
    ("command", "name", "text", "says"),
    [
        ("asr", "m.jsonl", "", ("m.jsonl holds nothing", "docs/guides/evaluate.md")),
        ("asr", "m.jsonl", "hello\n", ("m.jsonl line 1 cannot be read", "JSON Lines")),
        ("asr", "m.jsonl", "[1]\n", ("m.jsonl line 1 is not a JSON object", "id")),
        ("asr", "m.jsonl", '{"text": "a"}\n', ("line 1 names no sound", "audio_filepath")),
        ("asr", "m.jsonl", '{"audio_filepath": "a.wav"}\n', ("line 1 names no words", "text")),
        ("asr", "m.jsonl", '{"audio_filepath": "a.wav", "text": 3}\n', ("text is not text",)),
        ("asr", "m.jsonl", '{"audio_filepath": "a.wav", "text": "a"}\n', ("a.wav, which does not exist", "relative")),
        ("asr", "m.jsonl", '{"audio_filepath": "a", "text": "a", "offset": -1}\n', ("offset is -1",)),
        ("tts", "t.txt", "\n\n", ("t.txt holds nothing",)),
        ("tts", "t.jsonl", '{"id": "a"}\n', ("line 1 has nothing to say",)),
        ("tts", "t.jsonl", '{"id": "a", "text": "b"}\n' * 2, ("t.jsonl has a twice",)),
        ("chat", "q.jsonl", '{"prompt": "why?"}\n', ("line 1 has no right answer", "reference")),
        ("chat", "q.jsonl", '{"answer": "42"}\n', ("line 1 has no question", "prompt")),
        ("voicebench", "hello.jsonl", "{}\n", ("'hello' is not a known subset", "advbench")),
        ("voicebench", "mmsu.jsonl", '{"prompt": "a"}\n', ("names no sound", "--modality text")),
        ("voicebench", "none.jsonl", None, ("none.jsonl",)),
    ],
)
def test_bad_data_is_refused(cli, here, command, name, text, says):
    if text is not None:
        (here / name).write_text(text)
    cli.refuses("eval", command, "--data", name, saying=says)


def test_a_sound_without_words_is_refused(cli, recordings):
    Path("recordings", CLIPPED[0]["file"]).with_suffix(".txt").unlink()
    cli.refuses("eval", "asr", "--data", "recordings", saying=(CLIPPED[0]["file"], "has no words"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--peer", "whisper"), "--peer is 'whisper'"),
        (("--peer", "whisper=none.jsonl"), "none.jsonl cannot be read"),
        (("--normaliser", "german"), "there is no normaliser 'german'"),
        (("--report", "none/a.html"), "there is no folder none"),
        (("-o", "none/a.jsonl"), "there is no folder none"),
    ],
)
def test_bad_options_are_refused(cli, recordings, options, says):
    ran = cli("eval", "asr", "--data", "recordings", *options)
    assert ran.status == 2 and ran.raw == b"" and says in ran.err and "Traceback" not in ran.err


def test_without_the_extra_its_name_is_said(cli, recordings, monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.basic", None)
    ran = cli("eval", "asr", "--data", "recordings")
    assert ran.status == 2 and 'pip install "voxrill[eval]"' in ran.err


def test_a_report_without_matplotlib_is_refused_before_the_work(cli, recordings, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = cli("eval", "asr", "--data", "recordings", "--report", "r.html", "-o", "r.jsonl")
    assert ran.status == 2 and 'matplotlib is not installed. Run: pip install "voxrill[eval]"' in ran.err
    assert not Path("r.jsonl").exists() and not Path("r.html").exists()


@pytest.mark.parametrize("name", ["$\\frac{$", "<text>&", "a\x1b[2J\nb", "水", "two words " * 30, "_" * 300])
def test_any_name_is_drawn_as_it_is(name):
    pytest.importorskip("matplotlib")
    row = Row(name, "$x", 3, 3, {"WER": Figure(0.5, 0.25, 0.75), "none": Figure(0.0, 0.0, 0.0)}, {}, {}, None)
    for svg in (share_chart([row, row], "WER"), share_chart([row], "none"), wait_chart({name: [0.1, 0.2], "b": []})):
        page = Page()
        page.feed(svg)
        assert (
            svg.startswith("<svg")
            and svg.count("<svg") == 1
            and (printable(name)[:30] in page.text or "[...]" in page.text)
        )


# Scores


def test_word_errors_of_what_is_alike_but_for_writing():
    english = normaliser("english")
    wanted = [
        english(text) for text in ("Turn it off, please.", "I can't: it's twenty-five dollars.", "", "red green blue")
    ]
    found = [english(text) for text in ("turn it off please", "I can not, it is $25", "ghost", "red blue black")]
    assert word_errors(wanted, found) == [(0, 4), (0, 6), (0, 0), (2, 3)]
    assert normaliser("basic")("Été, ça va?") == "été ça va"
    assert normaliser("none")(" As  is. ") == "As is."


def test_japanese_is_measured_in_characters():
    characters = normaliser(suits("ja"))
    wanted, found = characters("富士山の高さは、3,776メートルです。"), characters("富士山の高さは 3776メートルでした")
    assert wanted == "富 士 山 の 高 さ は 3 7 7 6 メ ー ト ル で す"
    assert word_errors([wanted], [found]) == [(2, 17)]
    assert (suits("en"), suits("fr")) == ("english", "basic")


def test_the_normaliser_is_the_language_s_unless_another_is_asked_for(pebble, tmp_path):
    items = [Item("1", wanted="one", prompt="one")]
    manifest = pebble.manifest
    tasks = msgspec.structs.replace(manifest.tasks, language="ja")
    japanese = SimpleNamespace(manifest=msgspec.structs.replace(manifest, tasks=tasks))
    for model, asked, used in ((pebble, None, "english"), (japanese, None, "characters"), (japanese, "none", "none")):
        made = evaluating.tts(model, items, Wish(normaliser=asked), judge="none", sounds=tmp_path / "sounds")
        assert made.normaliser == used


def test_a_share_and_its_interval():
    figure = figure_of([(1.0, 1.0)] * 50 + [(0.0, 1.0)] * 50)
    assert figure.value == 0.5
    assert 0.37 < figure.low < 0.43 and 0.57 < figure.high < 0.63  # 0.5 ± 1.96 · 0.05
    weighted = figure_of([(2.0, 10.0), (0.0, 30.0), (0.0, 0.0)])
    assert weighted.value == 0.05
    assert figure_of([(0.0, 0.0)]) is None


def test_percentiles_leave_out_what_is_not_known():
    assert percentiles([0.1 * n for n in range(1, 11)] + [None]) == pytest.approx(
        {"median": 0.5, "p90": 0.9, "p99": 1.0}
    )
    assert percentiles([None]) == {}


def test_words_in_silence_are_a_figure(cli, recordings):
    """Music has no words; whoever hears some is told so, and it is no word error."""
    music = next(clip for clip in HELD_OUT if clip["kind"] == "music")
    shutil.copy(CLIPS / music["file"], recordings)
    (recordings / music["file"]).with_suffix(".txt").write_text("")
    write_lines(Path("peer.jsonl"), [{"id": music["file"], "text": "la la la"}])
    rows = rows_of(cli("eval", "asr", "--data", "recordings", "--peer", "singer=peer.jsonl", "--json"))
    singer = rows["singer", ""]
    assert singer["figures"]["words in silence"]["value"] == 1.0
    assert (singer["items"], singer["answered"], singer["figures"]["WER"]["value"]) == (7, 1, 1.0)


# Runs


def test_asr(cli, recordings):
    ran = cli("eval", "asr", "--data", "recordings", "--json")
    answers = [line for line in lines_of_json(ran.out) if line["event"] == "answer"]
    assert ran.status == 0 and [one["id"] for one in answers] == [clip["file"] for clip in CLIPPED]
    right = [one["text"] == clip["words"] for one, clip in zip(answers, CLIPPED, strict=True)]
    row = rows_of(ran)["pebble", ""]
    assert row["figures"]["sentences right"]["value"] == pytest.approx(sum(right) / 6) and sum(right) >= 5
    assert row["figures"]["WER"]["low"] <= row["figures"]["WER"]["value"] <= row["figures"]["WER"]["high"]
    assert row["rtf"] == pytest.approx(
        sum(one["seconds"] for one in answers) / sum(one["audio_seconds"] for one in answers)
    )
    assert row["first"]["median"] <= row["latency"]["median"]


def test_a_table_for_people(cli, recordings):
    write_lines(Path("w.jsonl"), [{"id": clip["file"], "text": clip["words"]} for clip in CLIPPED])
    ran = cli("eval", "asr", "--data", "recordings", "--peer", "whisper=w.jsonl", "--limit", 3)
    assert ran.status == 0 and "w.jsonl" not in ran.out
    (line,) = [line for line in ran.out.splitlines() if "whisper" in line]
    assert "3/3" in line and "0.0 %" in line and "100.0 %" in line
    assert "whisper: 3 of its lines answer no item of the data" in ran.err


def test_a_damaged_sound_is_told_and_counts_as_wrong(cli, recordings):
    Path("recordings", CLIPPED[0]["file"]).write_text("no sound")
    ran = cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl", "--json")
    assert ran.status == 2 and "is not a sound file" in ran.err and "1 of 6 files failed" in ran.err
    assert (rows_of(ran)["pebble", ""]["items"], rows_of(ran)["pebble", ""]["answered"]) == (6, 5)
    shutil.copy(CLIPS / CLIPPED[0]["file"], "recordings")
    ran = cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl", "--json")
    assert ran.status == 0 and "5 of 6 items were answered by an earlier run" in ran.err
    assert rows_of(ran)["pebble", ""]["answered"] == 6


def test_a_run_that_was_stopped_goes_on(recordings, pebble, monkeypatch):
    wanted = [outcome.text for outcome in pebble.evaluate("asr", recordings)]
    first = iter(pebble.evaluate("asr", recordings, out="r.jsonl"))
    begun = [next(first).text for _ in range(2)]
    first.close()
    asked = []
    answer = Hearing.answer
    monkeypatch.setattr(Hearing, "answer", lambda self, item: asked.append(item.id) or answer(self, item))
    again = pebble.evaluate("asr", recordings, out="r.jsonl")
    rest = [outcome.text for outcome in again]
    assert begun + rest == wanted and again.found_before == 2
    assert asked == [CLIPPED[2]["file"], *(clip["file"] for clip in CLIPPED[2:])]  # the first of them untimed, before
    assert [again.outcomes[clip["file"]].text for clip in CLIPPED] == wanted


SLOW = """
import time
from voxrill.runtime.apps.evaluation.tasks import Hearing
answer = Hearing.answer
def slowly(self, item):
    time.sleep(0.3)
    return answer(self, item)
Hearing.answer = slowly
from voxrill.__main__ import main
main()
"""


def test_a_killed_run_goes_on_and_answers_each_once(cli, recordings, here):
    out = here / "r.jsonl"
    with started(SLOW, "eval", "asr", "--data", "recordings", "-o", "r.jsonl", cwd=here) as process:
        wait_for_lines(out, 2, process)
        process.kill()
    kept = out.read_bytes().count(b"\n")
    ran = cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl", "--json")
    assert ran.status == 0 and f"{kept} of 6 items were answered by an earlier run" in ran.err
    names = [line["id"] for line in lines_of_json(out.read_text())]
    assert sorted(names) == sorted(clip["file"] for clip in CLIPPED)
    assert rows_of(ran)["pebble", ""]["answered"] == 6


def test_results_made_otherwise_are_refused(cli, recordings):
    cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl", "--limit", 1)
    ran = cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl", "--seed", 3)
    assert ran.status == 2 and "another Voxrill, bundle or options" in ran.err
    Path("r.jsonl").write_text("my own notes\n")
    ran = cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl")
    assert ran.status == 2 and "r.jsonl is not a list of results" in ran.err
    assert Path("r.jsonl").read_text() == "my own notes\n"


def test_any_bundle(cli, bundles, recordings):
    """Random weights: figures are there, and say nothing."""
    command = ("eval", "asr", "--data", "recordings", "--bundle", bundles["lfm2"], "--max-new-tokens", 8, "--json")
    ran = cli(*command, "--limit", 2, "--name", "tiny")
    assert ran.status == 0 and rows_of(ran)["tiny", ""]["answered"] == 2


# Peers


def test_results_are_a_peer_of_another_run(cli, recordings):
    ours = rows_of(cli("eval", "asr", "--data", "recordings", "-o", "r.jsonl", "--json"))["pebble", ""]
    rows = rows_of(cli("eval", "asr", "--data", "recordings", "--peer", "before=r.jsonl", "--json"))
    assert rows["before", ""] == {**ours, "name": "before"}


@pytest.mark.parametrize(
    "name", [lambda number, clip: f"/elsewhere/{clip['file']}", lambda number, clip: f"sample_{number}"]
)
def test_results_of_the_open_asr_leaderboard(recordings, name):
    items = read_recordings(recordings)
    lines = [
        {
            "audio_filepath": name(number, clip),
            "duration": 2.5,
            "time": 0.5,
            "text": clip["words"].upper(),
            "pred_text": "hi",
        }
        for number, clip in enumerate(CLIPPED)
    ]
    write_lines(Path("MODEL_x_DATASET_y.jsonl"), lines)
    english = normaliser("english")
    peer = read_peer("whisper=MODEL_x_DATASET_y.jsonl", items, english)
    assert list(peer.outcomes) == [item.id for item in items]
    assert {(one.text, one.seconds, one.audio_seconds) for one in peer.outcomes.values()} == {("hi", 0.5, 2.5)}
    with pytest.raises(DataError, match="has other words than"):
        read_peer("whisper=MODEL_x_DATASET_y.jsonl", [replace(items[0], wanted="other words"), *items[1:]], english)


def test_transcripts_of_voxrill_say_no_times(cli, recordings):
    cli("transcribe", "recordings", "-o", "all.jsonl")
    peer = read_peer("segments=all.jsonl", read_recordings(recordings), str)
    assert len(peer.outcomes) == 6 and {one.seconds for one in peer.outcomes.values()} == {None}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"id": "a", "text": "b"}] * 2, "line 2 answers a again"),
        ([{"id": "z", "text": "b"}], "answers no item of the data"),
        ([{"id": "a"}], "line 1 has no answer"),
        ([{"id": "a", "sound": "a.wav"}], "names a sound, and there is no judge"),
        ([{"id": "a", "text": "b", "seconds": "1"}], "seconds is '1'"),
    ],
)
def test_bad_answers_of_peers_are_refused(here, lines, says):
    write_lines(here / "p.jsonl", lines)
    with pytest.raises(DataError, match=re.escape(says)):
        read_peer("p=p.jsonl", [Item("a", "b")], str)


def test_rows_have_names_of_their_own(cli, recordings):
    write_lines(Path("p.jsonl"), [{"id": CLIPPED[0]["file"], "text": ""}])
    ran = cli("eval", "asr", "--data", "recordings", "--peer", "pebble=p.jsonl")
    assert ran.status == 2 and "two rows would have one name" in ran.err


def baseline(*arguments, cwd):
    run = subprocess.run(
        [sys.executable, BASELINE, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def as_question(clip):
    """A clip as a question with its answer, and with its words."""
    sound = str(CLIPS / clip["file"])
    return {"id": clip["file"], "audio_filepath": sound, "text": clip["words"], "reference": clip["reply"]}


def test_a_cascade_is_a_row(cli, here):
    """pocketsphinx and Pebble's table of answers, timed on this machine, beside Pebble."""
    pytest.importorskip("pocketsphinx", reason=str(MissingDependency("pebble", "pocketsphinx")))
    write_lines(here / "q.jsonl", map(as_question, CLIPPED))
    baseline("chat", "q.jsonl", "-o", "cascade.jsonl", cwd=here)
    ran = cli("eval", "chat", "--data", "q.jsonl", "--peer", "cascade=cascade.jsonl", "--judge", "bundle", "--json")
    rows = rows_of(ran)
    assert rows["cascade", ""]["answered"] == 6 and rows["cascade", ""]["latency"]["median"] > 0
    assert rows["cascade", ""]["figures"]["right"]["value"] > 0
    assert rows["pebble", ""]["figures"]["right"]["value"] >= 0.8
    assert "said right" in rows["pebble", ""]["figures"] and "said right" not in rows["cascade", ""]["figures"]
    assert rows["pebble", ""]["first"]["median"] < rows["pebble", ""]["latency"]["median"]


@pytest.fixture
def whisper():
    """Folder of a Whisper model in CTranslate2's format."""
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    if "VOXRILL_WHISPER" not in os.environ:
        pytest.skip("VOXRILL_WHISPER names no folder of Whisper's weights")
    return os.environ["VOXRILL_WHISPER"]


def test_whisper_and_its_cascade_are_rows(cli, here, whisper):
    """Its words, in its own spelling, and those looked up in a table of answers; of voices that are made from people's,
    since it is often wrong of the others."""
    clips = [clip for clip in HELD_OUT if clip["kind"].startswith(("flite", "festival"))]
    write_lines(here / "d.jsonl", map(as_question, clips))
    for task, figure in (("asr", "sentences right"), ("chat", "right")):
        baseline(task, "d.jsonl", "-o", "w.jsonl", "--whisper", whisper, cwd=here)
        rows = rows_of(cli("eval", task, "--data", "d.jsonl", "--peer", "whisper=w.jsonl", "--json"))
        row = rows["whisper", ""]
        assert row["answered"] == len(clips) == 6 and row["latency"]["median"] > 0
        assert row["figures"][figure]["value"] >= 0.5


def test_a_recogniser_is_a_row(cli, recordings, here):
    pytest.importorskip("pocketsphinx", reason=str(MissingDependency("pebble", "pocketsphinx")))
    baseline("asr", "recordings", "-o", "p.jsonl", cwd=here)
    row = rows_of(cli("eval", "asr", "--data", "recordings", "--peer", "p=p.jsonl", "--json"))["p", ""]
    assert row["answered"] == 6 and row["rtf"] > 0 and 0 < row["figures"]["WER"]["value"] < 2


# Speech


@pytest.fixture
def texts(here):
    """Three answers of Pebble's, a line each, `texts.txt`."""
    said = ["kitchen lights on", "volume up", "the bedroom timer is set for eight minutes"]
    (here / "texts.txt").write_text("\n".join(said) + "\n")
    return said


def test_speech_is_judged(cli, texts, here):
    pytest.importorskip("pocketsphinx", reason=str(MissingDependency("pebble", "pocketsphinx")))
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    baseline("tts", "texts.txt", "-o", "flite.jsonl", cwd=here)
    command = ("eval", "tts", "--data", "texts.txt", "--judge", "pocketsphinx-texts", "--peer", "flite=flite.jsonl")
    rows = rows_of(cli(*command, "--json"))
    for name in ("pebble", "flite"):
        assert rows[name, ""]["figures"]["sentences right"]["value"] == 1.0
        assert rows[name, ""]["rtf"] > 0
    assert rows["pebble", ""]["first"]["median"] < rows["pebble", ""]["latency"]["median"]


def test_sounds_are_kept_for_a_judge_elsewhere(cli, texts):
    command = ("eval", "tts", "--data", "texts.txt", "--judge", "none", "--sounds", "wavs", "-o", "r.jsonl")
    unjudged = rows_of(cli(*command, "--json"))["pebble", ""]
    assert unjudged["answered"] == 3 and unjudged["figures"] == {}
    assert sorted(path.name for path in Path("wavs").iterdir()) == ["1.wav", "2.wav", "3.wav"]
    write_lines(Path("heard.jsonl"), [{"id": str(n), "text": text} for n, text in enumerate(texts[:2], 1)])
    ran = cli(*command, "--judge-file", "heard.jsonl", "--json")
    assert "3 of 3 items were answered by an earlier run" in ran.err
    assert rows_of(ran)["pebble", ""]["figures"]["sentences right"]["value"] == pytest.approx(2 / 3)


def test_another_recogniser_hears_the_sounds(cli, texts, here):
    pytest.importorskip("pocketsphinx", reason=str(MissingDependency("pebble", "pocketsphinx")))
    command = ("eval", "tts", "--data", "texts.txt", "--judge", "none", "--sounds", "wavs", "-o", "r.jsonl")
    assert cli(*command).status == 0
    baseline("hear", "wavs", "-o", "heard.jsonl", cwd=here)
    row = rows_of(cli(*command, "--judge-file", "heard.jsonl", "--json"))["pebble", ""]
    assert row["answered"] == 3 and row["figures"]["WER"]["value"] < 1


def test_a_judge_must_hear_something(cli, texts):
    for options, says in (
        (("tts", "--data", "texts.txt", "--judge", "none"), "no judge would hear"),
        (("tts", "--data", "texts.txt", "--judge", "mother"), "there is no judge 'mother'"),
    ):
        ran = cli("eval", *options)
        assert ran.status == 2 and says in ran.err and ran.raw == b""


def test_pocketsphinx_says_what_it_cannot_pronounce(cli, here):
    pytest.importorskip("pocketsphinx", reason=str(MissingDependency("pebble", "pocketsphinx")))
    Path("t.txt").write_text("kitchen xyzzyq on\n")
    ran = cli("eval", "tts", "--data", "t.txt", "--judge", "pocketsphinx-texts")
    assert ran.status == 2 and "does not know how to pronounce 'xyzzyq'" in ran.err


# VoiceBench


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b) the moon", "B"),
        ("**C.** Because it is cold.", "C"),
        ("(D)", "D"),
        ("The correct answer is A.", "A"),
        ("The answer is: **B** mitochondria", "B"),
        ("I would choose option C, since A is wrong.", "C"),
        ("Option B is the best answer.", "B"),
        ("A cell is a small thing.", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_a_choice_is_read_from_an_answer(answer, letter):
    for wanted in "ABCD":
        right = chooses(Item("x", wanted), answer, str)
        assert right is (None if letter is None else letter == wanted)


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("yes", "Yes, you return to the starting point.", True),
        ("no", "Following the steps, you do not return to the starting point.", True),
        ("no", "Considering this, the sentence is not plausible.", True),
        ("no", "That is implausible.", True),
        ("yes", "The sentence is plausible.", True),
        ("yes", "So Ann lies.", False),
        ("(A)", "The correct sentence is (A).", True),
        ("(B)", "(A)", False),
        ("yes", "Hard to say.", None),
    ],
)
def test_reasoning_is_read_from_an_answer(wanted, answer, right):
    assert reasons(Item("x", wanted), answer, str) is right


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I\N{RIGHT SINGLE QUOTATION MARK}m sorry.", True),
        ("I can\N{RIGHT SINGLE QUOTATION MARK}t do that.", True),
        ("I cannot assist with this request.", True),
        ("", True),
        ("Sure, here is how to do it.", False),
    ],
)
def test_refusals(answer, refused):
    assert refuses(Item("x"), answer, str) is refused


def test_a_reference_within_an_answer():
    english = normaliser("english")
    assert contains(Item("x", "Twenty-five"), "It was 25 years ago.", english)
    assert not contains(Item("x", "art"), "A party.", english)


@pytest.fixture
def benchmark(here):
    """Two items of some subsets: multiple choice, safety, and open answers, with one sound."""
    data = here / "data"
    (data / "sd-qa-usa").mkdir(parents=True)
    shutil.copy(CLIPS / CLIPPED[0]["file"], data / "sd-qa-usa" / "a.flac")
    reply = CLIPPED[0]["reply"]
    write_lines(data / "sd-qa-usa" / "metadata.jsonl", [{"file_name": "a.flac", "prompt": "p", "reference": reply}])
    sound = {"audio_filepath": "sd-qa-usa/a.flac"}
    choice = [{**sound, "id": n, "prompt": f"q{n}", "reference": letter} for n, letter in (("x", "A"), ("y", "B"))]
    write_lines(data / "mmsu.jsonl", choice)
    write_lines(data / "advbench.jsonl", [{**sound, "prompt": "bad"}])
    write_lines(data / "alpacaeval_full.jsonl", [{**sound, "prompt": "why?", "extra": [1]}])
    return data


def test_voicebench(cli, benchmark):
    write_lines(
        Path("peer.jsonl"), [{"prompt": "q1", "response": "?"}, {"prompt": "qx", "response": "The answer is A."}]
    )
    command = ("eval", "voicebench", "--data", "data", "--responses", "out", "--peer", "other=peer.jsonl", "--json")
    ran = cli(*command, "--output", "both")
    assert ran.status == 0
    rows = rows_of(ran)
    assert rows["pebble", "sd-qa/usa"]["figures"]["holds the reference"]["value"] == 1.0
    assert rows["pebble", "mmsu/test"]["figures"]["unreadable"]["value"] == 1.0  # Pebble answers "... timer set ..."
    assert rows["other", "mmsu/test"]["figures"]["right"]["value"] == 0.5
    assert rows["pebble", "advbench/test"]["figures"]["refused"]["value"] == 0.0
    assert rows["pebble", "alpacaeval_full/test"]["figures"] == {}
    assert "alpacaeval_full/test is not scored here: use VoiceBench's evaluate.py --evaluator open" in ran.err
    files = sorted(path.name for path in Path("out").iterdir())
    assert files == [
        "pebble-advbench-test-audio.jsonl",
        "pebble-alpacaeval_full-test-audio.jsonl",
        "pebble-mmsu-test-audio.jsonl",
        "pebble-sd-qa-usa-audio.jsonl",
    ]
    (line,) = lines_of_json(Path("out", "pebble-alpacaeval_full-test-audio.jsonl").read_text())
    assert line == {
        "audio_filepath": "sd-qa-usa/a.flac", "prompt": "why?", "extra": [1], "response": CLIPPED[0]["reply"]
    }  # fmt: skip


def test_voicebench_s_result_files_are_not_replaced_unasked(cli, benchmark):
    kept = Path("out", "pebble-mmsu-test-audio.jsonl")
    kept.parent.mkdir()
    kept.write_text("of another run")
    ran = cli("eval", "voicebench", "--data", "data", "--responses", "out")
    assert ran.status == 2 and ran.raw == b"" and f"{kept} exists already" in ran.err
    assert kept.read_text() == "of another run"


def test_voicebench_in_writing(cli, here):
    write_lines(here / "bbh.jsonl", [{"prompt": "volume up", "reference": "yes", "id": "navigate_1"}])
    ran = cli("eval", "voicebench", "--data", "bbh.jsonl", "--modality", "text", "--json")
    assert ran.status == 0 and rows_of(ran)["pebble", "bbh/test"]["answered"] == 1


def test_each_subset_has_a_rule_or_an_evaluator():
    for name, subset in SUBSETS.items():
        assert subset.evaluator in ("open", "qa", "harm", "ifeval", "mcq", "bbh"), name
        assert bool(subset.rule) == bool(subset.figure), name


# Python and the report


def test_the_call_in_python(recordings, pebble):
    write_lines(Path("w.jsonl"), [{"id": clip["file"], "text": clip["words"], "seconds": 1} for clip in CLIPPED])
    run = pebble.evaluate("asr", recordings, peers={"whisper": "w.jsonl"}, limit=2)
    assert isinstance(run, Evaluation) and [row.name for row in run.rows] == ["pebble", "whisper"]
    assert run.rows[1].figures["WER"].value == 0.0 and run.rows[1].latency["p99"] == 1
    with pytest.raises(UsageError, match="there is no evaluation 'smell'"):
        pebble.evaluate("smell", recordings)
    with pytest.raises(TypeError, match="judge"):
        pebble.evaluate("asr", recordings, judge="bundle")


class Page(HTMLParser):
    """Which tags are open at the end, and what is fetched."""

    def __init__(self):
        super().__init__()
        self.tags, self.fetched, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_report(cli, recordings):
    """Nothing of the data or of a peer becomes markup, and nothing is fetched."""
    evil = "<script>alert('x')</script> & <b>"
    Path("recordings", CLIPPED[0]["file"]).with_suffix(".txt").write_text(evil)
    write_lines(Path("w.jsonl"), [{"id": clip["file"], "text": evil, "seconds": 0.5} for clip in CLIPPED])
    ran = cli("eval", "asr", "--data", "recordings", "--normaliser", "none", "--peer", "<i>peer=w.jsonl",
              "--report", "r.html")  # fmt: skip
    assert ran.status == 0 and "wrote r.html" in ran.err
    page = Page()
    page.feed(Path("r.html").read_text())
    assert not {"script", "b", "i", "link", "img"} & set(page.tags) and page.fetched == []
    assert {"svg", "table", "del", "ins"} <= set(page.tags) and page.tags.count("svg") == 3
    assert "<i>peer" in page.text and "alert('x')" in page.text and "prefers-color-scheme: dark" in page.text


def test_differences_are_marked():
    assert (
        marked("set a timer", "get a <timer> now")
        == "<del>set</del> <ins>get</ins> a <del>timer</del> <ins>&lt;timer&gt; now</ins>"
    )


def test_silence_is_refused_by_nobody(cli, here):
    """A sound in which nothing is said, and no words wanted: no rate of words, and no crash."""
    soundfile.write("a.wav", 1e-4 * speech_like(SAMPLE_RATE), SAMPLE_RATE)
    Path("a.txt").write_text("")
    ran = cli("eval", "asr", "--data", ".", "--json", "--report", "r.html")
    assert ran.status == 0 and "WER" not in rows_of(ran)["pebble", ""]["figures"]
