"""The live loop: a thread that hears, and the calling one, which thinks.

In: a model, the edges, whoever watches and keeps. Out: a talk, until it is closed. However it ends (a device that is
gone, Ctrl-C, an error in either thread), the answer being played is cut, its turn kept, and the thread gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import Empty
from threading import Event as Flag

from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions, PushToTalk
from voxrill.runtime.audio.protocols import Floats, Microphone, Player
from voxrill.runtime.audio.voice_activity import VoiceActivity, VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.talk.events import StateChanged, TalkEvent, View
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.hearing import hearing
from voxrill.runtime.talk.listener import Closed, Listener, Signal, Typed, WakeChange
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import Responder, ResponderOptions

_POLL = 0.02
"""Seconds after which an idle mind looks whether the answer was played to its end."""


@dataclass(frozen=True)
class TalkOptions:
    """How to talk. barge_in: listen while an answer is played."""

    responder: ResponderOptions = field(default_factory=ResponderOptions)
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    barge_in: bool = False
    push_to_talk: bool = False


@dataclass(frozen=True)
class TalkSinks:
    """Who keeps what: blocks heard and signals (in the hearing thread), and turns that are over."""

    hear: Callable[[list[Floats]], None] = lambda _heard: None
    signal: Callable[[Signal | WakeChange], None] = lambda _signal: None
    turn: Callable[[TalkTurn], None] = lambda _turn: None


class Talk:
    """A talk; `run` holds it.

    Args:
        conversation: what is talked about.
        microphone: None if questions are only typed.
        player: plays answers.
        view: whoever watches.
        options: how to talk.
        keepers: who keeps what.
        voice_activity: tells speech from other sound; None for silero's.
        waking: lets through what follows the wake word; None for all.
    """

    def __init__(
        self,
        conversation: Conversation,
        microphone: Microphone | None,
        player: Player,
        view: View,
        options: TalkOptions,
        keepers: TalkSinks,
        voice_activity: VoiceDetector | None = None,
        waking: Waking | None = None,
    ) -> None:
        self._microphone = microphone
        self._player = player
        self._view = view
        self._keepers = keepers
        self._push = PushToTalk(options.endpoint) if options.push_to_talk else None
        floor = Floor(player)
        self._responder = Responder(conversation, player, floor, self._show, keepers.turn, options.responder)
        self._quiet = Flag()
        self._quiet.set()
        self._listener = Listener(
            voice_activity or VoiceActivity(),
            self._push or Endpointer(options.endpoint),
            floor,
            self._post,
            view.show,
            options.barge_in or options.push_to_talk,
            waking=waking,
        )

    def run(self) -> None:
        """Talk until it is closed.

        Raises:
            AudioDeviceError: a device cannot be used, or is gone for good.
        """
        with ExitStack() as edges:
            edges.enter_context(self._view)
            self._responder.warm_up()
            edges.enter_context(self._player)
            if self._microphone is not None:
                edges.enter_context(self._microphone)
                edges.enter_context(
                    hearing(self._microphone, self._listener, self._post, self._view.level, self._keepers.hear)
                )
            try:
                closed = self._think()
            finally:
                self._responder.close()
        if closed.error is not None:
            raise closed.error

    def press(self) -> None:
        """The push-to-talk key was pressed. May be called from any thread, as may `type` and `close`."""
        if self._push is not None:
            self._push.press()

    def type(self, text: str) -> None:
        """The user typed something."""
        self._quiet.clear()
        self._post(Typed(text, time.perf_counter()))

    def wait_until_answered(self) -> None:
        """Wait until what was typed last is answered and played."""
        self._quiet.wait()

    def close(self, finish: bool = False) -> None:
        """End the talk: at once, or after the answer that is being played."""
        self._post(Closed(finish=finish))

    def _post(self, signal: Signal | WakeChange) -> None:
        self._keepers.signal(signal)
        if not isinstance(signal, WakeChange):  # who answers does not care
            self._responder.inbox.put(signal)

    def _show(self, event: TalkEvent) -> None:
        self._view.show(event)
        if event == StateChanged("listening"):
            self._quiet.set()

    def _think(self) -> Closed:
        while self._responder.closed is None:
            if not self._responder.step():
                try:
                    self._responder.take(self._responder.inbox.get(timeout=_POLL))
                except Empty:
                    continue
        return self._responder.closed
