"""Between what the user does and the mind: whether a turn calls a function, or is to be answered.

In: signals, with the functions that may be called. Out: calls; and to the mind all signals but those of turns that
call. A turn is decided at the first short silence, while its end is still waited for; what calls nothing is then begun
to be answered, as without functions. Belongs to the worker's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from voxrill.runtime.apps.calling import Caller, FunctionCall, Functions
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.serve.realtime.messages import Tool, ToolChoice
from voxrill.runtime.serve.states import States
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Began, Ended, Interrupted, Paused, Resumed, Signal, Typed

Question = Ended | Typed
"""A turn that is over."""


@dataclass(frozen=True)
class Wanted:
    """What may be called, and whether something must be."""

    functions: Functions
    must: bool


def wanted(model: Engine, tools: tuple[Tool, ...], choice: ToolChoice) -> Wanted | None:
    """What a client's settings ask for; None for nothing.

    Raises:
        UsageError: see `Functions`; or a call is required, and there is nothing to call.
    """
    functions = Functions(model, tools)
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise UsageError("a call is required, and there are no functions", "Give tools, or another tool_choice")
        return Wanted(functions, choice == "required") if tools and choice != "none" else None
    return Wanted(functions.only(choice.name), must=True)


class Deciding:
    """Decides one session's turns.

    Args:
        caller: finds out what is called.
        states: has its contexts in memory.
        floor: for whose ticket a call is made.
        pass_on: takes the signals that the mind is to take.
        call: takes a turn, its ticket, and the call it means.
        fail: is told why a turn could not be decided; it is answered then.
    """

    def __init__(
        self,
        caller: Caller,
        states: States,
        floor: Floor,
        pass_on: Callable[[Signal], None],
        call: Callable[[Question, int, FunctionCall], None],
        fail: Callable[[VoxrillError], None],
    ) -> None:
        self._caller, self._states, self._floor = caller, states, floor
        self._pass_on, self._call, self._fail = pass_on, call, fail
        self._reset()

    def _reset(self) -> None:
        self._wanted: Wanted | None = None  # for which it is decided
        self._steps: Generator[Context, None, FunctionCall | None] | None = None
        self._context: Context | None = None  # on which the next step works
        self._found: FunctionCall | None = None
        self._paused: Paused | None = None  # the pause at which it was begun to be decided
        self._turn: Question | None = None  # waits for the decision
        self._ticket = 0

    def take(self, signal: Signal, wanted: Wanted | None) -> None:
        """Take a signal; of a turn, with what it may call."""
        if self._turn is not None:
            self._give_up(signal)
        if isinstance(signal, Typed):
            self._pass_on(Began())  # what was answered before is over
        if wanted is None or not isinstance(signal, Paused | Ended | Typed):
            self._reset()
            self._pass_on(signal)
            return
        if wanted is not self._wanted or isinstance(signal, Typed):
            self._begin(signal, wanted)
        if isinstance(signal, Paused):
            self._paused = signal
            return
        self._turn = signal
        self._ticket = self._floor.question() if isinstance(signal, Typed) else signal.ticket
        if self._steps is None:
            self._settle()

    def _begin(self, signal: Paused | Ended | Typed, wanted: Wanted) -> None:
        self._reset()
        self._wanted = wanted
        audio, text = (None, signal.text) if isinstance(signal, Typed) else (signal.utterance.samples, None)
        self._steps = self._caller.steps(wanted.functions, audio, text, wanted.must)

    def _give_up(self, signal: Signal) -> None:
        """The user did not wait for the decision: the turn is answered, and the answer cut as any other."""
        turn = self._turn
        assert turn is not None
        self._reset()
        self._pass_on(turn)
        if isinstance(signal, Interrupted) and isinstance(turn, Typed):
            self._floor.interrupt()  # the mind has just given it another ticket

    def step(self) -> bool:
        """Work a little on the decision; whether there was one to make."""
        if self._steps is None:
            return False
        if self._context is not None:
            self._states.use(self._context)
        try:
            self._context = next(self._steps)
        except StopIteration as over:
            self._decided(over.value)
        except VoxrillError as error:
            self._fail(error)
            self._decided(None)
        return True

    def _decided(self, found: FunctionCall | None) -> None:
        self._steps, self._context, self._found = None, None, found
        if self._turn is not None:
            self._settle()
        elif found is None and self._paused is not None:
            self._pass_on(self._paused)

    def _settle(self) -> None:
        """The turn is over and decided."""
        turn, ticket, found = self._turn, self._ticket, self._found
        assert turn is not None
        self._reset()
        if found is None:
            self._pass_on(turn)
            return
        self._pass_on(Resumed())  # an answer that was begun on suspicion, for other functions, is not wanted
        self._call(turn, ticket, found)
