"""A microphone as sound without end: a thread reads it, so that nothing is lost while the model computes.

In: a microphone. Out: blocks (512,) at 16 kHz until it is closed. Where the microphone was away, or the model too slow
for too long, there is as much silence, so that time goes on.
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
"""Seconds of sound that may wait for the model (19 MB); then the oldest is lost."""

HURRY = 0.25
"""Seconds of waiting sound from which tentative text is left out."""

_READ = 0.1
"""Seconds after which a reader without a block looks whether it is to end."""


class LiveSound:
    """The sound of `microphone`, which is open within a `with` block.

    Args:
        microphone: where it comes from.
        show_level: told how loud each block is, in dB of full scale, from another thread.

    lost: seconds of sound that the model was too slow for; error: what the microphone was lost by, None if it is not.
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
        """Nothing more is heard; what waits is still handed out. May be called from any thread or signal."""
        self._closed = True

    def hurry(self) -> bool:
        """Whether so much sound waits that there is no time for tentative text."""
        return len(self._waiting) * BLOCK_SECONDS > HURRY

    def __iter__(self) -> Iterator[Floats]:
        """Blocks (512,) as they come, until it is closed or `error` says why there are no more."""
        expected = 0
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
        except Exception as error:  # whatever it is, the thread that transcribes must know
            self.error = error

    def _put(self, block: Block) -> None:
        with self._changed:
            self._waiting.append(block)
            if len(self._waiting) * BLOCK > MOST_WAITING * RATE:
                self._waiting.popleft()
                self.lost += BLOCK_SECONDS
            self._changed.notify()
