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
            while not stopping.is_set():
                block = _next_block(microphone, listener)
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


def _next_block(microphone: Microphone, listener: Listener) -> Block | None:
    """The next block. While an answer is played, the listener has a look at each piece of it."""
    if not listener.alert:
        return microphone.read(_READ)
    pieces: list[Block] = []
    while len(pieces) < BLOCK // PIECE:
        piece = microphone.read(_READ, PIECE)
        if piece is None:
            return None
        if pieces and piece.at != pieces[-1].at + PIECE:
            pieces = []  # sound was lost between them
        pieces.append(piece)
        samples = np.concatenate([one.samples for one in pieces])
        listener.glance(samples)
    return Block(samples, pieces[0].at, pieces[-1].captured)
