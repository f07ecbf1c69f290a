"""Commands as they are spoken: each utterance is understood, carried out and confirmed aloud.

In: a `Control`, devices, a view. Out: a `Commanded` for every utterance, until it is closed. An utterance is understood
at the first short silence, before it is certain that it has ended. If the user goes on, that is forgotten. The loop
waits for what a command runs. What is said meanwhile is heard, and handled after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from voxrill.runtime.apps.control import Control, Understood
from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import RATE, Microphone, Player
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.audio.voice_activity import VoiceDetector
from voxrill.runtime.audio.wake_word import Waking
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.talk.events import Notice, StateChanged, TalkEvent, View
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Began, Closed, Ended, Heard, Interrupted, Paused, Resumed, Signal, Utterance
from voxrill.runtime.talk.live_loop import LiveLoop, SignalHandler
from voxrill.runtime.talk.reply import Pace, begin_playing


@dataclass(frozen=True)
class LiveOptions:
    """How to listen. barge_in: also while an answer is played. run: carry out what a command runs."""

    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    barge_in: bool = False
    run: bool = True


@dataclass(frozen=True)
class Commanded:
    """An utterance and what came of it.

    answer: what is said to it, empty if nothing is. latency: seconds from the decision that the utterance is over until
    its call was known. after_voice: the same from its last voiced sound. error: why the call was not carried out.
    """

    understood: Understood
    answer: str
    latency: float
    after_voice: float
    error: VoxrillError | None = None


class LiveControl:
    """Listens to a microphone for commands; `run` runs it.

    Args:
        model: the model of `control`; it confirms in its own voice.
        control: what understands and acts.
        microphone: where commands come from.
        player: plays confirmations.
        view: shows what happens.
        report: takes what came of each utterance.
        options: how to listen.
        waking: passes on what follows the wake word; None for all.
        voice_activity: tells speech from other sound; None for silero's.
        judge: says at a pause how long the command may be silent; None for the usual silence.
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
        judge: PauseJudge | None = None,
    ) -> None:
        floor = Floor(player)
        self._loop = LiveLoop(
            CommandResponder(model, control, player, floor, view.show, report, options.run),
            floor,
            microphone,
            player,
            view,
            Endpointer(options.endpoint),
            barge_in=options.barge_in,
            voice_activity=voice_activity,
            waking=waking,
            judge=judge,
        )

    def run(self) -> None:
        """Listen until it is closed.

        Raises:
            AudioDeviceError: a device cannot be used, or is gone for good.
        """
        self._loop.run()

    def close(self) -> None:
        """End it at once. May be called from any thread."""
        self._loop.post(Closed())


class CommandResponder(SignalHandler):
    """Understands utterances, carries out their calls and confirms them.

    Args:
        model: the model of `control`; it confirms in its own voice.
        control: what understands and acts.
        player: plays confirmations; they reach it through `floor` only.
        floor: decides what may be played.
        show: takes what the user sees.
        report: takes what came of each utterance.
        run: carry out what a command runs.
    """

    def __init__(
        self,
        model: Engine,
        control: Control,
        player: Player,
        floor: Floor,
        show: Callable[[TalkEvent], None],
        report: Callable[[Commanded], None],
        run: bool,
    ) -> None:
        super().__init__()
        self._model, self._control, self._run = model, control, run
        self._player, self._floor, self._show, self._report = player, floor, show, report
        self._pace = Pace()
        self._ahead: Understood | None = None  # what was made of the utterance at its last pause
        self._saying: Iterator[bool] | None = None
        self._closed: Closed | None = None

    @property
    def hears(self) -> bool:
        """Whether the model's encoder works while the user speaks."""
        return self._control.hears

    @property
    def closed(self) -> Closed | None:
        """The signal that ended it."""
        return self._closed

    def warm_up(self) -> None:
        """Understand a tone and say something, unheard, because the first runs are slow."""
        self._control.hear(tone(), trim=False, sample_rate=RATE)
        started = time.perf_counter()
        speech = self._model.speak(self._control.ask_back, seed=0)
        self._pace.measure(time.perf_counter() - started, speech.result.audio_seconds)

    def take(self, signal: Signal) -> None:
        """Take a signal."""
        if isinstance(signal, Began | Interrupted):
            self._saying = None
            self._control.unhear()
        elif isinstance(signal, Heard):
            self._hear(signal)
        elif isinstance(signal, Paused):
            self._ahead = self._understand(signal.utterance)
        elif isinstance(signal, Resumed):
            self._ahead = None
        elif isinstance(signal, Ended):
            self._end(signal)
        elif isinstance(signal, Closed):
            self._closed = signal

    def _hear(self, heard: Heard) -> None:
        """Take in what the user is saying. What fails here fails again with the whole command, and is told then."""
        with suppress(VoxrillError):
            self._control.hear_more(heard.after(self._control.heard_samples))

    def close(self) -> None:
        """Cut the confirmation that is being played."""
        self._floor.interrupt()

    def _work(self) -> bool:
        """Make more of the confirmation, or check whether it was played. Returns whether there was anything to do."""
        if self._saying is None:
            return False
        made = next(self._saying, None)
        if made is None:  # it was said and played
            self._saying = None
        return made is not False

    def _understand(self, utterance: Utterance) -> Understood | None:
        """None if it is longer than the model takes, which the user is told."""
        try:
            return self._control.hear(utterance.samples, trim=False, sample_rate=RATE)  # the listener cut it
        except VoxrillError as error:
            self._show(Notice(f"This could not be understood: {error}"))
            return None

    def _end(self, signal: Ended) -> None:
        understood, self._ahead = self._ahead or self._understand(signal.utterance), None
        known = time.perf_counter()
        if understood is None:
            return
        self._show(StateChanged("thinking"))
        answer, error = self._act(understood)
        self._report(Commanded(understood, answer, known - signal.at, known - signal.utterance.voice_end, error))
        self._saying = self._say(answer, signal.ticket) if answer else None
        if not answer:
            self._show(StateChanged("listening"))

    def _act(self, understood: Understood) -> tuple[str, VoxrillError | None]:
        """Carry out what was commanded, if it is certain enough. Returns what is to be said then."""
        if understood.accepted and self._run:
            try:
                if written := self._control.run(understood.call):
                    self._show(Notice(written))
            except VoxrillError as error:
                return "", error
        return self._control.answer(understood), None

    def _say(self, text: str, ticket: int) -> Iterator[bool]:
        """Say `text` in small steps: True for each piece that was made, False while it is played to its end."""
        started, seconds, playing = time.perf_counter(), 0.0, False
        for event in self._model.speak(text):
            playing = playing or begin_playing(ticket, self._floor, self._pace, self._show)
            self._floor.push(ticket, event.samples)
            self._player.ensure()
            seconds += len(event.samples) / event.sample_rate
            yield True
        self._floor.finish(ticket)
        self._pace.replied(time.perf_counter() - started, seconds)
        while seconds and not self._floor.over(ticket) and self._floor.sounding():
            self._player.ensure()
            yield False
        self._show(StateChanged("listening"))
