"""The built-in model's own word on the end of a turn: sure of whole commands, unsure of parts and of other talk."""

import numpy as np
import pytest

import voxrill
from tests.signals import speech_like
from tests.talking import HELD_OUT, SPOKEN, spoken
from voxrill.runtime.apps.own_end import LONGEST, OwnEnd, pause_judge
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.segments import speech_in
from voxrill.runtime.events import TextEvent

OPTIONS = EndpointOptions()


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


@pytest.fixture(scope="module")
def own(pebble):
    return OwnEnd(pebble, otherwise=lambda _sound, _options: 1.5)


def heard(clip):
    """A clip as the listener cuts it."""
    return speech_in(spoken(clip))


def test_whole_commands_end_at_their_first_pause(own):
    said = [own(heard(clip), OPTIONS) for clip in SPOKEN]
    assert said.count(0.0) >= 0.8 * len(said) and set(said) <= {0.0, 1.5}


def test_what_is_no_command_is_left_to_the_other_judge(own):
    others = [heard(clip) for clip in HELD_OUT if clip["kind"] == "outside"]
    assert [own(sound, OPTIONS) for sound in others].count(0.0) <= 1
    assert own(speech_like(32_000), OPTIONS) == 1.5


def test_half_a_command_is_no_end(own):
    """Cut 0.5 s after it begins. Some are whole commands all the same: "play some jazz"."""
    halves = [heard(clip)[: round(0.82 * 16_000)] for clip in SPOKEN]
    assert [own(sound, OPTIONS) for sound in halves].count(0.0) <= 0.15 * len(halves)


def test_long_sound_is_not_transcribed(pebble, monkeypatch):
    own = OwnEnd(pebble)
    monkeypatch.setattr(own, "_model", lambda *_asked: pytest.fail("it was asked"))
    assert own(np.zeros(round(LONGEST * 16_000) + 1, np.float32), OPTIONS) is None


def test_the_model_itself_is_asked_only_where_the_choice_is_left_to_it(pebble):
    def ends(_sound):
        return 1.0

    for wish in (None, "auto"):
        assert isinstance(pause_judge(pebble, wish, None, print), OwnEnd)
    assert pause_judge(pebble, "timer", None, print) is None
    assert not isinstance(pause_judge(pebble, ends, ends, print), OwnEnd)


def test_an_answer_under_way_is_not_disturbed(pebble, own):
    """Its state is its own: the answer is the same with and without it."""
    question = {"audio": (spoken(SPOKEN[0]), 16_000), "output": "text", "seed": 1}
    alone, between = [event for event in pebble.chat(**question) if isinstance(event, TextEvent)], []
    for event in pebble.chat(**question):
        between += [event] if isinstance(event, TextEvent) else []
        own(heard(SPOKEN[1]), OPTIONS)
    assert alone and [event.token for event in between] == [event.token for event in alone]
