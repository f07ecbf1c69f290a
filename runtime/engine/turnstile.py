"""One lock for one model: threads that use the same model take turns, one run of a graph at a time.

In: threads that want to run a graph. Out: one of them at a time, until the model is closed. A call that is worked on in
a thread of its own (see `asynchronous`) can be stopped between two runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from voxrill.runtime.asynchronous import check_stopped
from voxrill.runtime.errors import UsageError


class Turnstile:
    """What every run of a model's graphs passes. closed: the model was closed, and no graph runs any more."""

    def __init__(self) -> None:
        self._lock = RLock()  # a frame takes its turn, and so does the run of the graph within it
        self.closed = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Run graphs in the `with` block, while no other thread does.

        Raises:
            UsageError: the model was closed.
        """
        check_stopped()
        with self._lock:
            self.check_open()
            yield

    def check_open(self) -> None:
        """Refuse to use a model that was closed.

        Raises:
            UsageError: it was.
        """
        if self.closed:
            raise UsageError("This model is closed", "Load it again: voxrill.load(...)")

    def close(self) -> None:
        """Close the model, once the run that is under way is over."""
        with self._lock:
            self.closed = True
