"""Who has the floor: the one thing that the thread that hears and the thread that thinks both touch.

A ticket is given for every question. Only the latest one's answer may be played, so that sound which was made a moment
too late for an interrupted question is never heard. Nothing here waits: the lock is held to hand samples over.
"""

from __future__ import annotations

from threading import Lock

from voxrill.runtime.audio.protocols import Floats, Player


class Floor:
    """Lets answers through to `player`, until the user takes the floor."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._lock = Lock()
        self._ticket = 0
        self._owed = False
        self._playing = False
        self._finished = False

    def question(self) -> int:
        """A question is over and its answer due: its ticket."""
        with self._lock:
            self._ticket += 1
            self._owed, self._playing, self._finished = True, False, False
            return self._ticket

    def begin(self, ticket: int, rate: float | None, expected_seconds: float) -> bool:
        """The answer begins; whether it may."""
        with self._lock:
            if not self._may(ticket):
                return False
            self._playing = True
            self._player.begin(rate, expected_seconds)
            return True

    def push(self, ticket: int, samples: Floats) -> None:
        """More of the answer."""
        with self._lock:
            if self._may(ticket):
                self._player.push(samples)

    def finish(self, ticket: int) -> None:
        """The answer is whole."""
        with self._lock:
            if self._may(ticket):
                self._finished = True
                self._player.finish()

    def hush(self, hushed: bool) -> None:
        """The user may be about to take the floor: the answer is held until that is certain, or not so after all."""
        with self._lock:
            if self._owed and self._playing:
                self._player.hush(hushed)

    def interrupt(self) -> int | None:
        """The user takes the floor: samples heard of the answer, None if none was due or it was over."""
        with self._lock:
            if not self._owed or self._over():
                return None
            self._owed = False
            return self._player.stop() if self._playing else 0

    def over(self, ticket: int) -> bool:
        """Whether the answer was played to its end."""
        with self._lock:
            if self._may(ticket) and self._over():
                self._owed = False
                return True
            return False

    def answering(self) -> bool:
        """Whether an answer is due, or being played."""
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
