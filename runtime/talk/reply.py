"""A question's answer on its way to the player, and the turn that it becomes.

In: an answer in the making. Out: its sound to the floor and its words to the view. Nothing of it is heard or shown
before the question is over: it may have been begun too early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from voxrill.runtime.audio.protocols import Floats, Player
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import AudioEvent, EndEvent, TextEvent
from voxrill.runtime.talk.answer import TalkAnswer
from voxrill.runtime.talk.effort import Effort
from voxrill.runtime.talk.events import AnswerFailed, AssistantSaid, StateChanged, TalkEvent, UserHeard
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Utterance
from voxrill.runtime.talk.trace import Tracer, TurnTrace
from voxrill.runtime.talk.transcribing import Transcribing

FIRST_REPLY_SECONDS = 3.0
"""Expected length of the first reply. Later ones are expected to be as long as those before."""


@dataclass(frozen=True)
class TalkTurn:
    """A turn that is over: its question, its answer, and how they were made.

    heard: samples of the answer that were played before the user interrupted it, None if the user did not. forgotten:
    turns that were forgotten after this one. error: why there is no answer. transcript: of a spoken question, None if
    none was wanted or there was no time for it.
    """

    number: int
    utterance: Utterance | None
    typed: str | None
    seed: int
    answer: TalkAnswer
    heard: int | None
    forgotten: int
    trace: TurnTrace
    error: VoxrillError | None = None
    transcript: str | None = None


class Pace:
    """What the next reply is expected to be like.

    rate: seconds of computing for a second of sound, None if it is not known. seconds: its length. effort: what is
    given up where it would be too slow.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.seconds = FIRST_REPLY_SECONDS
        self.effort = Effort()

    def measure(self, making: float, seconds: float) -> None:
        """It took `making` seconds to make `seconds` of sound."""
        if seconds:
            self.rate = making / seconds

    def replied(self, making: float, seconds: float) -> None:
        """It took `making` seconds to make a whole reply of `seconds` of sound."""
        self.measure(making, seconds)
        if seconds:
            self.seconds = (self.seconds + seconds) / 2


def begin_playing(ticket: int, floor: Floor, pace: Pace, show: Callable[[TalkEvent], None]) -> bool:
    """Begin to play an answer at the expected pace. Returns whether it may be heard."""
    begun = floor.begin(ticket, *pace.effort.told(pace.rate, pace.seconds))
    if begun:
        show(StateChanged("speaking"))
    return begun


@dataclass
class Reply:
    """The answer that is being made. It is not heard before it has a `ticket`."""

    answer: TalkAnswer
    utterance: Utterance | None
    typed: str | None
    seed: int
    tracer: Tracer
    ticket: int | None = None
    playing: bool = False
    made: bool = False
    error: VoxrillError | None = None
    finished: bool = False
    transcribing: Transcribing | None = None
    transcript: str | None = None
    said: str | None = None  # the words, where they are known before and were shown: then the model's are not
    _unplayed: list[Floats] = field(default_factory=list)
    _unsaid: list[str] = field(default_factory=list)

    def advance(self, clock: Callable[[], float]) -> None:
        """Make the next part of the answer."""
        started = clock()
        try:
            event = self.answer.step()
        except VoxrillError as error:
            self.made, self.error = True, error.with_traceback(None)  # its frames would keep this reply in memory
            return
        self.tracer.made(event, started, clock())
        if isinstance(event, TextEvent):
            self._unsaid.append(event.text)
        elif isinstance(event, AudioEvent):
            self._unplayed.append(event.samples)
        elif isinstance(event, EndEvent):
            self.made = True

    def deliver(self, ticket: int, floor: Floor, player: Player, pace: Pace, show: Callable[[TalkEvent], None]) -> None:
        """Hand over what was made since the last time. Call it only when no signal waits.

        Raises:
            AudioDeviceLost: the player's device is gone for good.
        """
        for piece in self._unsaid:  # words are shown as they are made, long before their sound is played
            if piece and self.said is None:
                show(AssistantSaid(piece))
        for samples in self._unplayed:
            self.playing = self.playing or begin_playing(ticket, floor, pace, show)
            floor.push(ticket, samples)
        self._unsaid.clear()
        self._unplayed.clear()
        if self.made and not self.finished:
            self.tell_error(show)
            floor.finish(ticket)
            self.finished = True
        if self.playing:
            player.ensure()  # here and not in the callback: a device that is gone may take seconds to come back
        self.answer.heard(player.played() if self.playing else 0)

    def transcribe(self, show: Callable[[TalkEvent], None]) -> bool:
        """Write the next piece of the question's transcript. Returns whether there was anything to write."""
        if self.transcribing is None:
            return False
        try:
            next(self.transcribing)
        except StopIteration as over:
            self.transcribing, self.transcript = None, over.value
            if self.transcript:
                show(UserHeard(self.transcript))
        return True

    def cut(self, heard: int) -> None:
        """The user took the floor when `heard` samples had been played: keep those only."""
        if self.error is None:
            try:
                self.answer.cut(heard)
            except VoxrillError as error:
                self.error = error.with_traceback(None)

    def tell_error(self, show: Callable[[TalkEvent], None]) -> None:
        """Say why there is no answer, or not all of it, if that is so."""
        if self.error is not None:
            show(AnswerFailed(f"This could not be answered: {self.error}", self.error))
