"""The thread that hears: it reads the microphone and follows it with a listener, while the calling thread thinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread

from voxrill.runtime.audio.level import level
from voxrill.runtime.audio.protocols import Floats, Microphone
from voxrill.runtime.talk.listener import Closed, Listener, Signal

_READ = 0.1
"""Seconds after which a listener without a block looks whether it is to end."""


@contextmanager
def hearing(
    microphone: Microphone,
    listener: Listener,
    post: Callable[[Signal], None],
    show_level: Callable[[float], None],
    keep: Callable[[list[Floats]], None] = lambda _heard: None,
) -> Iterator[None]:
    """Hear, until the `with` block is left.

    Args:
        microphone: open.
        listener: what follows it.
        post: takes `Closed` with the error, if hearing ends by one.
        show_level: takes the level of each block, dB of full scale.
        keep: takes the samples heard.
    """
    stopping = Flag()

    def listen() -> None:
        try:
            listener.begin()
            while not stopping.is_set():
                block = microphone.read(_READ)
                if block is None:
                    listener.hear_nothing()
                else:
                    show_level(level(block.samples))
                    keep(listener.hear(block))
        except Exception as error:  # whatever it is, the calling thread must know
            post(Closed(error))

    thread = Thread(target=listen, name="voxrill-listener", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
