"""Floor control: who may be heard, the user or the model. "To have the floor" means to be the one who speaks.

The listening thread and the answering thread share this object. Every question gets a ticket, and only the answer with
the latest ticket is played. So sound of an interrupted answer that is made a moment too late is never heard. Nothing
waits here: the lock is held only while samples are handed to the player.
"""

from __future__ import annotations

from threading import Lock

from voxrill.runtime.audio.protocols import Floats, Player


class Floor:
    """Passes answers on to `player`, until the user takes the floor."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._lock = Lock()
        self._ticket = 0
        self._owed = False  # the latest question's answer is due or being played
        self._playing = False
        self._finished = False  # all of it was pushed

    def question(self) -> int:
        """A question is over, and its answer is due; the question's ticket."""
        with self._lock:
            self._ticket += 1
            self._owed, self._playing, self._finished = True, False, False
            return self._ticket

    def begin(self, ticket: int, rate: float | None, expected_seconds: float) -> bool:
        """Begin the answer; whether it may be played."""
        with self._lock:
            if not self._may(ticket):
                return False
            self._playing = True
            self._player.begin(rate, expected_seconds)
            return True

    def push(self, ticket: int, samples: Floats) -> None:
        """More of the answer."""
        with self._lock:  # also while the player takes the samples: `interrupt` must not come between check and push
            if self._may(ticket):
                self._player.push(samples)

    def finish(self, ticket: int) -> None:
        """The answer is complete."""
        with self._lock:
            if self._may(ticket):
                self._finished = True
                self._player.finish()

    def hold(self, held: bool) -> None:
        """Hold the answer while the user may be beginning to speak, and let it go on if the user does not."""
        with self._lock:
            if self._owed and self._playing:
                self._player.hold(held)

    def interrupt(self) -> int | None:
        """The user takes the floor; samples heard of the answer, None if no answer was due or being played."""
        with self._lock:
            if not self._owed or self._over():
                return None
            self._owed = False
            return self._player.stop() if self._playing else 0

    def over(self, ticket: int) -> bool:
        """Whether the answer was played to its end."""
        with self._lock:
            if self._may(ticket) and self._over():
                self._owed = False  # from now on there is nothing to interrupt
                return True
            return False

    def answering(self) -> bool:
        """Whether an answer is due or being played."""
        with self._lock:
            return self._owed and not self._over()

    def sounding(self) -> bool:
        """Whether an answer is being played now."""
        with self._lock:
            return self._owed and self._playing and not self._over()

    def _may(self, ticket: int) -> bool:
        return self._owed and ticket == self._ticket

    def _over(self) -> bool:
        return self._finished and not self._player.busy()
