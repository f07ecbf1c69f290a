"""Data, answers of peers and results made to do harm: each is one line that names the file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.command_line import clean_environment
from tests.signals import SAMPLE_RATE, speech_like
from voxrill.runtime.apps.evaluation.items import LONGEST_LINE, Item
from voxrill.runtime.apps.evaluation.page import COMPARED, marked
from voxrill.runtime.apps.evaluation.peers import read_peer
from voxrill.runtime.apps.evaluation.prompts import read_texts
from voxrill.runtime.apps.evaluation.recordings import file_name, read_recordings
from voxrill.runtime.apps.evaluation.voicebench import SUBSETS
from voxrill.runtime.apps.evaluation.words import normaliser, word_errors
from voxrill.runtime.errors import DataError

pytest.importorskip("jiwer", reason="the eval extra is not installed")
pytest.importorskip("whisper_normalizer", reason="the eval extra is not installed")

GENEROUS = 300
"""Seconds for what takes 20. A quadratic scan of these texts takes days."""

HUGE = 10**300
LINES = {
    "nested": ("[" * 100_000, "nested too deeply"),
    "nested-object": ('{"id": "a", "text": ' + '{"a":' * 100_000, "nested too deeply"),
    "nan": ('{"id": "a", "audio": "a.wav", "text": "b", "offset": NaN}', "cannot be read"),
    "infinity": ('{"id": "a", "audio": "a.wav", "text": "b", "offset": 1e999}', "cannot be read"),
    "large": (f'{{"id": "a", "audio": "a.wav", "text": "b", "offset": {HUGE}}}', "offset is"),
    "larger": ('{"id": "a", "audio": "a.wav", "text": "b", "offset": 1e300}', "offset is 1e+300"),
    "long": ('{"id": "a", "audio": "a.wav", "duration": 1e300, "offset": 0, "text": "b"}', "duration is 1e+300"),
    "digits": (f'{{"id": {"9" * 5000}, "audio": "a.wav", "text": "b"}}', "cannot be read"),
    "surrogate": ('{"id": "\\ud800", "audio": "a.wav", "text": "b"}', "cannot be read"),
    "null": ("\0", "cannot be read"),
    "id": ('{"id": ["a"], "audio": "a.wav", "text": "b"}', "id is"),
    "device": ('{"id": "a", "audio": "/dev/zero", "text": "b"}', "/dev/zero"),
    "name": ('{"id": "a", "audio": "a\\u0000.wav", "text": "b"}', "does not exist"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a sound in it."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", speech_like(SAMPLE_RATE), SAMPLE_RATE)
    return tmp_path


@pytest.mark.parametrize("name", LINES)
def test_a_line_made_to_do_harm_is_refused(here, name):
    line, saying = LINES[name]
    Path("m.jsonl").write_text(line + "\n")
    with pytest.raises(DataError) as refused:
        read_recordings(Path("m.jsonl"))
    assert "m.jsonl" in str(refused.value) and saying in str(refused.value) and refused.value.remedy


@pytest.mark.parametrize("command", ["asr", "tts", "chat", "voicebench"])
@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff\n", b"x" * (LONGEST_LINE + 1)], ids=["deep", "bytes", "long"]
)
def test_no_command_reads_a_line_made_to_do_harm(cli, here, command, content):
    Path("advbench.jsonl").write_bytes(content)
    cli.refuses("eval", command, "--data", "advbench.jsonl", saying="advbench.jsonl line 1")


def test_files_without_end_are_not_read_to_it(here):
    Path("zero.jsonl").symlink_to("/dev/zero")
    Path("zero.txt").symlink_to("/dev/zero")
    for read in (read_recordings, read_texts, lambda path: read_peer(f"p={path}", [Item("a", "b")], str)):
        with pytest.raises(DataError, match=r"zero\.jsonl line 1 has more than 4 MB"):
            read(Path("zero.jsonl"))
    with pytest.raises(DataError, match=r"zero\.txt is larger than 64 MB"):
        read_texts(Path("zero.txt"))
    Path("a.txt").symlink_to("zero.txt")
    with pytest.raises(DataError, match=r"a\.wav has no words"):
        read_recordings(here)
    Path("b.trans.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"b\.trans\.txt is larger than 16 MB"):
        read_recordings(here)


@pytest.mark.parametrize(
    ("fields", "saying"),
    [
        ({"seconds": HUGE}, "seconds is"),
        ({"first": -1}, "first is -1"),
        ({"audio_seconds": True}, "audio_seconds is True"),
        ({"text": None, "sound": "none.wav"}, "none.wav, which is not a file"),
        ({"text": None, "sound": "/dev/zero"}, "/dev/zero, which is not a file"),
        ({"heard": ["x"]}, "heard is"),
        ({"pred_text": {"a": 1}}, "pred_text is"),
    ],
)
def test_answers_of_peers_made_to_do_harm(here, fields, saying):
    Path("p.jsonl").write_text(json.dumps({"id": "a", "text": "b"} | fields))
    with pytest.raises(DataError, match=r"p\.jsonl line 1") as refused:
        read_peer("p=p.jsonl", [Item("a", "b")], lambda text: "b", lambda file: ("b", 1.0))
    assert saying in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        {"file": ["a"], "sha256": "b", "made_with": "MADE"},
        {"file": "a", "sha256": {}, "made_with": "MADE"},
        {"file": "a.wav", "sha256": "SHA", "made_with": "MADE"},
        {"file": "a.wav", "sha256": "SHA", "made_with": "MADE", "id": "a.wav", "text": 3},
        {"file": "a.wav", "sha256": "SHA", "made_with": "MADE", "id": "other", "text": "b"},
        [1],
        "text",
    ],
)
def test_results_of_an_earlier_run_made_to_do_harm(cli, here, line):
    Path("a.txt").write_text("b")
    assert cli("eval", "asr", "--data", ".", "-o", "r.jsonl").status == 0
    known = json.loads(Path("r.jsonl").read_text())
    text = json.dumps(line).replace("MADE", known["made_with"]).replace("SHA", known["sha256"])
    Path("r.jsonl").write_text(text + "\n")
    ran = cli("eval", "asr", "--data", ".", "-o", "r.jsonl")
    assert ran.status == 2 and "r.jsonl" in ran.err and "Traceback" not in ran.err, ran
    assert Path("r.jsonl").read_text() == text + "\n"


def test_sounds_of_two_names_are_not_one_file(cli, here):
    Path("t.jsonl").write_text('{"id": "a/b", "text": "lights on"}\n{"id": "a_b", "text": "lights off"}\n')
    ran = cli("eval", "tts", "--data", "t.jsonl", "--judge", "none", "--sounds", "s")
    assert ran.status == 2 and "would be one file: a_b.wav" in ran.err
    assert file_name("../../x") == "_.._x" and file_name("..") == "_" and len(file_name("é" * 400).encode()) <= 200


NORMALISED = [
    "[", "(", "<", "[(<", " ", "'", "x ", "1,", "9", "9.9.", "²", "nine ", "million ", "and a half ", "one point ",
    "$ 5 ", "a hundred ", "double nine ", "percent ", "mr ", "½", "`" , "\n", "a (b", "a [b", ") ", "(]", "é\u0301",
]  # fmt: skip


def test_no_text_takes_longer_to_normalise_than_its_length_says():
    code = """
import json, sys
parts = json.load(sys.stdin)
from voxrill.runtime.apps.evaluation.items import Item
from voxrill.runtime.apps.evaluation.voicebench import SUBSETS
from voxrill.runtime.apps.evaluation.words import normaliser
for name in ("english", "basic"):
    for part in parts:
        normaliser(name)(part * (20_000 // len(part)))
for subset in SUBSETS.values():
    for part in ("answer", "answer is", "!", " ", "answer!", "answer! option", "a", "a ", "not", "ly ", "option ."):
        for end in ("", "!" * 200_000):
            if subset.rule is not None:
                subset.rule(Item("a", "b"), part * (200_000 // len(part)) + end, str)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(NORMALISED), text=True, capture_output=True,
        timeout=GENEROUS, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_long_answers_are_compared_up_to_a_limit():
    """Comparing 100,000 equal words takes the square of their number, and others its cube."""
    assert marked("the " * 100_000, "the " * 99_999) == " ".join(["the"] * COMPARED)


def test_numbers_beyond_reading_are_no_crash():
    english = normaliser("english")
    assert word_errors([english("9" * 5000)], [english("9" * 5000)])[0][0] == 0
    assert english("a [note] (aside) b") == "a b" and english("a ] b [ c") == "a b c"
    assert SUBSETS["mmsu"].rule(Item("a", "c"), "The answer is: (C).", str) is True
