"""The comparison of rules that end turns, on clips whose pauses the test makes itself."""

import csv

import numpy as np
import pytest
import soundfile

from benchmarks.turns import policies, report
from benchmarks.turns.clips import LIST, Clip, find_clips, own_clips, spoken
from benchmarks.turns.pauses import AskedPause, AskedUtterance, measure, read_known
from benchmarks.turns.policies import OWN, SMART_TURN, chosen, curve, outcome, own, patient, strict, timer
from tests.talking import SPOKEN, silence
from tests.talking import spoken as clip_of
from voxrill.runtime.errors import DataError

MODELS = {SMART_TURN: lambda _sound: 0.75, OWN: lambda _sound: 0.0}


@pytest.fixture
def people(tmp_path):
    """Two orders of two commands each, with pauses, and a clip of another kind."""
    rows = []
    for number, pause in enumerate((0.3, 0.8)):
        sound = np.concatenate([clip_of(SPOKEN[4]), silence(pause), clip_of(SPOKEN[6])])
        soundfile.write(tmp_path / f"{number}.wav", sound, 16_000)
        rows.append({"file": f"{number}.wav", "speaker": "crowd", "kind": "coffee"})
    rows.append({"file": "other.wav", "speaker": "x", "kind": "keyword"})
    with (tmp_path / LIST).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "speaker", "kind"])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def longest(found):
    return max(length for _, length in found.pauses() if length is not None)


def test_pauses_become_longer_and_shorter(people):
    clip = find_clips(people)[1]
    usual = longest(spoken(clip, 1.0))
    assert longest(spoken(clip, 2.0)) == pytest.approx(2 * usual, abs=2)
    assert longest(spoken(clip, 0.5)) == pytest.approx(usual / 2, abs=2)


def test_an_utterance_ends_with_silence_that_is_longer_than_any_wait(people):
    found = spoken(find_clips(people)[0], 1.0)
    assert [length for _, length in found.pauses()][-1] is None
    assert len(found.voiced) - max(n for n, voiced in enumerate(found.voiced) if voiced) > 2.5 / 0.032


def test_what_was_measured_is_not_measured_again(people, tmp_path):
    file, asked = tmp_path / "said.jsonl", []

    def model(_sound):
        asked.append(0)
        return 0.75

    def run():
        return measure(find_clips(people), [1.0], {**MODELS, SMART_TURN: model}, file, lambda *_progress: None)

    first, count = run(), len(asked)
    file.write_bytes(file.read_bytes() + b'{"file": "cut off')
    assert run() == first == read_known(file) and len(asked) == count > 4
    assert file.read_bytes().endswith(b"}\n")


def utterances(*pauses):
    """Utterances with one pause inside, of so many blocks, where the model says 0.2, and the end, where it says 1."""
    inside = {SMART_TURN: {2: 0.2}, OWN: {2: 0.0}}
    end = AskedPause(None, {SMART_TURN: {2: 1.0}, OWN: {2: 0.9}})
    return [
        AskedUtterance(str(number), "coffee", number % 2, 1.0, [AskedPause(length, inside), end], {SMART_TURN: [0.03]})
        for number, length in enumerate(pauses)
    ]


def test_the_rules_do_what_they_say():
    asked = utterances(4, 16, 40, 70)
    assert outcome(asked, timer(0.5)).cut == 0.75 and outcome(asked, timer(0.5)).median == pytest.approx(0.508)
    model = outcome(asked, patient(0.3, 2.0))
    assert model.cut == 0.25 and model.median == pytest.approx(0.316)  # 1.66 s of silence where it says 0.2
    sure = outcome(asked, strict(0.9))
    assert sure.cut == 0.25 and sure.median == pytest.approx(0.156)
    assert outcome(asked, own()).cut == 0.75 and outcome(asked, own()).median == pytest.approx(0.156)
    assert outcome(utterances(2, 3), timer(2.0)).false_ends == 0


def test_the_shortest_wait_that_cuts_few_enough_is_chosen():
    points = curve(utterances(4, 16, 40, 70), "silence alone")
    assert chosen(points, 0.5) == 0.6 and chosen(points, -1.0) is None
    assert [point["cut"] for point in points] == sorted((point["cut"] for point in points), reverse=True)


def test_the_report_is_whole(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra demo is not installed")
    found = report.results(utterances(4, 16, 40, 70))
    assert found["chosen"][0]["at"] is not None and found["cpu_ms"] == {SMART_TURN: 30.0}
    report.plot(found, tmp_path / "plot.png", "this processor")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert sum(len(table.rows) for table in report.tables(found)) >= len(report.SHOWN) + len(policies.CURVES) - 1


def test_own_commands_hesitate_once():
    clips = own_clips()
    assert len(clips) == 26
    found = spoken(clips[4], 1.0)
    assert longest(found) >= 0.25 / 0.032


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        find_clips(tmp_path)
    (tmp_path / LIST).write_text("file,speaker,kind\nx.wav,y,noise\n")
    with pytest.raises(DataError, match="no recordings"):
        find_clips(tmp_path)
    assert spoken(Clip("coffee", _silent(tmp_path), 0), 1.0) is None


def _silent(folder):
    soundfile.write(folder / "silent.wav", silence(1.0), 16_000)
    return folder / "silent.wav"
