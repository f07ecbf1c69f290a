"""What every live loop has in common: the listening thread hears, the calling thread answers, until it is closed.

In: a `SignalHandler`, devices and a view. Out: its signals, one after the other, and time to work between them. However
it ends (a device that is gone, Ctrl-C, an error in either thread), the handler is closed and the listening thread has
ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from queue import Empty, SimpleQueue

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import Endpointer, PushToTalk
from voxrill.runtime.audio.live_voice import LiveVoice
from voxrill.runtime.audio.protocols import Floats, Microphone, Player
from voxrill.runtime.audio.voice_activity import VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.talk.events import View
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Closed, Heard, Listener, Signal, WakeChange
from voxrill.runtime.talk.listening_thread import listening

POLL = 0.02
"""Seconds without a signal after which the loop checks whether the answer was played to its end."""

_GUARD = 1.0
"""Seconds without a signal after which the loop looks again, although nothing is awaited: on Windows, Ctrl-C is seen
only between two waits."""


class SignalHandler(ABC):
    """Takes signals and works in small steps between them, all in the calling thread.

    `inbox` is the only part of it that the listening thread touches.
    """

    def __init__(self) -> None:
        self.inbox: SimpleQueue[Signal] = SimpleQueue()

    @property
    def hears(self) -> bool:
        """Whether it wants to hear what the user says while it is said."""
        return False

    def step(self) -> bool:
        """Take a signal, or do a little work. Returns whether there was anything to do."""
        try:
            signal = self.inbox.get_nowait()
        except Empty:
            return self._work()
        self.take(signal)
        return True

    @property
    def awaits_player(self) -> bool:
        """Whether something may happen without a signal: an answer is played to its end."""
        return True

    @property
    @abstractmethod
    def closed(self) -> Closed | None:
        """The signal that ended the loop, once nothing is left to do before it ends."""

    @abstractmethod
    def warm_up(self) -> None:
        """Compute something unheard, because the first runs are slow."""

    @abstractmethod
    def take(self, signal: Signal) -> None:
        """Take a signal."""

    @abstractmethod
    def close(self) -> None:
        """The loop is over: end what is being done."""

    @abstractmethod
    def _work(self) -> bool:
        """Do a little work. Returns whether there was anything to do."""


class LiveLoop:
    """A handler, the devices it needs, and the listener that tells it what the user does; `run` runs it.

    Args:
        handler: takes the signals.
        floor: decides what may be played.
        microphone: None if nothing is heard.
        player: plays answers.
        view: shows the loop's state.
        endpointer: decides when turns begin and end.
        barge_in: listen while an answer is played.
        voice_activity: tells speech from other sound; None for silero's.
        waking: passes on what follows the wake word; None for all.
        judge: says at a pause whether the turn is over; None where silence alone decides.
        keep_blocks, keep_signal: take what was heard, and signals, in the listening thread.
    """

    def __init__(
        self,
        handler: SignalHandler,
        floor: Floor,
        microphone: Microphone | None,
        player: Player,
        view: View,
        endpointer: Endpointer | PushToTalk,
        *,
        barge_in: bool = False,
        voice_activity: VoiceDetector | None = None,
        waking: Waking | None = None,
        judge: PauseJudge | None = None,
        keep_blocks: Callable[[list[Floats]], None] = lambda _heard: None,
        keep_signal: Callable[[Signal | WakeChange], None] = lambda _signal: None,
    ) -> None:
        self._handler = handler
        self._microphone, self._player, self._view = microphone, player, view
        self._keep_blocks, self._keep_signal = keep_blocks, keep_signal
        voice = voice_activity or LiveVoice()
        # A key begins a turn, and no voice does: then there is nothing to look for.
        begins = voice.begins if isinstance(voice, LiveVoice) and isinstance(endpointer, Endpointer) else None
        self._listener = Listener(
            voice,
            endpointer,
            floor,
            self.post,
            view.show,
            barge_in,
            waking=waking,
            begins=begins,
            judge=judge,
            streams=lambda: handler.hears,
        )

    def run(self) -> None:
        """Listen and answer until it is closed.

        Raises:
            AudioDeviceError: a device cannot be used, or is gone for good.
            Exception: what it was closed with.
        """
        with ExitStack() as devices:
            devices.enter_context(self._view)
            self._handler.warm_up()  # before the microphone is open, or its sound would pile up meanwhile
            devices.enter_context(self._player)
            if self._microphone is not None:
                devices.enter_context(self._microphone)
                devices.enter_context(
                    listening(self._microphone, self._listener, self.post, self._view.level, self._keep_blocks)
                )
            try:
                closed = self._handle()
            finally:
                self._handler.close()
        if closed.error is not None:
            raise closed.error

    def post(self, signal: Signal | WakeChange) -> None:
        """Hand a signal to the handler. May be called from any thread."""
        if not isinstance(signal, Heard):  # the sound is kept as it is
            self._keep_signal(signal)
        if not isinstance(signal, WakeChange):  # the handler does not need these
            self._handler.inbox.put(signal)

    def _handle(self) -> Closed:
        while self._handler.closed is None:
            if not self._handler.step():
                try:
                    # Nothing tells when the player has played all, so it is asked again after a while.
                    timeout = POLL if self._handler.awaits_player else _GUARD
                    self._handler.take(self._handler.inbox.get(timeout=timeout))
                except Empty:
                    continue
        return self._handler.closed
