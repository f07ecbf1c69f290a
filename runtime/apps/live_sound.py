"""A microphone as a stream of blocks: a thread reads it, so that nothing is lost while the model computes.

In: a microphone. Out: blocks (512,) at 16 kHz until it is closed. Where the microphone was away, or the model was too
slow for too long, there is silence of the same length, so that times stay right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition, Thread
from types import TracebackType
from typing import Self

import numpy as np

from voxrill.runtime.audio.level import level
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, RATE, Block, Floats, Microphone

MOST_WAITING = 300.0
"""Seconds of sound that may wait for the model (19 MB). If more waits, the oldest is lost."""

HURRY = 0.25
"""If more seconds of sound wait, tentative text is left out."""

_READ = 0.1
"""Seconds without a block after which a reader checks whether it must end."""


class LiveSound:
    """The sound of `microphone`, which is open within a `with` block.

    Args:
        microphone: where it comes from.
        show_level: called with the level of each block, dB of full scale, in the listening thread.

    lost: seconds of sound that were lost because the model was too slow. error: why the microphone was lost, None if it
    was not.
    """

    def __init__(self, microphone: Microphone, show_level: Callable[[float], None] = lambda _dbfs: None) -> None:
        self._microphone = microphone
        self._show_level = show_level
        self._waiting: deque[Block] = deque()
        self._changed = Condition()
        self._closed = False
        self.error: Exception | None = None
        self.lost = 0.0

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            AudioDeviceError: the microphone cannot be used.
        """
        self._microphone.__enter__()
        self._thread = Thread(target=self._listen, name="voxrill-listener", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._thread.join()
        self._microphone.__exit__(kind, error, trace)

    def close(self) -> None:
        """Stop listening. Sound that waits is still handed out. May be called from any thread or signal handler."""
        self._closed = True

    def hurry(self) -> bool:
        """Whether so much sound waits that tentative text must be left out."""
        return len(self._waiting) * BLOCK_SECONDS > HURRY

    def __iter__(self) -> Iterator[Floats]:
        """Blocks (512,) as they come, until it is closed or the microphone is lost (see `error`)."""
        expected = 0  # the sample with which the next block begins if none is missing
        while (block := self._next()) is not None:
            for _ in range((block.at - expected) // BLOCK):
                yield np.zeros(BLOCK, np.float32)
            yield block.samples
            expected = block.at + BLOCK

    def _next(self) -> Block | None:
        with self._changed:
            while not self._waiting:
                if self.error is not None or not self._thread.is_alive():
                    return None
                self._changed.wait(_READ)
            return self._waiting.popleft()

    def _listen(self) -> None:
        try:
            while not self._closed:
                block = self._microphone.read(_READ)
                if block is not None:
                    self._show_level(level(block.samples))
                    self._put(block)
        except Exception as error:  # any error: the thread that transcribes must learn of it
            self.error = error

    def _put(self, block: Block) -> None:
        with self._changed:
            self._waiting.append(block)
            if len(self._waiting) * BLOCK > MOST_WAITING * RATE:
                self._waiting.popleft()
                self.lost += BLOCK_SECONDS
            self._changed.notify()
