"""Segments, tentative text, loops and the forms of a transcript, with made-up speech: loud blocks that say a number."""

import io
import json
import subprocess
import sys
from itertools import groupby

import numpy as np
import pytest
from rich.console import Console

import voxrill
from tests.command_line import clean_environment
from tests.talking import HELD_OUT, SPOKEN, silence, spoken
from voxrill.runtime.apps.live_sound import MOST_WAITING, LiveSound
from voxrill.runtime.apps.loops import before_loop
from voxrill.runtime.apps.stitching import without_overlap
from voxrill.runtime.apps.subtitles import FORMS, clock, form_named
from voxrill.runtime.apps.transcript import SegmentEvent, TentativeEvent
from voxrill.runtime.apps.transcript_view import TranscriptView
from voxrill.runtime.apps.transcription import TranscribeOptions, Transcriber, Words
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, Block
from voxrill.runtime.audio.segments import OVERLAP, SEGMENT_SECONDS, Segmenter, in_blocks
from voxrill.runtime.engine import generate
from voxrill.runtime.errors import AudioDeviceLost, AudioFileError, UsageError

WORD = 12  # blocks of a word: 0.38 s
LOUD = 0.2


def said(*words):
    """Words are numbers, each as many loud blocks; their level says which."""
    return np.concatenate([np.full(WORD * BLOCK, LOUD + word / 1000, np.float32) for word in words])


def quiet(blocks):
    return np.zeros(blocks * BLOCK, np.float32)


class Loudness:
    """Every loud block is speech, the first of a word a little less so."""

    def __call__(self, samples):
        return 0.9 if samples.max() >= LOUD else 0.0

    def reset(self):
        pass


class Ears:
    """Hears numbers; of a word that is not whole, half of it is enough. Counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, samples):
        self.asked += 1
        levels = samples.reshape(-1, BLOCK)[:, 0]
        found = [(level, len(list(run))) for level, run in groupby(round(float(level), 3) for level in levels)]
        words = [str(round(1000 * (level - LOUD))) for level, count in found if level and count >= WORD // 2]
        return Words(" ".join(words))


def transcribed(*sound, ears=None, tentative=False, endpoint=None, **more):
    options = TranscribeOptions(tentative, endpoint=endpoint or EndpointOptions(longest=SEGMENT_SECONDS))
    return list(Transcriber(ears or Ears(), options, Loudness(), **more).stream(sound))


# Segments


def test_a_segment_begins_and_ends_with_its_speech():
    first, second = transcribed(quiet(31), said(1, 2), quiet(40), said(3), quiet(40))
    assert (first.number, first.text, second.number, second.text) == (1, "1 2", 2, "3")
    assert first.start == 31 * BLOCK_SECONDS and first.end == (31 + 2 * WORD) * BLOCK_SECONDS
    assert second.start == (31 + 2 * WORD + 40) * BLOCK_SECONDS


def test_speech_at_the_very_end_is_not_lost():
    (segment,) = transcribed(quiet(20), said(5))
    assert segment.text == "5"


def test_a_short_pause_does_not_end_a_segment():
    (segment,) = transcribed(said(1), quiet(8), said(2), quiet(30))
    assert segment.text == "1 2"


@pytest.mark.parametrize("size", [1, 511, 512, 513, 20_000])
def test_the_size_of_the_pieces_changes_nothing(size):
    sound = np.concatenate([quiet(20), said(1, 2), quiet(40), said(3), quiet(7)[:-100]])
    pieces = [sound[start : start + size] for start in range(0, len(sound), size)] if size > 1 else [sound]
    assert transcribed(*pieces) == transcribed(sound)


def test_blocks_are_whole_and_lose_nothing():
    sound = np.arange(3000, dtype=np.float32)
    blocks = list(in_blocks([sound[:100], sound[100:2000], sound[2000:]]))
    assert {len(block) for block in blocks} == {BLOCK}
    assert np.array_equal(np.concatenate(blocks)[:3000], sound)


def test_speech_without_a_pause_is_cut_and_every_word_said_once():
    events = transcribed(quiet(20), said(*range(1, 121)), quiet(40))
    assert len(events) > 2
    assert all(event.end - event.start <= SEGMENT_SECONDS + 2 * BLOCK_SECONDS for event in events)
    assert " ".join(event.text for event in events) == " ".join(map(str, range(1, 121)))
    assert [event.start for event in events[1:]] == [event.end for event in events[:-1]]


def test_a_long_segment_is_cut_in_a_short_pause_if_there_is_one():
    words = round(SEGMENT_SECONDS / (WORD * BLOCK_SECONDS))
    sound = [said(*range(1, words - 9)), quiet(6), said(*range(words - 9, words + 20)), quiet(40)]
    first, second, *_ = transcribed(*sound)
    assert first.text.split()[-1] == str(words - 10) and second.text.split()[0] == str(words - 9)


def test_nothing_grows_with_the_sound():
    segmenter = Segmenter(Loudness(), EndpointOptions(longest=SEGMENT_SECONDS))
    most = 0
    for _ in range(20):
        for block in in_blocks([said(*range(1, 100)), quiet(500)]):
            segmenter.hear(block)
            most = max(most, len(segmenter._kept))
    assert most * BLOCK_SECONDS < SEGMENT_SECONDS + 2 * OVERLAP + 1


@pytest.mark.parametrize(
    ("before", "text", "new"),
    [
        ("turn on the", "on the light", "light"),
        ("turn on the,", "The light", "light"),
        ("turn on the", "n on the light", "light"),
        ("turn on", "the light", "the light"),
        ("", "the light", "the light"),
        ("the light", "the light", ""),
    ],
)
def test_words_that_both_parts_have_are_dropped(before, text, new):
    assert without_overlap(before, text) == new


# Tentative and stable text


def test_tentative_text_comes_while_one_speaks_and_stable_text_after():
    ears = Ears()
    events = transcribed(quiet(10), said(1, 2, 3, 4, 5, 6), quiet(30), ears=ears, tentative=True)
    *tentative, segment = events
    assert all(isinstance(event, TentativeEvent) for event in tentative)
    assert isinstance(segment, SegmentEvent)
    texts = [event.text for event in tentative]
    assert len(set(texts)) > 1 and all(segment.text.startswith(text[:-2]) for text in texts)
    assert texts[-1] == segment.text == "1 2 3 4 5 6"
    assert ears.asked == len(tentative)  # what was heard at the pause was not heard again


def test_a_pause_that_was_none_takes_its_text_back():
    events = transcribed(said(1), quiet(8), said(2), quiet(30), tentative=True)
    assert [event.text for event in events] == ["1", "1 2", "1 2"]


def test_in_a_hurry_there_is_no_tentative_text():
    sound = (said(1, 2, 3, 4, 5, 6), quiet(30))
    events = list(Transcriber(Ears(), voice=Loudness()).stream(sound, hurry=lambda: True))
    assert events == transcribed(*sound)


def test_known_segments_are_not_heard_again():
    sound = (said(1, 2), quiet(40), said(3), quiet(40))
    first, second = transcribed(*sound)
    ears = Ears()
    again = transcribed(*sound, ears=ears, known={(first.start, first.end): first})
    assert again == [first, second] and ears.asked == 1


def test_time_goes_on_from_an_earlier_run():
    (segment,) = transcribed(said(1), quiet(40), since=100.0, count=7)
    assert (segment.number, segment.start) == (8, 100.0)


# Guards


@pytest.mark.parametrize("sound", [quiet(300), np.full(3 * BLOCK, LOUD, np.float32)], ids=["silence", "click"])
def test_silence_and_clicks_give_no_text(sound):
    ears = Ears()
    assert transcribed(quiet(20), sound, quiet(40), ears=ears) == []
    assert ears.asked == 0


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([1, 2, 3, 4, 5] * 2, None),
        ([7] * 5, None),
        ([7] * 12, 1),
        ([1, 2, *[7] * 12], 3),
        ([9, *[1, 2, 3] * 4], 4),
        ([9, *list(range(16)) * 4], 17),
        ([9, *[1, 2, 3] * 4, 1], 5),
        (list(range(60)), None),
    ],
)
def test_loops(tokens, kept):
    assert before_loop(tokens) == kept


# Forms


SEGMENTS = [SegmentEvent(1, 0.5, 61.25, "a <b> & c"), SegmentEvent(2, 3600.0, 3601.9996, "d", True)]


def rendered(name):
    return "".join(FORMS[name].render(SEGMENTS))


def test_plain():
    assert rendered("plain") == "a <b> & c\nd\n"


def test_subrip():
    assert rendered("srt") == ("1\n00:00:00,500 --> 00:01:01,250\na <b> & c\n\n2\n01:00:00,000 --> 01:00:02,000\nd\n\n")


def test_webvtt_is_escaped():
    assert rendered("vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:01:01.250\na &lt;b&gt; &amp; c\n\n01:00:00.000 --> 01:00:02.000\nd\n\n"
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_json_is_one_document(count):
    found = json.loads("".join(FORMS["json"].render(SEGMENTS[:count])))
    assert [one["text"] for one in found["segments"]] == [one.text for one in SEGMENTS[:count]]


def test_clock():
    assert clock(100 * 3600 + 59.9996) == "100:01:00.000"


def test_the_output_s_name_says_its_form(tmp_path):
    assert form_named(None, tmp_path / "a.SRT") is FORMS["srt"]
    assert form_named("vtt", tmp_path / "a.srt") is FORMS["vtt"]
    assert form_named(None, tmp_path / "a.txt") is form_named(None, None) is FORMS["plain"]
    with pytest.raises(UsageError, match="plain, srt, vtt, json"):
        form_named("doc", None)


# The view


def test_on_a_terminal_tentative_text_is_dimmed_and_stable_text_stays():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with TranscriptView(console, None, text=True) as view:
        view.show(TentativeEvent(0.0, 1.0, "turn of"))
        view.show(SegmentEvent(1, 0.0, 1.5, "turn off"))
    written = console.file.getvalue()
    assert "\x1b[2;3mturn of\x1b[0m" in written and "listening" in written
    assert "turn off\n" in written.replace("\r", "") and "turn of\n" not in written.rpartition("turn off")[2]


def test_without_a_terminal_only_loops_are_told():
    console = Console(file=io.StringIO())
    with TranscriptView(console, 10.0, text=True) as view:
        view.show(TentativeEvent(0.0, 1.0, "turn of"))
        view.show(SegmentEvent(1, 61.0, 62.5, "turn off", loop=True))
    assert console.file.getvalue() == ("At 00:01:01.000 the model repeated itself without end; the text was cut\n")


def test_a_long_sound_is_followed_in_a_log():
    console = Console(file=io.StringIO(), width=20)
    with TranscriptView(console, 600.0, text=True) as view:
        for second in range(1, 601):
            view.heard(float(second))
    lines = console.file.getvalue().splitlines()
    assert [line.split(", ")[1] for line in lines[1:]] == [f"00:{minute:02}:00 of 00:10:00" for minute in range(1, 11)]
    assert " left" in lines[1] and " left" not in lines[-1]


@pytest.mark.parametrize(("total", "text"), [(None, True), (59.0, True), (600.0, False)])
def test_a_log_is_not_filled_where_nobody_waits(total, text):
    console = Console(file=io.StringIO())
    with TranscriptView(console, total, text=text) as view:
        view.heard(30.0)
    assert console.file.getvalue() == ""


# The microphone


class FakeMicrophone:
    """Hands out blocks, then calls `then`, and hears nothing more."""

    def __init__(self, blocks, then=lambda: None):
        self._blocks = iter(blocks)
        self._then = then
        self.open = False

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *_error):
        self.open = False

    def read(self, timeout):
        block = next(self._blocks, None)
        if block is None:
            self._then()
        return block


def numbered(numbers):
    return [Block(np.full(BLOCK, number, np.float32), number * BLOCK, 0.0) for number in numbers]


def heard(microphone):
    sound = LiveSound(microphone)
    microphone._then = microphone._then or sound.close
    with sound:
        found = [int(block[0]) for block in sound]
    assert not microphone.open
    return found, sound


def test_a_microphone_is_heard_to_its_end():
    found, sound = heard(FakeMicrophone(numbered([0, 1, 2, 3]), None))
    assert found == [0, 1, 2, 3] and sound.error is None and sound.lost == 0


def test_where_a_microphone_was_away_there_is_silence():
    found, _ = heard(FakeMicrophone(numbered([1, 2, 5]), None))
    assert found == [0, 1, 2, 0, 0, 5]


def test_a_lost_microphone_is_told_after_all_it_heard():
    def lose():
        raise AudioDeviceLost("gone")

    found, sound = heard(FakeMicrophone(numbered([0, 1]), lose))
    assert found == [0, 1] and isinstance(sound.error, AudioDeviceLost)


def test_what_waits_for_a_slow_model_is_bounded():
    most = round(MOST_WAITING / BLOCK_SECONDS)
    microphone = FakeMicrophone(numbered(range(most + 100)))
    with LiveSound(microphone) as sound:
        microphone._then = sound.close
        sound._thread.join()
        assert sound.hurry()
        found = [int(block[0]) for block in sound]
    assert sound.lost == pytest.approx(100 * BLOCK_SECONDS, abs=2 * BLOCK_SECONDS)
    assert len(found) == most + 100 and found[-1] == most + 99


# The built-in model


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def test_commands_with_pauses_are_segments(pebble):
    clips = SPOKEN[:6]
    sound = [part for clip in clips for part in (silence(0.9), spoken(clip))]
    segments = list(pebble.transcribe_stream(sound, tentative=False, sample_rate=16_000))
    right = [segment.text == clip["words"] for segment, clip in zip(segments, clips, strict=True)]
    assert sum(right) >= len(clips) - 1


def test_tentative_text_of_a_command(pebble):
    *tentative, segment = pebble.transcribe_stream([silence(0.5), spoken(SPOKEN[0]), silence(1.0)], sample_rate=16_000)
    assert tentative[-1].text == segment.text == SPOKEN[0]["words"]


def test_music_and_silence_give_no_text(pebble):
    others = [spoken(clip) for clip in HELD_OUT if clip["kind"] in ("music", "silence")]
    sound = [part for other in others for part in (silence(0.8), other)]
    assert len(others) == 8 and list(pebble.transcribe_stream(sound, sample_rate=16_000)) == []


def test_a_model_that_repeats_itself_is_cut(pebble, monkeypatch):
    """Of a model whose every token is the same, a dozen are enough."""
    (word,) = pebble.parts.tokenizer.encode("kitchen")
    made = []

    def again(_self, _hidden):
        made.append(word)
        return generate.Token(word)

    monkeypatch.setattr(generate.Generation, "_token", again)
    (segment,) = pebble.transcribe_stream([spoken(SPOKEN[0])], tentative=False, sample_rate=16_000)
    assert segment.loop and segment.text == "kitchen" and len(made) == 12


def test_pieces_that_are_no_sound_are_refused(pebble):
    with pytest.raises(AudioFileError, match="NaN"):
        list(pebble.transcribe_stream([np.full(1000, np.nan, np.float32)], sample_rate=16_000))


LONG = """
import sys
import numpy as np, psutil
from tests.apps.test_transcription import Ears, Loudness, quiet, said
from voxrill.runtime.apps.transcript_view import TranscriptView
from voxrill.runtime.apps.transcription import Transcriber

def sound(hours):
    minute = np.concatenate([said(*range(1, 61)), quiet(200), said(*range(1, 61)), quiet(235)])
    for number in range(60 * hours):
        yield minute
        if number in (5, 60 * hours - 1):
            print(psutil.Process().memory_info().rss)

print(sum(1 for _ in Transcriber(Ears(), voice=Loudness()).stream(sound(3))))
"""


def test_memory_does_not_grow_in_three_hours():
    """Faster than real time, with a detector and ears that compute nothing, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, env=clean_environment(), text=True)
    assert done.returncode == 0, done.stderr
    after_five_minutes, after_three_hours, events = map(int, done.stdout.split())
    assert events > 3 * 60 * 4
    assert after_three_hours < 1.05 * after_five_minutes


def test_a_fixed_shape_encoder_gets_segments_that_fit(npu_models):
    """Random weights hear nothing in 20 s of commands, but they hear it in pieces of 4 s; whole it would be refused."""
    model = npu_models["lfm2"]
    sound = [np.concatenate([spoken(clip) for clip in SPOKEN[:8]])]
    assert len(sound[0]) > 4 * 16_000
    segments = list(model.transcribe_stream(sound, tentative=False, max_new_tokens=4, sample_rate=16_000))
    assert len(segments) >= len(sound[0]) / (4 * 16_000)
