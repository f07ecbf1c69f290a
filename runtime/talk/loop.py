"""A talk: the live loop in which a `Responder` answers.

In: a conversation, a microphone, a player, a view, and sinks for what is to be kept. Out: a talk, until it is closed.
However it ends (a device that is gone, Ctrl-C, an error in either thread), the answer that is being played is cut, its
turn is kept, and the listening thread has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event as Flag

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions, PushToTalk
from voxrill.runtime.audio.protocols import Floats, Microphone, Player
from voxrill.runtime.audio.voice_activity import VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.talk.events import StateChanged, TalkEvent, View
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Closed, Interrupted, Recited, Signal, Typed, WakeChange
from voxrill.runtime.talk.live_loop import LiveLoop
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import Responder, ResponderOptions
from voxrill.runtime.talk.tools import TalkTools
from voxrill.runtime.talk.transcribing import Transcribe


@dataclass(frozen=True)
class TalkOptions:
    """How to talk. barge_in: listen while an answer is played. push_to_talk: a key ends turns, instead of silence."""

    responder: ResponderOptions = field(default_factory=ResponderOptions)
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    barge_in: bool = False
    push_to_talk: bool = False


@dataclass(frozen=True)
class TalkSinks:
    """Who keeps what.

    hear: takes the blocks that were heard; signal: takes signals; both in the listening thread. turn: takes turns that
    are over.
    """

    hear: Callable[[list[Floats]], None] = lambda _heard: None
    signal: Callable[[Signal | WakeChange], None] = lambda _signal: None
    turn: Callable[[TalkTurn], None] = lambda _turn: None


class Talk:
    """A talk; `run` holds it.

    Args:
        conversation: the turns so far.
        microphone: None if questions are only typed.
        player: plays answers.
        view: shows the talk.
        options: how to talk.
        sinks: who keeps what.
        voice_activity: tells speech from other sound; None for silero's.
        waking: passes on what follows the wake word; None for all.
        transcribe: writes down spoken questions while their answers are played; None for no transcripts.
        tools: find what a turn calls instead of being answered; None for none.
        recite: makes a conversation that says what it is told, for tools and for `say`.
        judge: says at a pause whether the turn is over; None where silence alone decides.
    """

    def __init__(
        self,
        conversation: Conversation,
        microphone: Microphone | None,
        player: Player,
        view: View,
        options: TalkOptions,
        sinks: TalkSinks,
        voice_activity: VoiceDetector | None = None,
        waking: Waking | None = None,
        transcribe: Transcribe | None = None,
        tools: TalkTools | None = None,
        recite: Callable[[], Conversation] | None = None,
        judge: PauseJudge | None = None,
    ) -> None:
        self._push = PushToTalk(options.endpoint) if options.push_to_talk else None
        self._view = view
        self._quiet = Flag()
        self._quiet.set()
        floor = Floor(player)
        self._floor = floor
        self._loop = LiveLoop(
            Responder(
                conversation,
                player,
                floor,
                self._show,
                sinks.turn,
                options.responder,
                transcribe=transcribe,
                tools=tools,
                recite=recite,
            ),
            floor,
            microphone,
            player,
            view,
            self._push or Endpointer(options.endpoint),
            barge_in=options.barge_in or options.push_to_talk,
            voice_activity=voice_activity,
            waking=waking,
            judge=judge,
            keep_blocks=sinks.hear,
            keep_signal=sinks.signal,
        )

    def run(self) -> None:
        """Talk until it is closed.

        Raises:
            AudioDeviceError: a device cannot be used, or is gone for good.
            DataError: standard input is not text.
        """
        self._loop.run()

    def press(self) -> None:
        """The push-to-talk key was pressed. This method, `type` and `close` may be called from any thread."""
        if self._push is not None:
            self._push.press()

    def type(self, text: str) -> None:
        """The user typed something."""
        self._quiet.clear()
        self._loop.post(Typed(text, time.perf_counter()))

    def say(self, text: str) -> None:
        """Say a sentence, instead of an answer that is being played."""
        self._quiet.clear()
        self._loop.post(Recited(text, time.perf_counter()))

    def interrupt(self) -> None:
        """Stop the answer that is being played."""
        heard = self._floor.interrupt()
        if heard is not None:
            self._loop.post(Interrupted(heard, time.perf_counter()))

    def wait_until_answered(self) -> None:
        """Wait until the question that was typed last is answered and the answer played."""
        self._quiet.wait()

    def close(self, finish: bool = False, error: Exception | None = None) -> None:
        """End the talk: at once, or after the answer that is being played. `run` raises the error, if there is one."""
        self._loop.post(Closed(error, finish))

    def _show(self, event: TalkEvent) -> None:
        self._view.show(event)
        if event == StateChanged("listening"):
            self._quiet.set()
