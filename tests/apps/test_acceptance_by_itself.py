"""Acceptance without published outputs: what a model hears and says; a model of random weights fails, and by name."""

import json

import numpy as np
import pytest

import voxrill
from tests.export.test_lfm3_bundle import lfm3, lfm3_bundle  # noqa: F401 (fixtures)
from tests.places import ROOT
from tests.sound_files import wav_bytes
from tests.talking import SPOKEN, spoken
from voxrill.runtime.apps.acceptance.by_itself import (
    CHECKS,
    SENTENCES,
    SpokenSentence,
    accept_by_itself,
    alike,
    chosen_checks,
)
from voxrill.runtime.errors import UsageError

CLIP = SPOKEN[4]
PEBBLE = ROOT / "src" / "voxrill" / "pebble" / "bundle"
SAID = [SpokenSentence("bathroom lights on", spoken(CLIP), "a clip")]


def verdicts(model, said, *names):
    rows = list(accept_by_itself(model, said, chosen_checks(names)))
    return {(row.stage, row.verdict) for row in rows}, rows


def test_the_built_in_model_hears_and_speaks():
    with voxrill.load(threads=1) as pebble:
        found, rows = verdicts(pebble, SAID)
    assert found == {
        ("recognition", "pass"),
        ("speech", "pass"),
        ("languages", "not compared"),
        ("live", "not compared"),
    }
    names = {tuple(one.name for one in row.quantities) for row in rows if row.stage == "speech"}
    assert names == {("voiced", "alike")}


def test_random_weights_are_not_accepted(lfm3):  # noqa: F811
    """Every check of the family runs: both voices, and all that is heard while it is spoken."""
    found, rows = verdicts(lfm3, SAID, "recognition", "speech", "live")
    assert found == {("recognition", "FAIL"), ("speech", "FAIL"), ("live", "FAIL")}
    assert [row.compared.split(":")[0] for row in rows if row.stage == "speech"] == ["female", "male"]


def test_every_language_has_a_sentence(lfm3, monkeypatch):  # noqa: F811
    assert set(lfm3.languages) == set(SENTENCES)
    monkeypatch.setattr("voxrill.runtime.apps.acceptance.by_itself.LONGEST", 0.4)  # seconds of speech
    _, rows = verdicts(lfm3, [], "languages")
    assert [row.compared.split(":")[0] for row in rows] == list(lfm3.languages)


def test_what_is_alike():
    assert alike("Good morning!", "good  morning") == 1.0
    assert alike("早上好", "早上好。") == 1.0
    assert alike("good morning", "") == 0.0 and alike("good morning", "zzz") < 0.2


def test_the_command(cli, tmp_path):
    (tmp_path / "said.wav").write_bytes(wav_bytes(spoken(CLIP)))
    asked = ("accept", str(PEBBLE), "--audio", "said.wav", "--text", "bathroom lights on", "--stage", "recognition")
    ran = cli(*asked, "--json")
    assert ran.status == 0, ran.err
    *rows, end = map(json.loads, ran.out.splitlines())
    assert (rows[0]["verdict"], end["accepted"]) == ("pass", True)
    failed = cli(*asked[:5], "no such words", *asked[6:])
    assert failed.status == 2 and "the bundle is not accepted: recognition" in failed.err and "FAIL" in failed.out


def test_what_does_not_go_together(cli, tmp_path, monkeypatch):
    monkeypatch.delenv("VOXRILL_PUBLISHED", raising=False)
    cli.refuses("accept", "b", "--audio", "said.wav", saying="--audio and --text belong together")
    cli.refuses("accept", "b", "--stage", "encoder", saying="there is no stage encoder without published outputs")
    with pytest.raises(UsageError, match="Give one of: recognition, speech, languages, live"):
        chosen_checks(["words"])
    assert list(chosen_checks([])) == list(CHECKS) and not np.isnan(alike("", ""))
