"""Ask a question and time the answer; or interrupt an answer with a question and time its end.

In: a virtual user, a program, sounds at the wire's rate. Out: seconds, measured in the recording.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.talk.measuring import voiced, voiced_spells
from benchmarks.talk.sound_server import WIRE_RATE
from benchmarks.talk.subject import Subject
from benchmarks.talk.virtual_user import VirtualUser
from voxrill.runtime.audio.protocols import Floats

LOST_SECONDS = 10.0
"""Seconds without an answer after which the question is lost."""

OVER_SECONDS = 0.7
"""Seconds of silence that end an answer: longer than its pauses, and enough for the program to listen again."""

INTERRUPT_SECONDS = 0.3
"""Seconds of the answer before it is interrupted."""

SILENT_SECONDS = 0.5
"""Seconds of silence that end an interrupted answer: what sounds after them answers what was said meanwhile."""

_LOOK_SECONDS = 0.05

_USER, _PROGRAM = 0, 1


@dataclass(frozen=True)
class SpokenQuestion:
    """A question: samples (n,) at the wire's rate, and the right reply, None if it is not known."""

    name: str
    samples: Floats
    reply: str | None = None


@dataclass(frozen=True)
class AskedTurn:
    """A turn. wait: seconds from the question's last voiced sample to the answer's first one, None if it was lost.

    early: whether the answer began before the question was over. told: what the program wrote about the turn.
    """

    question: str
    wait: float | None
    early: bool
    right: bool | None
    told: dict[str, Any]


@dataclass(frozen=True)
class Interruption:
    """An interruption.

    stopped: seconds from its first voiced sample to the last one of the answer, None if the answer had already ended;
    answered: whether the interrupting question was then answered.
    """

    question: str
    stopped: float | None
    answered: bool


def ask(user: VirtualUser, subject: Subject, question: SpokenQuestion) -> AskedTurn:
    """Ask, wait for the end of the answer, and measure the wait in the recording."""
    _drain(subject)
    user.listen()
    user.say(question.samples)
    heard = _until(subject, user, lambda sound: _is_over(sound, question))
    # Both sides are channels of one recording, so their samples are on one clock.
    asked, answered = voiced(heard[:, _USER], WIRE_RATE), voiced(heard[:, _PROGRAM], WIRE_RATE)
    told = subject.told()
    right = None if question.reply is None else told.get("text", "").strip() == question.reply
    if asked is None or answered is None:
        return AskedTurn(question.name, None, False, right, told)
    wait = (answered[0] - asked[1]) / WIRE_RATE
    return AskedTurn(question.name, None if wait < 0 else wait, wait < 0, right, told)


def interrupt(user: VirtualUser, subject: Subject, first: SpokenQuestion, second: SpokenQuestion) -> Interruption:
    """Ask `first`, and interrupt its answer with `second`."""
    _drain(subject)
    user.listen()
    user.say(first.samples)
    _until(subject, user, lambda sound: _has_begun(sound, first))
    user.listen()
    user.say(second.samples)
    heard = _until(subject, user, lambda sound: _is_over(sound, second))
    asked, speech = voiced(heard[:, _USER], WIRE_RATE), heard[:, _PROGRAM]
    if asked is None:
        return Interruption(second.name, None, False)
    # The old answer still sounds when the question begins. What is said later in it answers its first part, which was
    # taken to be the whole.
    spells = voiced_spells(speech[: asked[1]], WIRE_RATE, SILENT_SECONDS)
    stopped = [(last - asked[0]) / WIRE_RATE for first, last in spells if first <= asked[0] < last]
    reply = voiced(speech[asked[1] :], WIRE_RATE)
    return Interruption(second.name, stopped[0] if stopped else None, reply is not None)


def _drain(subject: Subject) -> None:
    while subject.told(0):
        pass


def _until(subject: Subject, user: VirtualUser, enough: Callable[[Floats], bool]) -> Floats:
    """The recording once it is `enough`, or once the answer is lost."""
    while True:
        time.sleep(_LOOK_SECONDS)
        subject.check()
        heard = user.recording()
        if enough(heard) or len(heard) > 3 * LOST_SECONDS * WIRE_RATE:
            return heard


def _has_begun(heard: Floats, question: SpokenQuestion) -> bool:
    """Whether the answer to the whole question has begun: one to its first half is interrupted by its second."""
    asked = _said(heard, question)
    answered = None if asked is None else voiced(heard[asked[1] :, _PROGRAM], WIRE_RATE)
    if asked is None or answered is None:
        return False
    return len(heard) - asked[1] - answered[0] >= INTERRUPT_SECONDS * WIRE_RATE


def _is_over(heard: Floats, question: SpokenQuestion) -> bool:
    """Whether the answer to the whole question is over, or lost."""
    asked = _said(heard, question)
    if asked is None:
        return False
    answered = voiced(heard[asked[1] :, _PROGRAM], WIRE_RATE)
    quiet = len(heard) - asked[1] - (0 if answered is None else answered[1])
    return quiet > (LOST_SECONDS if answered is None else OVER_SECONDS) * WIRE_RATE


def _said(heard: Floats, question: SpokenQuestion) -> tuple[int, int] | None:
    """First and last voiced sample of the question; None while it is being said."""
    return None if len(heard) < len(question.samples) else voiced(heard[:, _USER], WIRE_RATE)
