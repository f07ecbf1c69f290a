"""Classification: labels by their likelihood, calibrated against a question with nothing in it."""

import json
from pathlib import Path

import numpy as np
import pytest

import voxrill
from tests.signals import SAMPLE_RATE, speech_like
from tests.talking import CLIPS, HELD_OUT, SPOKEN, spoken
from voxrill.runtime.apps.classify import UNIFORM, Classifier
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.errors import UnknownText, UsageError

LABELS = open_builtin().manifest.taught.labels
PEBBLE = Path(voxrill.__file__).parent / "pebble" / "bundle"


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def test_the_builtin_labels_are_those_of_its_training(recipe):
    world = recipe("world")
    assert LABELS == {"intent": world.INTENTS, "style": world.STYLES}


def test_held_out_commands_get_their_intent(pebble, recipe):
    intents = {sentence.command: sentence.intent for sentence in recipe("world").SENTENCES}
    classifier = Classifier(pebble)
    asked = [clip for clip in HELD_OUT if clip["kind"] in ("known", "new", "flite:awb", "outside")]
    right = sum(
        classifier.classify(spoken(clip), sample_rate=SAMPLE_RATE).label == intents.get(clip["words"], "outside")
        for clip in asked
    )
    assert right >= len(asked) - 2


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_add_up_and_begin_with_the_likeliest(model, seed):
    labels = ["on", "on the ring", "happy", "a"]
    found = model.classify(speech_like(SAMPLE_RATE, seed), labels=labels, task="mood", sample_rate=SAMPLE_RATE)
    for probabilities in (found.probabilities, found.uncalibrated):
        assert sum(probabilities.values()) == pytest.approx(1)
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    assert found.label == next(iter(found.probabilities)) and 0 <= found.mass <= 1
    assert set(found.probabilities) == {"on", "on the ring", "happy", "a"}


def test_an_answer_that_is_always_given_counts_less(pebble):
    """Divided by the model's answer to nothing: what that says gains least, by the ratio of the priors at most."""
    found = pebble.classify(spoken(SPOKEN[0]), sample_rate=SAMPLE_RATE)
    odds = {label: found.probabilities[label] / found.uncalibrated[label] for label in LABELS["intent"]}
    assert min(odds, key=odds.get) == "outside"
    most = (1 - UNIFORM) / (UNIFORM / len(LABELS["intent"])) + 1
    assert max(odds.values()) / min(odds.values()) <= most


def test_the_order_of_labels_changes_nothing(pebble):
    sound = spoken(SPOKEN[1])
    one = pebble.classify(sound, labels=["timer", "music", "lights"], sample_rate=SAMPLE_RATE)
    other = pebble.classify(sound, labels=["lights", "timer", "music"], sample_rate=SAMPLE_RATE)
    assert one.probabilities == pytest.approx(other.probabilities) and one.label == "timer"


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({"labels": ["lights"]}, "no labels to tell apart"),
        ({"labels": ["lights", " "]}, "no labels to tell apart"),
        ({"labels": ["lights", "Lights!"]}, "the same label"),
        ({"labels": ["lights", "elephants"]}, "does not know elephants"),
        ({"task": "colour"}, "no labels to tell apart for the task 'colour'"),
        ({"labels": ["on", "off"], "task": "zeitgeist"}, "does not know zeitgeist"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(pebble, options, saying):
    with pytest.raises(UnknownText if "does not know" in saying else UsageError) as refused:
        pebble.classify(np.zeros(SAMPLE_RATE, np.float32), sample_rate=SAMPLE_RATE, **options)
    assert saying in str(refused.value)


def test_other_models_have_no_labels_of_their_own(models):
    with pytest.raises(UsageError, match="no labels"):
        models["lfm2"].classify(np.zeros(SAMPLE_RATE, np.float32), sample_rate=SAMPLE_RATE)


def test_the_command(cli):
    ran = cli("classify", CLIPS / SPOKEN[0]["file"])
    lines = [line.split("\t") for line in ran.out.splitlines()]
    assert ran.status == 0 and lines[0][0] == "timer" and len(lines) == len(LABELS["intent"])
    files = [CLIPS / clip["file"] for clip in SPOKEN[:2]]
    ran = cli("classify", *files, "--json", "--labels", "timer, music")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert [one["label"] for one in found] == ["timer", "timer"] and [one["file"] for one in found] == list(
        map(str, files)
    )
    assert set(found[0]["probabilities"]) == set(found[0]["uncalibrated"]) == {"timer", "music"}


def test_the_command_refuses(cli):
    named = ("--bundle", PEBBLE)  # or stderr begins with a note on the built-in model
    cli.refuses("classify", CLIPS / SPOKEN[0]["file"], "--labels", "happy,angry", *named, saying="does not know happy")
    cli.refuses("classify", "none.wav", *named, saying="none.wav")
