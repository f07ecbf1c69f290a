"""The listening thread: it reads the microphone and gives the sound to a listener, while the calling thread answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread

import numpy as np

from voxrill.runtime.audio.level import level
from voxrill.runtime.audio.live_voice import PIECE
from voxrill.runtime.audio.protocols import BLOCK, Block, Floats, Microphone
from voxrill.runtime.talk.listener import Closed, Listener, Signal

_READ = 0.1
"""Seconds without a block after which the thread checks whether it is to end."""


@contextmanager
def listening(
    microphone: Microphone,
    listener: Listener,
    post: Callable[[Signal], None],
    show_level: Callable[[float], None],
    keep: Callable[[list[Floats]], None] = lambda _heard: None,
) -> Iterator[None]:
    """Listen until the `with` block is left.

    Args:
        microphone: open.
        listener: takes its blocks.
        post: takes `Closed` with the error, if listening ends by one.
        show_level: takes the level of each block, dB of full scale.
        keep: takes the samples heard.
    """
    stopping = Flag()

    def listen() -> None:
        try:
            listener.begin()
            blocks = _Blocks(microphone, listener)
            while not stopping.is_set():
                block = blocks.next()
                if block is None:
                    listener.hear_nothing()
                else:
                    show_level(level(block.samples))
                    keep(listener.hear(block))
        except Exception as error:  # whatever it is: the calling thread would wait for ever
            post(Closed(error))

    thread = Thread(target=listen, name="voxrill-listener", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


class _Blocks:
    """The microphone's blocks. While an answer is played, the listener has a look at each piece of them."""

    def __init__(self, microphone: Microphone, listener: Listener) -> None:
        self._microphone, self._listener = microphone, listener
        self._pieces: list[Block] = []  # of the block under way

    def next(self) -> Block | None:
        """The next block; None if none came for a while."""
        if not self._pieces and not self._listener.alert:
            return self._microphone.read(_READ)
        while len(self._pieces) < BLOCK // PIECE:
            piece = self._microphone.read(_READ, PIECE)
            if piece is None:
                return None
            if self._pieces and piece.at != self._pieces[-1].at + PIECE:
                self._pieces.clear()  # sound was lost between them
            self._pieces.append(piece)
            if self._listener.alert:
                self._listener.glance(self._joined())
        block = Block(self._joined(), self._pieces[0].at, self._pieces[-1].captured)
        self._pieces.clear()
        return block

    def _joined(self) -> Floats:
        return np.concatenate([piece.samples for piece in self._pieces])
