"""The live loop on fake edges: held-out questions are answered, pauses, interruptions and faults survived."""

import numpy as np
import pytest

import voxrill
from tests.talking import SPOKEN, Scene, silence, spoken
from voxrill.runtime.talk.listener import Ended, Interrupted, Paused, Resumed
from voxrill.runtime.talk.mind import MindOptions


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def test_spoken_questions_are_answered_aloud(pebble):
    scene = Scene(pebble)
    turns = [scene.ask(clip) for clip in SPOKEN[:8]]
    right = [turn.answer.text.strip() == clip["reply"] for turn, clip in zip(turns, SPOKEN, strict=False)]
    assert sum(right) >= 7
    for turn, heard in zip(turns, scene.player.heard, strict=True):
        assert np.array_equal(heard, turn.answer.waveform())
        assert turn.heard is None
        assert turn.trace.underruns == 0
        assert turn.trace.speculated
        assert turn.trace.false_starts == 0


def test_the_answer_waits_at_the_endpoint(pebble):
    scene = Scene(pebble)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: any(isinstance(signal, Paused) for signal in scene.signals))
    scene.hear(silence(0.1))
    assert scene.player.begun == []
    scene.hear_until(lambda: any(isinstance(signal, Ended) for signal in scene.signals))
    assert len(scene.player.begun) == 1  # in the very block that ended the turn
    assert scene.player.busy()


def test_a_false_start_leaves_no_trace_in_the_answer(pebble):
    clip = spoken(SPOKEN[0])
    broken = (clip[:14_000], silence(0.3), clip[14_000:])
    answers = []
    for speculate in (True, False):
        scene = Scene(pebble, MindOptions(speculate=speculate, turns=0))
        scene.hear(silence(0.5), *broken)
        scene.hear_until(lambda scene=scene: scene.turns)
        assert sum(isinstance(signal, Resumed) for signal in scene.signals) >= 1
        assert len(scene.player.begun) == 1
        assert scene.turns[0].trace.speculated is speculate
        answers.append(scene.turns[0])
    assert answers[0].trace.false_starts >= 1
    assert answers[1].trace.false_starts == 0
    assert answers[0].answer.tokens == answers[1].answer.tokens
    assert answers[0].answer.codes == answers[1].answer.codes
    assert np.array_equal(answers[0].utterance.samples, answers[1].utterance.samples)


def test_an_interruption_keeps_what_was_heard(pebble):
    scene = Scene(pebble, MindOptions(turns=3), barge_in=True)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.player.played() > 24_000)
    scene.hear(spoken(SPOKEN[1]))
    interruption = next(signal for signal in scene.signals if isinstance(signal, Interrupted))
    scene.hear_until(lambda: len(scene.turns) == 2)
    first, second = scene.turns
    frame = pebble.codec.spec.frame_samples
    assert first.heard == interruption.heard == len(scene.player.heard[0])
    assert 24_000 < first.heard < first.answer.samples
    assert first.answer.text and SPOKEN[0]["reply"].startswith(first.answer.text.strip())
    assert second.heard is None
    kept = sum(piece.codes.shape[1] for piece in spoken_pieces(scene.conversation)) - len(second.answer.codes)
    assert first.heard // frame - 1 <= kept <= first.heard // frame


def spoken_pieces(conversation):
    from voxrill.runtime.context import Spoken

    end = conversation.context.end_of_audio
    return [piece for piece in conversation.context.pieces if isinstance(piece, Spoken) and piece.codes[0, 0] != end]
