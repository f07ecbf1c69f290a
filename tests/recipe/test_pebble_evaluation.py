"""Pebble's evaluation: its judge, its questions, its measures and its tables; no bundle is needed for any of them."""

import json
import shutil
import sys
from collections import Counter

import numpy as np
import pytest

from tests import signals
from tests.places import ROOT
from voxrill.runtime.errors import MissingDependency


@pytest.fixture(scope="module")
def judge(recipe):
    pytest.importorskip("pocketsphinx", reason=str(MissingDependency("pebble", "pocketsphinx")))
    return recipe("judge")


@pytest.fixture(scope="module")
def evaluate(recipe, judge, exporter):
    pytest.importorskip("jiwer", reason="the pebble extra is not installed")
    return recipe("evaluate")


@pytest.fixture(scope="module")
def said(recipe):
    """`said(text)`: a clean sentence by flite."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    return lambda text: recipe("synthesise").speak(text, "flite:slt", -1)


def test_the_judge_tells_a_sentence_from_its_neighbours(judge, said):
    hears = judge.sentence_judge(judge.world_sentences())
    for text in (
        "kitchen lights off",
        "the timer is set for fifteen minutes",
        "the timer is set for five minutes",
        "volume up",
    ):
        assert hears(*said(text)) == text
    assert hears(np.zeros(24_000, np.float32), 24_000) == ""
    assert hears(np.zeros(0, np.float32), 24_000) == ""


def test_the_judge_judges_each_sound_alone(judge, said):
    hears = judge.word_judge()
    first = hears(*said("playing jazz in the kitchen"))
    hears(*said("volume up"))
    assert hears(*said("playing jazz in the kitchen")) == first
    assert "jazz" in first.split()


def test_the_judge_can_pronounce_the_world(judge, recipe):
    from pocketsphinx import get_model_path

    with open(get_model_path("en-us/cmudict-en-us.dict")) as lines:
        known = {line.split()[0] for line in lines}
    assert set(recipe("world").WORDS) <= known


def test_random_words_are_judged_among_their_neighbours(judge):
    text = "seven gate jazz"
    others = judge.with_neighbours([text])
    assert text in others
    assert len(others) > 2
    assert all(sum(a != b for a, b in zip(text.split(), other.split(), strict=True)) <= 1 for other in others)


class SilentClips:
    """The texts of a set, without its sound: twelve seconds of silence each."""

    def __init__(self, jobs):
        self.texts, self.voices = [job.text for job in jobs], [job.voice for job in jobs]

    def __len__(self):
        return len(self.texts)

    def waveform(self, number):
        return np.zeros(12 * 16_000, np.float32)


@pytest.fixture(scope="module")
def sets(recipe):
    data = recipe("data")
    return {
        "evaluate": SilentClips(list(data.evaluation_jobs())),
        "around": SilentClips(list(data.around_evaluation_jobs())),
    }


def questions(evaluate, sets, part):
    return list(evaluate.QUESTIONS[part](sets, 200))


def test_cells_are_large_enough(evaluate, sets):
    count = Counter((q.test, q.condition) for part in evaluate.QUESTIONS for q in questions(evaluate, sets, part))
    for test in ("known sentences", "new sentences"):
        for condition in ("clean", "noise 20 dB", "noise 10 dB", "noise 5 dB", "reverberation"):
            assert count[test, condition] == 200
    sounds = ("outside", "music", "silence and steady noise", "long talk")
    for test in (*sounds, "second turns", "spoken and typed", "typed, known sentences", "typed, new sentences"):
        assert count[test, "clean"] == 200
    assert count["style", "clean"] >= 150
    assert count["speak random words", ""] == count["speak replies", ""] == 200


def test_second_turns_and_typed_additions_have_the_right_reply(evaluate, sets):
    asked = questions(evaluate, sets, "around")
    for q in asked:
        if q.test == "second turns":
            room = sets["around"].texts[q.clip[1]].removeprefix("and in the ")
            assert room in q.reply
        if q.test == "spoken and typed":
            command = f"{sets['around'].texts[q.clip[1]]} {q.typed}"
            assert q.reply == evaluate.BY_COMMAND[command].reply
    assert asked == questions(evaluate, sets, "around")


def test_nothing_of_the_second_evaluation_set_was_trained(recipe):
    data = recipe("data")
    trained = [*data.command_jobs(), *data.around_jobs()]
    evaluated = list(data.around_evaluation_jobs())
    assert not {(job.voice, job.seed) for job in trained} & {(job.voice, job.seed) for job in evaluated}
    talk = {job.text for job in evaluated if len(job.text.split()) > 10}
    assert len(talk) >= 200
    assert not talk & {job.text for job in trained}
    assert {job.voice for job in evaluated} == {"espeak-held-out", "flite:awb", "music", "silence"}


class Oracle:
    """Answers every question rightly, or every one wrongly; judges what was meant."""

    def __init__(self, evaluate, voices, right):
        self.evaluate, self.voices, self.right = evaluate, voices, right
        self.meant = {}

    def map(self, work, items, what):
        return [getattr(self, work.__name__)(item) for item in items]

    def answer(self, question):
        if not self.right:
            question = self.evaluate.replace(question, words="banana", reply="volume up")
        codes = np.zeros((8, 0), np.int64)
        if question.reply and question.kind != "label":
            codes = np.ascontiguousarray(self.voices[self.evaluate.speaker(question)].say(question.reply).T)
        self.meant[codes.tobytes()] = question.reply
        return self.evaluate.PebbleAnswer(question.words, question.reply, codes)

    def sentence_in(self, judged):
        return self.words_in(judged[0])

    def words_in(self, said):
        return said[0] if isinstance(said, tuple) else self.meant[said]

    def pitch(self, said):
        return 100.0

    def mel_distance(self, pair):
        return 0.5


def rows_of(evaluate, recipe, sets, right, reference=None, precision="float32"):
    codec, world = recipe("codec"), recipe("world")
    words = {(word, place) for word in world.WORDS for place in recipe("reply_voice").PLACES}
    parts = sorted(words.union(*world.SPOKEN_REPLIES.values()))
    codes = {part: signals.codes(3 + i % 4, i).T.astype(np.int64) % codec.CODES for i, part in enumerate(parts)}
    voices = {name: codec.Voice({}, codes) for name in codec.SPEAKERS}
    oracle = Oracle(evaluate, voices, right)
    evaluation = evaluate.PebbleEvaluation({"bundle": precision, "precision": precision}, oracle, voices, reference)
    return evaluation, [row for part in evaluate.QUESTIONS for row in evaluation.rows(part, sets, 200)]


@pytest.fixture(scope="module")
def rows(evaluate, recipe, sets):
    """The rows of a bundle that is always right, and of one that is always wrong."""
    right, rows = rows_of(evaluate, recipe, sets, True)
    _, others = rows_of(evaluate, recipe, sets, False, right, "int8")
    return rows + others


def test_measures_of_right_and_wrong_answers(rows):
    shares = ("sentences", "right", "empty transcript", "refused", "empty reply", "reply text", "codes", "judged")
    for row in rows:
        right = row["precision"] == "float32"
        assert row.get("WER", 0.0) == 0.0 if right else row.get("WER", 1.0) >= 0.7
        for name in shares:
            assert row.get(name, float(right)) == pytest.approx(float(right), abs=0.03)
        assert row.get("wrongly refused", 0.0) == 0.0
        assert ("same codes" in row or "same transcript" in row) == (not right and "told apart" not in row)
    assert rows[-1]["told apart"] == 0.0


def test_every_goal_has_its_row(evaluate, recipe, rows):
    report = recipe("report")
    published = report.read_rows(report.FOLDER / "evaluation.json")  # strangers.py's rows are only there
    for goal in report.GOALS:
        found = [row for row in rows if goal.concerns(row)]
        assert found or any(goal.concerns(row) for row in published)
        assert all(goal.met(row) == (row["precision"] == "float32") for row in found if "wrongly" not in goal.measure)


def test_rows_become_the_readme(recipe, rows, tmp_path, monkeypatch):
    report = recipe("report")
    saved, readme = tmp_path / "rows.json", tmp_path / "README.md"
    report.write_rows(rows, saved)
    assert report.read_rows(saved) == rows
    readme.write_text(f"# Before\n\n{report.BEGIN}\nof yesterday\n{report.END}\n\nAfter.\n")
    monkeypatch.setattr(sys, "argv", ["report.py", str(saved), "--folder", str(tmp_path)])
    report.main()
    once = readme.read_text()
    saved.unlink()
    monkeypatch.setattr(sys, "argv", ["report.py", "--folder", str(tmp_path)])  # now from what it kept
    report.main()
    assert readme.read_text() == once
    assert once.startswith("# Before\n\n") and once.endswith("\n\nAfter.\n") and "yesterday" not in once
    lines = [line for line in once.splitlines() if line.startswith("| int8 | known sentences | clean |")]
    assert "**WER ≤ 2 %: missed**" in lines[0]
    assert any("| float32 | known sentences | clean | 200 | 0.0 % | 100.0 %" in line for line in once.splitlines())
    with pytest.raises(ValueError, match="no part between"):
        report.put_between_markers("no markers", "tables")


def test_single_voices_are_drawn_with_what_each_training_brought(recipe, tmp_path, monkeypatch):
    report = recipe("report")
    about = {"bundle": "int8", "precision": "int8", "condition": "endpointed", "n": 60}
    heard = [about | {"part": "strangers", "test": f"{kind} sentences", "WER": 0.05} for kind in ("known", "new")]
    voices = [
        about | {"part": "voices", "test": "anna", "WER": 0.1, "Whisper WER": 0.05},
        about | {"part": "voices", "test": "bert", "WER": 0.02},
    ]
    report.write_rows(heard + voices, tmp_path / "evaluation.json")
    report.write_rows(
        [{"training": "first", "known": 0.06}, {"training": "second", "known": 0.05, "new": 0.1}],
        tmp_path / "trainings.json",
    )
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    monkeypatch.setattr(sys, "argv", ["report.py", "--folder", str(tmp_path)])
    report.main()
    assert "| anna | 60 | 10.0 % | 5.0 % |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "voices.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_a_bar_for_each_row(recipe, tmp_path):
    report = recipe("report")
    rows = report.read_rows(ROOT / "pebble" / "evaluation.json")
    heard = [row for row in rows if row["part"] == "strangers"]
    axes = report.Figure().subplots()
    report._bars(axes, heard, "WER", "words")
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(sorted(100 * row["WER"] for row in heard))
    places = [bar.get_y() for bar in axes.patches]
    assert len(places) == len(set(places)) == len(heard) > 10
    report.draw(rows, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_pitch_of_known_sounds(recipe):
    pitch = recipe("pitch")
    seconds = np.arange(24_000) / 24_000
    for hertz in (90, 130, 220):
        buzz = sum(np.sin(2 * np.pi * n * hertz * seconds) / n for n in range(1, 9)).astype(np.float32)
        assert pitch.median_pitch(buzz, 24_000) == pytest.approx(hertz, rel=0.02)
    assert np.isnan(pitch.median_pitch(np.zeros(24_000, np.float32), 24_000))
    assert np.isnan(pitch.median_pitch(np.zeros(10, np.float32), 24_000))


def test_curves_are_thinned_and_drawn_small(recipe, exporter, tmp_path, monkeypatch):
    import torch

    pytest.importorskip("matplotlib")
    curves = recipe("curves")
    chance = np.random.default_rng(0)
    for stage in ("encoder", "joint"):
        curve = [{"step": 50 * i, "seconds": 9.0 * i, "ctc": 5 / i, "right": chance.random()} for i in range(1, 901)]
        del curve[7]["ctc"]
        torch.save({"curve": curve}, tmp_path / f"{stage}.pt")
    monkeypatch.setattr(sys, "argv", ["curves.py", "--cache", str(tmp_path), "--folder", str(tmp_path)])
    curves.main()
    written = json.loads((tmp_path / "curves.json").read_text())
    assert list(written) == ["encoder", "joint"]
    assert len(written["joint"]) <= 200
    assert written["joint"][-1]["step"] == 45_000
    picture = (tmp_path / "curves.png").read_bytes()
    assert len(picture) <= 150_000
    monkeypatch.setattr(sys, "argv", ["curves.py", "--folder", str(tmp_path)])
    curves.main()
    assert (tmp_path / "curves.png").read_bytes() == picture


def test_committed_clips_are_of_every_kind(recipe):
    held_out = recipe("held_out")
    chosen = held_out.chosen()
    assert Counter(one.kind for one in chosen) == held_out.COUNTS
    entries = [held_out.described(one, "x.flac") for one in chosen]
    world = recipe("world")
    for entry in entries:
        if entry["kind"] in ("outside", "music"):
            assert (entry["words"], entry["reply"]) == ("", world.REFUSAL)
        elif entry["kind"] == "silence":
            assert (entry["words"], entry["reply"]) == ("", "")
        else:
            assert (entry["words"], entry["reply"]) in {(s.command, s.reply) for s in world.SENTENCES}
