"""What happens in a talk, as events for a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.talk.trace import TurnTrace

State = Literal["asleep", "listening", "thinking", "speaking"]


@dataclass(frozen=True)
class StateChanged:
    """The loop is in another state."""

    state: State


@dataclass(frozen=True)
class UserSpeaking:
    """The user is speaking, since `seconds` seconds."""

    seconds: float


@dataclass(frozen=True)
class UserSaid:
    """The user's turn is over. text: what was typed; empty if it was spoken: `UserHeard` may follow."""

    text: str


@dataclass(frozen=True)
class UserHeard:
    """The transcript of a spoken question. It comes once the answer is made, while that is played."""

    text: str


@dataclass(frozen=True)
class AssistantSaid:
    """The next piece of the model's answer."""

    piece: str


@dataclass(frozen=True)
class ToolCalled:
    """The turn called a tool. said: what is said of it, empty for nothing."""

    name: str
    arguments: Mapping[str, Any]
    said: str


@dataclass(frozen=True)
class TurnEnded:
    """A question and its answer are over. text: the answer, as far as it was heard. interrupted: by the user."""

    trace: TurnTrace
    text: str = ""

    @property
    def interrupted(self) -> bool:
        """Whether the user, or the program, cut the answer off."""
        return self.trace.barge_in is not None


@dataclass(frozen=True)
class Notice:
    """Something the user should know: one sentence."""

    text: str


@dataclass(frozen=True)
class AnswerFailed(Notice):
    """The answer cannot be made, or not to its end, because of `error`."""

    error: VoxrillError


TalkEvent = StateChanged | UserSpeaking | UserSaid | UserHeard | AssistantSaid | ToolCalled | TurnEnded | Notice


class View(Protocol):
    """Shows a talk. Both methods may be called from any thread, and return at once."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: TalkEvent) -> None:
        """Show what happened."""

    def level(self, dbfs: float) -> None:
        """Show how loud the microphone is: dB of full scale, -inf for silence."""
