"""Speech that does not end by itself is cut, and the result says so."""

from dataclasses import dataclass, field

import numpy as np
import pytest

import voxrill
from voxrill.runtime.engine import conversation
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions
from voxrill.runtime.engine.running_on import Repetition, longest_speech

BOOKS, END = 8, 2048
AUDIO_START, IM_END = 128, 7


@dataclass
class Speaker:
    """A context whose model says `frames`, a code for all books each, and then ends."""

    frames: list
    ids: dict = field(default_factory=lambda: {"audio_start": AUDIO_START, "im_end": IM_END})
    end_of_audio: int = END
    said: int = -1  # before the first token

    def advance(self):
        return np.zeros(4, np.float32)

    def logits(self, _hidden):
        logits = np.zeros(200, np.float32)
        logits[AUDIO_START if self.said < 0 else IM_END] = 1
        return logits

    def add_tokens(self, _tokens):
        self.said = 0

    def frame(self, *_):
        return np.full(BOOKS, self.frames[self.said] if self.said < len(self.frames) else END, np.int64)

    def ends(self, codes):
        return codes[0] == END

    def add_frames(self, _codes):
        self.said += 1


def said(frames, **options):
    """(finish_reason, number of frames) of an answer."""
    options = GenerationOptions(mode="sequential", max_new_tokens=4000, **options)
    generation = Generation(Speaker(list(frames)), options)
    steps = [step for step in generation if isinstance(step, Frame) and not step.ends]
    return generation.finish_reason, len(steps)


def test_speech_that_varies_goes_to_its_end():
    frames = np.random.default_rng(0).integers(0, 2048, 1000)
    assert said(frames) == ("stop", 1000)


@pytest.mark.parametrize("cycle", [1, 2, 7, 16])
def test_speech_that_repeats_itself_is_cut(cycle):
    """After 3.2 s of what was said already."""
    begin, repeated = range(100, 130), list(range(cycle)) * 3000
    assert said([*begin, *repeated]) == ("ran_on", 30 + cycle + 40)


@pytest.mark.parametrize("pause", [1, 12, 25, 40])
def test_a_pause_is_not_running_on(pause):
    """Silence of 3.2 s inside speech has the same codes in every frame."""
    frames = [*range(20), *[900] * pause, *range(20, 60)]
    assert said(frames) == ("stop", len(frames))


def test_a_voice_that_says_two_words_in_turn_is_no_cycle():
    chance = np.random.default_rng(1)
    frames = chance.integers(0, 2, 400) * 5
    assert said(frames) == ("stop", 400)


def test_speech_has_a_bound():
    frames = np.random.default_rng(0).integers(0, 2048, 1000)
    assert said(frames, max_frames=50) == ("ran_on", 50)
    assert said(frames[:49], max_frames=50) == ("stop", 49)


def test_the_watch_keeps_little():
    watch = Repetition()
    for code in range(10_000):
        assert not watch.stuck(np.full(BOOKS, code))
    assert len(watch._seen) <= 16


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("Hello, how are you today?", 4.1),  # the slowest voice of the published streams, which ends
        ("1,234,567.89 %", 8.0),
        ("富士山の高さは約3,776メートルです。", 6.0),
        ("Yes.", 1.0),
        ("", 0.1),
    ],
)
def test_no_voice_needs_as_long(text, needed):
    assert needed < longest_speech(text) < 8 * needed + 4


def test_the_built_in_model_says_whole_texts_and_is_cut(monkeypatch):
    """Speak has the bound; an answer has none, because nobody knows how long it should be."""
    model = voxrill.load(threads=1)
    text = "the kitchen lights are on"
    assert model.speak(text).result.finish_reason == "stop"
    monkeypatch.setattr(conversation, "longest_speech", lambda _text: 0.3)
    short = model.speak(text).result
    assert short.finish_reason == "ran_on" and 0 < short.audio_seconds <= 0.4
    *_, end = model.chat(text="turn on the kitchen lights")
    assert end.result.finish_reason == "stop"
