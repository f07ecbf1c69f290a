"""What is seen of a talk: a live view on a terminal, lines elsewhere; both show every event and survive threads."""

import io
import math

import pytest
from rich.console import Console

from voxrill.runtime.talk.events import (
    AssistantSaid,
    Notice,
    StateChanged,
    TurnEnded,
    UserHeard,
    UserSaid,
    UserSpeaking,
)
from voxrill.runtime.talk.trace import TurnTrace
from voxrill.runtime.talk.view import METER, SPOKEN, LiveView, PlainView, make_view, meter, summary

ANSWERED = TurnTrace(1, voice_end=1.0, endpoint=1.5, queued=1.51, played=1.515)
TURN = [
    StateChanged("listening"),
    UserSpeaking(2.0),
    UserSaid(""),
    StateChanged("thinking"),
    StateChanged("speaking"),
    AssistantSaid(" kitchen [lights]"),
    AssistantSaid(" on"),
    TurnEnded(ANSWERED),
    Notice("The microphone is back."),
]


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=70, markup=False, highlight=False, emoji=False)


def text(written):
    return written.file.getvalue()


def test_lines_where_there_is_no_terminal():
    err, out = console(False), console(False)
    with make_view(err, out) as view:
        assert isinstance(view, PlainView)
        for event in TURN:
            view.show(event)
            view.level(-20.0)
    assert text(out) == "kitchen [lights] on\n"
    assert text(err) == f"you: {SPOKEN}\nanswered after 515 ms\nThe microphone is back.\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_spoken_question_is_shown_in_words_when_they_are_known(terminal):
    err = console(terminal)
    with make_view(err, console(terminal)) as view:
        for event in (*TURN[:-2], UserHeard("kitchen lights on"), *TURN[-2:]):
            view.show(event)
    assert text(err).count("you: ") == 1 and "kitchen lights on" in text(err) and SPOKEN not in text(err)


def test_an_answer_that_is_cut_off_by_the_end_is_written():
    err, out = console(False), console(False)
    with PlainView(err, out) as view:
        view.show(AssistantSaid("kitchen"))
    assert text(out) == "kitchen\n"


def test_what_was_said_stays_on_a_terminal():
    err = console(True)
    with make_view(err, console(True)) as view:
        assert isinstance(view, LiveView)
        for event in TURN:
            view.show(event)
    shown = text(err)
    order = [f"you: \x1b[0m{SPOKEN}", "kitchen [lights] on", "answered after 515 ms", "The microphone is back."]
    places = [shown.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize("state", ["listening", "thinking", "speaking"])
def test_the_last_line_shows_state_level_and_the_growing_answer(state):
    view = LiveView(console(True))
    view.show(StateChanged(state))
    view.show(UserSpeaking(3.0))
    view.show(AssistantSaid("living room"))
    view.level(-30.0)
    page = console(False)
    page.print(view._render())
    answer, status = text(page).splitlines()
    assert answer == "model: living room"
    assert state in status and "you, 3 s" in status and status.count("█") == METER // 2


@pytest.mark.parametrize(("dbfs", "full"), [(-math.inf, 0), (-70, 0), (-30, METER // 2), (0, METER), (6, METER)])
def test_the_meter_stays_within_its_ends(dbfs, full):
    assert meter(dbfs).count("█") == full and len(meter(dbfs)) == METER


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (ANSWERED, "answered after 515 ms"),
        (TurnTrace(2, endpoint=1.5, queued=1.51, played=1.515), "answered 10 ms after the question"),
        (TurnTrace(3), "no sound"),
        (TurnTrace(4, barge_in=1.25, underruns=2), "no sound, interrupted after 1.2 s, 2 gaps"),
    ],
)
def test_a_turn_in_one_line(trace, said):
    assert summary(trace) == said
