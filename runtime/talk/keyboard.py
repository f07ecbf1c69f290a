"""The keyboard: typed questions, the push-to-talk key, Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread

from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.talk.session import TalkSession


@contextmanager
def keyboard(talking: TalkSession, text: bool, push_to_talk: bool) -> Iterator[None]:
    """During the `with` block, take typed questions or the push-to-talk key, and Ctrl-C.

    Raises:
        UsageError: there is nothing to read keys or questions from.
    """
    if text or push_to_talk:
        if sys.stdin is None:  # Python's word for a program that was started with stdin closed
            option = "--text" if text else "--push-to-talk"
            raise UsageError(f"{option} reads standard input, and that is closed", "Start it from a terminal or a pipe")
        take = partial(_ask, talking) if text else lambda _line: talking.press()
        Thread(target=_read, args=(talking, take), daemon=True).start()
    with closed_by_signals(talking.close):
        yield


def _read(talking: TalkSession, take: Callable[[str], None]) -> None:
    """Give every line of stdin to `take`, and end the talk after the last."""
    try:
        for line in sys.stdin:
            take(line)
    except (OSError, ValueError) as error:  # bytes that are not text, a terminal that is gone
        talking.close(error=DataError(f"standard input cannot be read ({error})", "Give text in UTF-8"))
    else:
        talking.close(finish=True)


def _ask(talking: TalkSession, line: str) -> None:
    """Ask a line. One that comes from a file or pipe waits for the answer to the line before."""
    if line.strip():
        talking.ask(line.strip())
        if not sys.stdin.isatty():
            talking.wait_until_answered()


@contextmanager
def closed_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` at the first Ctrl-C or SIGTERM, or when the terminal is closed. The second one ends the program."""
    before = {number: signal.getsignal(number) for number in _signals()}

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


def _signals() -> list[signal.Signals]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP, and a program that was started with nohup is to ignore it
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers
