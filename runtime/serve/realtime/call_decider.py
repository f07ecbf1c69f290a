"""Between the user and the responder: whether a turn calls a function, or is to be answered.

In: signals, each turn with the functions that it may call. Out: function calls; and to the responder all signals,
except those of turns that call. A turn is decided at the first short silence, while the server still waits for its end.
If it calls nothing, its answer is begun then, as without functions. Where the encoder works while the user speaks, the
turn is taken in for the decision, too. Belongs to the worker's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from voxrill.runtime.apps.calling import Caller, FunctionCall
from voxrill.runtime.engine.context import Context
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.allowed_calls import AllowedCalls
from voxrill.runtime.serve.state_cache import StateCache
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Began, Ended, Heard, Interrupted, Paused, Resumed, Signal, Typed

Question = Ended | Typed
"""A turn that is over."""


class CallDecider:
    """Decides one session's turns.

    Args:
        caller: finds out which function a turn calls.
        states: loads the contexts that the caller works on into memory.
        floor: gives each turn its ticket.
        pass_on: takes the signals that are for the responder.
        call: takes a turn, its ticket, and the function call.
        fail: takes the error of a turn that could not be decided; the turn is answered then.
    """

    def __init__(
        self,
        caller: Caller,
        states: StateCache,
        floor: Floor,
        pass_on: Callable[[Signal], None],
        call: Callable[[Question, int, FunctionCall], None],
        fail: Callable[[VoxrillError], None],
    ) -> None:
        self._caller, self._states, self._floor = caller, states, floor
        self._pass_on, self._call, self._fail = pass_on, call, fail
        self._deaf = False  # what is being said does not fit after a prompt
        self.reset()

    def reset(self) -> None:
        """Forget the turn that is being decided."""
        self._allowed: AllowedCalls | None = None  # the calls between which is decided
        self._steps: Generator[Context, None, FunctionCall | None] | None = None
        self._context: Context | None = None  # the next step works on it
        self._found: FunctionCall | None = None
        self._paused: Paused | None = None  # the pause at which the decision was begun
        self._turn: Question | None = None  # it waits for the decision
        self._ticket = 0

    @property
    def waits(self) -> bool:
        """Whether a turn that is over waits for the decision."""
        return self._turn is not None

    def unhear(self) -> None:
        """What was heard belongs to no turn."""
        self._caller.unhear()
        self._deaf = False

    def take(self, signal: Signal, allowed: AllowedCalls | None) -> None:
        """Take a signal; if it is a turn, with the calls that are allowed."""
        if self._turn is not None:
            self._abandon(signal)
        if isinstance(signal, Began) and signal.anew:
            self.unhear()
        if isinstance(signal, Heard) and allowed is not None and not self._deaf:
            self._hear(signal, allowed)
        if isinstance(signal, Typed):
            self._pass_on(Began(anew=False))  # the answer before is over
        if allowed is None or not isinstance(signal, Paused | Ended | Typed):
            self.reset()
            self._pass_on(signal)
            return
        if allowed is not self._allowed or isinstance(signal, Typed):
            self._begin(signal, allowed)
        if isinstance(signal, Paused):
            self._paused = signal
            return
        self._turn = signal
        self._ticket = self._floor.question() if isinstance(signal, Typed) else signal.ticket
        if self._steps is None:
            self._settle()

    def _hear(self, heard: Heard, allowed: AllowedCalls) -> None:
        """Take in what is being said. What fails here fails again with the whole turn, and is told then."""
        try:
            for prompt in self._caller.prompts(allowed.functions):
                self._states.use(prompt.context)
                # First comes what stands before the sound, a little each time.
                more = heard.samples[:0] if prompt.prefill() else heard.after(prompt.heard_samples)
                if len(more):
                    prompt.hear(more)
        except VoxrillError:
            self._deaf = True

    def _begin(self, signal: Paused | Ended | Typed, allowed: AllowedCalls) -> None:
        self.reset()
        self._allowed = allowed
        audio = signal.utterance.samples if signal.utterance is not None else None
        text = signal.text if isinstance(signal, Typed) else None
        self._steps = self._caller.steps(allowed.functions, audio, text, allowed.required)

    def _abandon(self, signal: Signal) -> None:
        """The user did not wait for the decision: the turn is answered, and its answer cut short like any other."""
        turn = self._turn
        assert turn is not None
        self.reset()
        self._pass_on(turn)
        if isinstance(signal, Interrupted) and isinstance(turn, Typed):
            self._floor.interrupt()  # the responder has just given the turn another ticket

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
        self.reset()
        self.unhear()
        if found is None:
            self._pass_on(turn)
            return
        self._pass_on(Resumed())  # an answer that was begun early, for other functions, is withdrawn
        self._call(turn, ticket, found)
