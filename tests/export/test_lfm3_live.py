"""Recognition while the user speaks, with the golden model: chunks, what is carried over, new contexts, the command."""

import numpy as np
import pytest
from msgspec.structs import replace

from tests.export.lfm3_golden import expected
from tests.export.test_lfm3_bundle import Told, lfm3, lfm3_bundle  # noqa: F401 (fixtures)
from voxrill.runtime.apps.live_recognition import LiveRecogniser, live_task
from voxrill.runtime.apps.transcript import SegmentEvent, TentativeEvent


def sound(seconds):
    clip = expected()["pcm16"].astype(np.float32) / 32768
    return np.tile(clip, int(seconds * 16_000 / len(clip)) + 1)[: int(seconds * 16_000)]


def pieces(samples, size):
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def events(model, task, samples, size=512, **options):
    return list(LiveRecogniser(model, task, **options).stream(pieces(samples, size)))


@pytest.fixture
def task(lfm3):  # noqa: F811
    return live_task(lfm3)


def test_chunks_and_what_is_carried_over(lfm3, task):  # noqa: F811
    """The same by hand: prompt, 12 rows, text; the token that closed it in front of the next 12 rows."""
    parts, short = lfm3.parts, replace(task, most_tokens=4)
    rows, tokenizer, told = parts.encoder.encode(sound(2.2)), parts.tokenizer, Told(lfm3)
    start = [*tokenizer.start, *tokenizer.openings["system"], *tokenizer.encode(task.system), *tokenizer.closing]
    told.tokens([*start, *tokenizer.openings["assistant"]])
    (end,), (last,), banned = (
        tokenizer.special([task.end]),
        tokenizer.special([task.last]),
        tokenizer.special(task.unwritten),
    )
    closes, carried, texts = tokenizer.special(task.closes), [], []
    for number, chunk in enumerate((rows[:12], rows[12:24], rows[24:])):
        if carried:
            told.tokens(carried)
        hidden, written = told.rows(chunk), []
        ends = {end, *closes} if number == 2 else {end}
        if number == 2:
            hidden = told.tokens([last])
        while True:
            logits = parts.backbone.logits(hidden).copy()
            logits[[i for i in banned if i not in ends]] = -np.inf
            token = int(logits.argmax())
            if token in ends:
                carried = [end]
                break
            written.append(token)
            if len(written) == (short.last_tokens if number == 2 else 4):
                carried = [token, end]
                break
            hidden = told.tokens([token])
        texts.append(tokenizer.decode(written))
    found = events(lfm3, short, sound(2.2))
    said = "".join(event.text for event in found if isinstance(event, SegmentEvent))
    assert any(text.strip() for text in texts)
    assert said.split() == "".join(texts).split()


@pytest.mark.parametrize("size", [160, 1600, 50_000])
def test_the_size_of_the_pieces_changes_nothing(lfm3, task, size):  # noqa: F811
    found, wanted = events(lfm3, task, sound(3.5), size), events(lfm3, task, sound(3.5), 512)
    assert [(e.start, e.end, e.text) for e in found] == [(e.start, e.end, e.text) for e in wanted]
    sure = [[e.confidence for e in one if isinstance(e, SegmentEvent)] for one in (found, wanted)]
    assert sure[0] == pytest.approx(sure[1], rel=1e-3)


def test_text_comes_a_chunk_after_its_sound(lfm3, task):  # noqa: F811
    short, recogniser, seconds = replace(task, most_tokens=3), None, 0.0
    recogniser = LiveRecogniser(lfm3, short)

    def come():
        nonlocal seconds
        for piece in pieces(sound(4), 512):
            seconds += len(piece) / 16_000
            yield piece

    for event in recogniser.stream(come()):
        if isinstance(event, TentativeEvent):
            assert event.end <= seconds <= event.end + 0.015 + 0.032 + 0.08
            assert event.end - event.start <= 4.1


def test_a_long_sound_begins_new_contexts(lfm3, task):  # noqa: F811
    short = replace(task, most_tokens=2, last_tokens=2, context_rows=30, quiet_rows=20)
    recogniser, most = LiveRecogniser(lfm3, short), 0
    for _ in recogniser.stream(pieces(sound(12), 4000)):
        most = max(most, recogniser._context.positions)
    whole = LiveRecogniser(lfm3, replace(short, context_rows=10_000, quiet_rows=10_000))
    list(whole.stream(pieces(sound(12), 4000)))
    assert most < 40 + 36 + 3 * 5 < whole._context.positions


def test_a_segment_says_how_sure_it_is(lfm3, task):  # noqa: F811
    found = [event for event in events(lfm3, replace(task, most_tokens=4), sound(3)) if isinstance(event, SegmentEvent)]
    assert found and all(0 < event.confidence < 1 for event in found)


def test_silence_and_nothing(lfm3, task):  # noqa: F811
    assert events(lfm3, task, np.zeros(0, np.float32)) == []
    short = replace(task, most_tokens=2, last_tokens=2)
    assert all(isinstance(e, (SegmentEvent, TentativeEvent)) for e in events(lfm3, short, np.zeros(9000, np.float32)))


def test_numbers_and_times_go_on(lfm3, task):  # noqa: F811
    short = replace(task, most_tokens=3, last_tokens=3)
    first, later = events(lfm3, short, sound(2)), events(lfm3, short, sound(2), since=10.0, count=4)
    for one, other in zip(first, later, strict=True):
        assert (other.start, other.text) == (pytest.approx(one.start + 10), one.text)
        if isinstance(one, SegmentEvent):
            assert other.number == one.number + 4
