"""The one thread that owns the model. Everyone who waits gets a small step in turn.

In: work items, each a row of small steps (one text token, one frame of sound). Out: their work, done. A conversation
holds all of its state, so that conversations whose steps alternate say to the bit what each would say alone.
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
"""Seconds after which items are asked again that wait for something that does not wake the worker: how much a client
has played is known from the clock alone."""

_FIRST_SECONDS = 1.0
"""The estimate of one request's work before the first one was measured."""


class WorkItem(Protocol):
    """Work in small steps. The worker's thread calls all of it."""

    over: bool

    def step(self) -> bool:
        """Do a little. Returns whether there was anything to do. `over` says that nothing will follow."""

    def fail(self, error: Exception) -> None:
        """A step failed; there will be no other."""


class WorkingSession(WorkItem, Protocol):
    """A realtime session."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do until somebody calls `wake`."""


class Worker:
    """Owns the model's thread, and decides who may use it.

    Args:
        limits: `active` requests take turns, `queue` more wait; realtime sessions always take turns.
        metrics: counts steps, waiting requests and refusals.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._lock = Lock()  # guards the slots, which several event loops may take
        self._slots = 0
        self._seconds = _FIRST_SECONDS  # the running mean of one request's work
        self._sessions: list[WorkingSession] = []  # only the worker's thread touches it
        # Handed over to the worker's thread: append and popleft of a deque are atomic.
        self._new_requests: deque[WorkItem] = deque()
        self._new_sessions: deque[WorkingSession] = deque()
        self._wake = Event()
        self._stopping = False
        self._thread = Thread(target=self._run, name="voxrill-model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step in progress."""
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
            Busy: all places are taken; it says when one may be free.
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

    def submit(self, request: WorkItem) -> None:
        """Let a request take its turns, once fewer than `active` others do. May be called by any thread."""
        self._new_requests.append(request)
        self._wake.set()

    def join(self, session: WorkingSession) -> None:
        """Let a realtime session take its turns, at once. May be called by any thread."""
        self._new_sessions.append(session)
        self._wake.set()

    def wake(self) -> None:
        """An item that had nothing to do has something now. May be called by any thread."""
        self._wake.set()

    def worked(self, seconds: float) -> None:
        """A request is done. It took `seconds` of the model's time."""
        self._seconds = 0.8 * self._seconds + 0.2 * seconds

    def _run(self) -> None:
        active: list[WorkItem] = []
        while not self._stopping:
            # Cleared before the queues are looked at: what is added after that sets it again, and the wait below ends.
            self._wake.clear()
            active = [request for request in active if not request.over]
            while self._new_requests and len(active) < self._limits.active:
                active.append(self._new_requests.popleft())
            while self._new_sessions:
                self._sessions.append(self._new_sessions.popleft())
            self._sessions = [session for session in self._sessions if not session.over]
            everyone = active + self._sessions
            if not any([self._step(item) for item in everyone]):  # a list: all of them take their step
                waiting = active or any(not session.idle for session in self._sessions)
                self._wake.wait(POLL if waiting else None)

    def _step(self, item: WorkItem) -> bool:
        if self._stopping:
            return False
        started = time.perf_counter()
        try:
            worked = item.step()
        except Exception as error:  # whatever it is, the others go on
            LOG.error("A step of the model failed", exc_info=error)
            item.over = True
            item.fail(error)
            return True
        if worked:
            self._metrics.steps.inc()
            self._metrics.busy.inc(time.perf_counter() - started)
        return worked
