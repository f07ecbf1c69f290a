"""The one thread that owns the model: it gives everyone who waits a small step in turn.

In: members, each a row of small steps (one text token, one frame of sound). Out: their work, done. A conversation holds
all of its state, so that conversations which alternate step by step say to the bit what each would say alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Protocol

from voxrill.runtime.serve.api_errors import Busy
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.metrics import Metrics

POLL = 0.02
"""Seconds after which those who had nothing to do are asked again: what was played is known by the clock."""

_FIRST_SECONDS = 1.0
"""Work of one request, before the first was measured."""


class Member(Protocol):
    """Somebody who works in small steps. All of it is called by the worker's thread."""

    over: bool

    def step(self) -> bool:
        """Do a little; whether there was anything to do. `over` says that nothing will follow."""

    def fail(self, error: Exception) -> None:
        """A step went wrong; there will be no other."""


class Worker:
    """Owns the model's thread, and who may use it.

    Args:
        limits: `active` requests take turns, `queue` more wait; realtime sessions always take turns.
        metrics: told of steps, waiting and refusals.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._lock = Lock()
        self._slots = 0
        self._seconds = _FIRST_SECONDS  # of work for one request, averaged
        self._ring: list[Member] = []
        self._waiting: deque[Member] = deque()
        self._standing: deque[Member] = deque()
        self._wake = Event()
        self._stopping = False
        self._thread = Thread(target=self._run, name="voxrill-model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being made."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place for one request, from before its body is read until it is answered.

        Raises:
            Busy: all are taken; it says when one may be free.
        """
        with self._lock:
            if self._slots >= self._limits.active + self._limits.queue:
                self._metrics.shed.inc()
                raise Busy(max(1, math.ceil(self._seconds * self._slots)))
            self._slots += 1
            self._metrics.requests_held.set(self._slots)
        try:
            yield
        finally:
            with self._lock:
                self._slots -= 1
                self._metrics.requests_held.set(self._slots)

    def submit(self, member: Member) -> None:
        """Let a request's work take its turns, once fewer than `active` others do. May be called by any thread."""
        self._waiting.append(member)
        self._wake.set()

    def join(self, member: Member) -> None:
        """Let a realtime session take its turns, at once. May be called by any thread."""
        self._standing.append(member)
        self._wake.set()

    def wake(self) -> None:
        """Somebody who had nothing to do has something. May be called by any thread."""
        self._wake.set()

    def worked(self, seconds: float) -> None:
        """A request is done, and took so many seconds of the model's time."""
        self._seconds = 0.8 * self._seconds + 0.2 * seconds

    def _run(self) -> None:
        active: list[Member] = []
        while not self._stopping:
            self._wake.clear()
            active = [member for member in active if not member.over]
            while self._waiting and len(active) < self._limits.active:
                active.append(self._waiting.popleft())
            while self._standing:
                self._ring.append(self._standing.popleft())
            self._ring = [member for member in self._ring if not member.over]
            everyone = active + self._ring
            if not any([self._step(member) for member in everyone]):
                self._wake.wait(POLL if everyone else None)

    def _step(self, member: Member) -> bool:
        if self._stopping:
            return False
        started = time.perf_counter()
        try:
            worked = member.step()
        except Exception as error:  # whatever it is, the others go on
            LOG.error("A step of the model failed", exc_info=error)
            member.over = True
            member.fail(error)
            return True
        if worked:
            self._metrics.steps.inc()
            self._metrics.busy.inc(time.perf_counter() - started)
        return worked
