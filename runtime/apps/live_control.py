"""Commands as they are spoken: a thread that hears, and the calling one, which understands, acts and confirms.

In: a `Control`, the edges, whoever watches. Out: a `Commanded` for every utterance, until it is closed. An utterance is
understood at the first short silence, while its end is still waited for: if the user goes on, it never was. What a
command runs is waited for; what is said meanwhile is heard and comes after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import Empty, Queue

from voxrill.runtime.apps.control import Control, Understood
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import Microphone, Player
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.audio.voice_activity import VoiceActivity, VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import AudioEvent
from voxrill.runtime.talk.events import Notice, StateChanged, View
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import (
    Began,
    Closed,
    Ended,
    Interrupted,
    Listener,
    Paused,
    Resumed,
    Signal,
    Utterance,
    WakeChange,
)
from voxrill.runtime.talk.listening_thread import listening
from voxrill.runtime.talk.reply import Pace

_POLL = 0.02
"""Seconds after which it is looked again whether an answer was played to its end."""

_OVER = object()


@dataclass(frozen=True)
class LiveOptions:
    """How to listen. barge_in: also while an answer is played; run: what a command runs is run."""

    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    barge_in: bool = False
    run: bool = True


@dataclass(frozen=True)
class Commanded:
    """An utterance and what came of it.

    answer: what is said to it, empty if nothing is; latency: seconds from the decision that the utterance is over until
    its call was known; after_voice: the same from its last voiced sound; error: why the call was not carried out.
    """

    understood: Understood
    answer: str
    latency: float
    after_voice: float
    error: VoxrillError | None = None


class LiveControl:
    """Listens to a microphone; `run` holds it.

    Args:
        model: whose `control` it is; it confirms in its own voice.
        control: what understands and acts.
        microphone: where commands come from.
        player: plays confirmations.
        view: whoever watches.
        report: takes what came of each utterance.
        options: how to listen.
        waking: lets through what follows the wake word; None for all.
        voice_activity: tells speech from other sound; None for silero's.
    """

    def __init__(
        self,
        model: Engine,
        control: Control,
        microphone: Microphone,
        player: Player,
        view: View,
        report: Callable[[Commanded], None],
        options: LiveOptions,
        waking: Waking | None = None,
        voice_activity: VoiceDetector | None = None,
    ) -> None:
        self._model, self._control, self._options = model, control, options
        self._microphone, self._player, self._view, self._report = microphone, player, view, report
        self._inbox: Queue[Signal | WakeChange] = Queue()
        self._floor = Floor(player)
        self._pace = Pace()
        self._ahead: Understood | None = None
        self._answer: Iterator[None] | None = None
        self._closed: Closed | None = None
        self._listener = Listener(
            voice_activity or VoiceActivity(),
            Endpointer(options.endpoint),
            self._floor,
            self._inbox.put,
            view.show,
            options.barge_in,
            waking=waking,
        )

    def run(self) -> None:
        """Listen until it is closed.

        Raises:
            AudioDeviceError: a device cannot be used, or is gone for good.
        """
        with ExitStack() as edges:
            edges.enter_context(self._view)
            self._warm_up()
            edges.enter_context(self._player)
            edges.enter_context(self._microphone)
            edges.enter_context(listening(self._microphone, self._listener, self._inbox.put, self._view.level))
            try:
                while self._closed is None:
                    self._step()
            finally:
                self._floor.interrupt()
        if self._closed.error is not None:
            raise self._closed.error

    def close(self) -> None:
        """End it at once. May be called from any thread."""
        self._inbox.put(Closed())

    def _warm_up(self) -> None:
        """Understand a tone and say something, unheard: first runs are slow."""
        self._control.hear(tone(), trim=False)
        started = time.perf_counter()
        speech = self._model.speak(self._control.ask_back, seed=0)
        self._pace.measure(time.perf_counter() - started, speech.result.audio_seconds)

    def _step(self) -> None:
        """Take a signal, or else make more of the answer."""
        try:
            self._take(self._inbox.get(timeout=0 if self._answer else _POLL))
        except Empty:
            if self._answer is not None and next(self._answer, _OVER) is _OVER:
                self._answer = None

    def _take(self, signal: Signal | WakeChange) -> None:
        if isinstance(signal, Began | Interrupted):
            self._answer = None
        elif isinstance(signal, Paused):
            self._ahead = self._understand(signal.utterance)
        elif isinstance(signal, Resumed):
            self._ahead = None
        elif isinstance(signal, Ended):
            self._end(signal)
        elif isinstance(signal, Closed):
            self._closed = signal

    def _understand(self, utterance: Utterance) -> Understood | None:
        """None if it is longer than the model takes, which the user is told."""
        try:
            return self._control.hear(utterance.samples, trim=False)  # the listener cut it
        except VoxrillError as error:
            self._view.show(Notice(f"This could not be understood: {error}"))
            return None

    def _end(self, signal: Ended) -> None:
        understood, self._ahead = self._ahead or self._understand(signal.utterance), None
        known = time.perf_counter()
        if understood is None:
            return
        self._view.show(StateChanged("thinking"))
        answer, error = self._act(understood)
        self._report(Commanded(understood, answer, known - signal.at, known - signal.utterance.voice_end, error))
        self._answer = self._say(answer, signal.ticket) if answer else None
        if not answer:
            self._view.show(StateChanged("listening"))

    def _act(self, understood: Understood) -> tuple[str, VoxrillError | None]:
        """Do what was commanded, if it is certain enough; what is to be said then."""
        if understood.accepted and self._options.run:
            try:
                if written := self._control.run(understood.call):
                    self._view.show(Notice(written))
            except VoxrillError as error:
                return "", error
        return self._control.answer(understood), None

    def _say(self, text: str, ticket: int) -> Iterator[None]:
        """Say `text`, a piece a step, and wait a step at a time until it was played."""
        started, seconds = time.perf_counter(), 0.0
        for event in self._model.speak(text):
            self._push(event, ticket, first=not seconds)
            seconds += len(event.samples) / event.sample_rate
            yield
        self._floor.finish(ticket)
        self._pace.replied(time.perf_counter() - started, seconds)
        while seconds and not self._floor.over(ticket) and self._floor.sounding():
            self._player.ensure()
            time.sleep(_POLL)
            yield
        self._view.show(StateChanged("listening"))

    def _push(self, event: AudioEvent, ticket: int, first: bool) -> None:
        if first and self._floor.begin(ticket, self._pace.rate, self._pace.seconds):
            self._view.show(StateChanged("speaking"))
        self._floor.push(ticket, event.samples)
        self._player.ensure()
