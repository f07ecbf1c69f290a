"""The keyboard: typed questions, the key that is pressed to talk, Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from voxrill.runtime.talk.loop import Talk


@contextmanager
def keyboard(talking: Talk, text: bool, push_to_talk: bool) -> Iterator[None]:
    """While the talk is on: typed questions, or the key that is pressed to talk, and Ctrl-C."""
    if text or push_to_talk:
        Thread(target=_type if text else _press, args=(talking,), daemon=True).start()
    with closed_by_signals(talking.close):
        yield


def _type(talking: Talk) -> None:
    """Every line of stdin is a question; what is not typed at a terminal waits for the answer to the line before."""
    for line in sys.stdin:
        if line.strip():
            talking.type(line.strip())
            if not sys.stdin.isatty():
                talking.wait_until_answered()
    talking.close(finish=True)


def _press(talking: Talk) -> None:
    for _ in sys.stdin:
        talking.press()
    talking.close(finish=True)


@contextmanager
def closed_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) calls `end`; a second one ends the program."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def close(number: int, _frame: object) -> None:
        end()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, close)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
