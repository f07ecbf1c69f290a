"""Answers of forced length: they are as long as was asked, and the time to their first sound adds up.

Nothing asserts how long a thing took.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.talk.asking import AskedTurn, SpokenQuestion
from benchmarks.talk.first_sound import first_sound, group, table
from benchmarks.talk.forced import ENDINGS, described, endless_conversation, steps_of
from benchmarks.talk.measuring import voiced
from benchmarks.talk.questions import joined, read_questions
from benchmarks.talk.sound_server import WIRE_RATE
from tests.command_line import run_alone
from tests.talking import SPOKEN, Scene
from voxrill.runtime.audio.protocols import BLOCK_SECONDS
from voxrill.runtime.talk.responder import ResponderOptions

SECONDS = 2.0


@pytest.fixture
def scene(model):
    """A talk whose answers last 2 s, with a mind that takes a step in each block of 32 ms."""
    spec = model.codec.spec
    steps = steps_of(SECONDS, spec.frame_samples / spec.sample_rate, model.parts.spec.interleave)
    endless = SimpleNamespace(sample_rate=model.sample_rate, conversation=lambda: endless_conversation(model))
    return Scene(endless, ResponderOptions(max_new_tokens=steps), steps=1)


def asked(scene, turn, wait=0.9):
    return AskedTurn("q", wait, False, None, described(turn, scene.conversation.context.pieces))


def test_answers_are_as_long_as_they_are_forced_to_be(model, scene):
    ids, pattern = model.parts.tokenizer.ids, model.parts.spec.interleave
    for clip in SPOKEN[:3]:
        answer = scene.ask(clip).answer
        assert len(answer.codes) == 25 and len(answer.tokens) == 3 * pattern.text
        assert not {ids[role] for role in ENDINGS} & set(answer.tokens)
        assert np.max(answer.codes) < model.parts.spec.codes.end_of_audio
        assert answer.finish_reason == "length"


def test_random_weights_would_end_answers_by_themselves(model):
    lengths = {len([*model.chat(text="Hello there.", seed=seed, max_new_tokens=43)]) for seed in range(6)}
    assert len(lengths) > 1


@pytest.mark.parametrize(("seconds", "steps"), [(0.08, 7), (0.96, 18), (0.97, 25), (3.0, 62)])
def test_steps_of_an_answer(model, seconds, steps):
    assert steps_of(seconds, 0.08, model.parts.spec.interleave) == steps


def test_what_is_hidden_and_what_is_left_add_up(scene):
    found = first_sound(asked(scene, scene.ask(SPOKEN[0])))
    assert found.hidden + found.left == pytest.approx(found.work)
    assert found.encoder + found.prefill + found.text + found.frame == pytest.approx(found.work)
    assert 0 < found.share <= 1 and found.begun < found.endpoint
    assert found.queued + found.held == pytest.approx(found.played)
    assert found.positions == pytest.approx(found.question_seconds / 0.08, abs=14)


def test_without_speculation_nothing_is_hidden(scene):
    scene.responder._options = ResponderOptions(speculate=False, max_new_tokens=20)
    found = first_sound(asked(scene, scene.ask(SPOKEN[0])))
    assert found.hidden == 0 and found.left == found.work > 0
    assert found.begun >= found.endpoint


def test_a_turn_without_a_sound_is_lost(scene):
    heard, silent = asked(scene, scene.ask(SPOKEN[0])), AskedTurn("q", None, False, None, {})
    found = group("spoken", [heard, silent])
    assert (found["turns"], found["lost"]) == (2, 1)
    assert found["figures"]["wait"] == {"median": 0.9, "p90": 0.9, "max": 0.9}
    cells = {row: cell for row, cell in zip(*(column.cells for column in table([found], "t").columns), strict=True)}
    assert cells["last voiced sample to first, recorded, ms"] == "900 / 900 / 900" and cells["lost"] == "1"
    assert group("silent", [silent])["figures"] == {}


def test_long_questions_are_joined_without_pauses():
    questions = read_questions(None, 4)
    for question, short in zip(joined(questions, 4.0), questions, strict=True):
        first, end = voiced(question.samples, WIRE_RATE)
        assert isinstance(question, SpokenQuestion) and question.name == short.name
        assert first == 0 and end == pytest.approx(4.0 * WIRE_RATE, abs=0.1 * WIRE_RATE)


def test_the_command_asks_a_bundle_of_random_weights(sound_system, bundles, tmp_path):
    arguments = ("first-sound", "--bundle", bundles["lfm2.5"], "-n", "2", "--seconds", "1", "--json")
    ran = run_alone(*arguments, cwd=tmp_path, module="benchmarks.talk")
    assert ran.status == 0, ran.err
    assert "nothing about quality" in ran.err
    short, long = json.loads(ran.out)["groups"]
    assert short["lost"] == long["lost"] == 0 and long["positions"] > short["positions"]
    for turn in short["each_turn"] + long["each_turn"]:
        assert turn["answer_seconds"] == pytest.approx(13 * 0.08, abs=0.02)
        assert turn["hidden"] + turn["left"] == pytest.approx(turn["work"])
        assert turn["endpoint"] > turn["begun"] > BLOCK_SECONDS
