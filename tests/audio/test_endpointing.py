"""When turns begin, pause and end, block by block; and that silero's network tells speech from the rest."""

import numpy as np
import pytest

from tests.talking import HELD_OUT, SPOKEN, silence, spoken
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions, Patience, PushToTalk
from voxrill.runtime.audio.protocols import BLOCK
from voxrill.runtime.audio.voice_activity import VoiceActivity
from voxrill.runtime.errors import UsageError

OPTIONS = EndpointOptions(begin=0.064, pause=0.128, endpoint=0.256, hold=0.0, longest=0.64)  # 2, 4, 8 and 20 blocks


def decisions(pattern, options=OPTIONS):
    """What an endpointer decides on blocks voiced (v) or not (.), as {number of the block: decision}."""
    endpointer = Endpointer(options)
    heard = [endpointer.hear(0.9 if letter == "v" else 0.1) for letter in pattern]
    return {number: decision for number, decision in enumerate(heard) if decision}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        pytest.param("." * 50, {}, id="silence"),
        pytest.param("v.v.v.v." + "." * 20, {}, id="clicks"),
        pytest.param("..vvv" + "." * 20, {3: "began", 8: "paused", 12: "ended"}, id="a turn"),
        pytest.param(
            "vvv.....v........", {1: "began", 6: "paused", 8: "resumed", 12: "paused", 16: "ended"}, id="a pause"
        ),
        pytest.param("vvv...vvv...vvv...", {1: "began"}, id="pauses too short to suspect anything"),
        pytest.param("v" * 60, {1: "began", 20: "too long"}, id="a user who never stops"),
        pytest.param(
            "v" * 30 + "." * 8 + "vv" + "." * 8,
            {1: "began", 20: "too long", 39: "began", 43: "paused", 47: "ended"},
            id="and is quiet at last",
        ),
    ],
)
def test_turns(pattern, wanted):
    assert decisions(pattern) == wanted


def judged(pattern, *said, options=OPTIONS):
    """As `decisions`, where the pauses are judged: by these silences; None for a pause that is not."""
    endpointer, left, found = Endpointer(options), list(said), {}
    for number, letter in enumerate(pattern):
        decision = endpointer.hear(0.9 if letter == "v" else 0.1)
        if decision:
            found[number] = decision
        if decision == "paused" and (silence := left.pop(0)) is not None:
            endpointer.judge(silence)
    assert not left, "every pause was judged"
    return found


JUDGED = EndpointOptions(begin=0.064, pause=0.128, endpoint=0.256, hold=0.0, longest=10.0)


@pytest.mark.parametrize(
    ("pattern", "said", "wanted"),
    [
        pytest.param("vvv" + "." * 20, [0.0], {1: "began", 6: "paused", 7: "ended"}, id="finished"),
        pytest.param("vvv" + "." * 20, [0.512], {1: "began", 6: "paused", 18: "ended"}, id="unfinished"),
        pytest.param("vvv" + "." * 20, [None], {1: "began", 6: "paused", 10: "ended"}, id="not known"),
        pytest.param(
            "vvv....vv" + "." * 20,
            [0.0, None],
            {1: "began", 6: "paused", 7: "resumed", 12: "paused", 16: "ended"},
            id="gone on while it was judged",
        ),
        pytest.param(
            "vvv" + "." * 12 + "vv" + "." * 20,
            [0.512, 0.192],
            {1: "began", 6: "paused", 15: "resumed", 20: "paused", 22: "ended"},
            id="unfinished, and asked again",
        ),
        pytest.param(
            "vvv" + "." * 8 + "vvv" + "." * 20,
            [0.0, None],
            {1: "began", 6: "paused", 7: "ended", 12: "began", 17: "paused", 21: "ended"},
            id="a judgement holds for its turn only",
        ),
    ],
)
def test_judged_pauses(pattern, said, wanted):
    assert judged(pattern, *said, options=JUDGED) == wanted


def test_patience_goes_from_the_least_silence_to_the_most():
    patience = Patience(0.3, 2.0)
    assert [patience.silence(probability) for probability in (1.0, 0.5, 0.0)] == pytest.approx([0.3, 1.15, 2.0])
    assert EndpointOptions(patience=patience).longest_silence == 2.0
    with pytest.raises(UsageError, match="patience"):
        Patience(most=0.1)


def test_a_judgement_without_a_pause_changes_nothing():
    endpointer = Endpointer(JUDGED)
    for letter in "vvv":
        endpointer.hear(0.9 if letter == "v" else 0.1)
    endpointer.judge(0.0)
    assert [endpointer.hear(0.1) for _ in range(8)] == [None, None, None, "paused", None, None, None, "ended"]


def test_an_endpoint_as_short_as_the_pause_ends_the_turn_at_once():
    short = EndpointOptions(begin=0.032, pause=0.128, endpoint=0.128, hold=0.0)
    assert decisions("vv....", short) == {0: "began", 5: "ended"}


def test_less_is_enough_while_the_user_speaks():
    endpointer = Endpointer(EndpointOptions(begin=0.032, threshold=0.5, release=0.15))
    assert endpointer.hear(0.4) is None
    assert endpointer.hear(0.6) == "began"
    assert [endpointer.hear(0.4) for _ in range(50)] == [None] * 50


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="between 0 and 1"):
        EndpointOptions(threshold=1.5)
    with pytest.raises(UsageError, match=r"0\.128"):
        EndpointOptions(endpoint=0.1)


def test_a_key_may_take_the_place_of_silence():
    endpointer = PushToTalk(OPTIONS)
    assert [endpointer.hear(0.9) for _ in range(5)] == [None] * 5
    endpointer.press()
    assert [endpointer.hear(0.0) for _ in range(3)] == ["began", None, None]
    endpointer.press()
    assert endpointer.hear(0.0) == "ended"
    assert (endpointer.first, endpointer.last) == (5, 8)
    endpointer.press()
    assert [endpointer.hear(0.0) for _ in range(40)].count("too long") == 1


def test_silence_between_the_keys_is_left_out():
    endpointer = PushToTalk(OPTIONS)
    endpointer.press()
    assert [endpointer.hear(one) for one in (0.0, 0.0, 0.9, 0.0, 0.9, 0.0)] == ["began", *[None] * 5]
    endpointer.press()
    assert endpointer.hear(0.0) == "ended"
    assert (endpointer.first, endpointer.last) == (2, 4)


def probabilities(samples):
    voice_activity = VoiceActivity()
    return [voice_activity(samples[start : start + BLOCK]) for start in range(0, len(samples) - BLOCK, BLOCK)]


def test_speech_is_told_from_other_sound():
    for clip in SPOKEN[:4]:
        assert np.mean(np.array(probabilities(spoken(clip))) > 0.5) > 0.6
    for clip in HELD_OUT:
        if clip["kind"] in ("music", "silence"):
            assert max(probabilities(spoken(clip))) < 0.5
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert max(probabilities(noise)) < 0.5


def test_a_reset_forgets():
    voice_activity = VoiceActivity()
    first = voice_activity(silence(0.032))
    voice_activity(spoken(SPOKEN[0])[8000:8512])
    assert voice_activity(silence(0.032)) != first
    voice_activity.reset()
    assert voice_activity(silence(0.032)) == first
