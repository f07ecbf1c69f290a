"""The tools of a talk: Python functions, or a file of commands, that a spoken turn may call.

In: functions with types that can be listed, or a `Control`. Out: the call that a turn means, ready to be run. See
`calling` and `control` for how a call is found.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

from voxrill.runtime.apps.calling import Caller, Functions
from voxrill.runtime.apps.control import Control
from voxrill.runtime.apps.functions import Function
from voxrill.runtime.apps.grammar import Call, Grammar, read_grammar
from voxrill.runtime.asynchronous import finished
from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.errors import HookError, UsageError
from voxrill.runtime.progress import result_of
from voxrill.runtime.talk.tools import FoundCall, TalkTools

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

ToolSource = str | os.PathLike[str] | Grammar | Iterable[Callable[..., Any]]
"""What a talk may call: a file of commands (see `read_grammar`), or functions (see `tool`)."""

_Made = TypeVar("_Made", bound=Callable[..., Any])

_PHRASES = "__voxrill_phrases__"


def tool(*phrases: str) -> Callable[[_Made], _Made]:
    """Say how a function is called: phrases with its parameters in braces.

        @voxrill.tool("turn {state} the {room} lights")
        def lights(room: Literal["kitchen", "office"], state: Literal["on", "off"]) -> str:
            return f"{room} lights {state}"

    What the function returns is said; nothing is, if it returns None. Its parameters are `Literal`, `bool`, or
    `Annotated[int, range(1, 13)]`: all their values must be known. It may be a coroutine function in an event loop.
    """

    def with_phrases(function: _Made) -> _Made:
        setattr(function, _PHRASES, list(phrases))
        return function

    return with_phrases


def make_tools(model: Engine, source: ToolSource) -> TalkTools:
    """The tools of a talk with `model`.

    Raises:
        UsageError: a function cannot be called by a model; the message says why.
        UnknownText: the model does not know the words of a phrase or command.
        DataError: the file of commands is not what it should be.
    """
    if isinstance(source, str | os.PathLike):
        source = read_grammar(Path(source))
    if isinstance(source, Grammar):
        return CommandTools(Control(model, source))
    return FunctionTools(model, list(source))


class CommandTools:
    """The commands of a `Control`: what is certain enough is run and confirmed."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def find(self, audio: Floats | None, text: str | None) -> FoundCall | None:
        """See `TalkTools`. A typed turn is no command."""
        if audio is None:
            return None
        understood = self._control.hear(audio, trim=False, sample_rate=RATE)
        if not understood.accepted:
            return None
        return FoundCall(understood.call.command, understood.call.slots, partial(self._run, understood.call))

    def _run(self, call: Call) -> str:
        self._control.run(call)
        return self._control.confirmation(call)


class FunctionTools:
    """Python functions."""

    def __init__(self, model: Engine, functions: list[Callable[..., Any]]) -> None:
        self._called = {function.__name__: function for function in functions}
        self._functions = Functions(model, [_declared(function) for function in functions])
        self._caller = Caller(model)

    def find(self, audio: Floats | None, text: str | None) -> FoundCall | None:
        """See `TalkTools`."""
        call = result_of(self._caller.steps(self._functions, audio, text, must=False))
        if call is None:
            return None
        run = partial(_run, self._called[call.name], dict(call.values))
        return FoundCall(call.name, call.values, run)


def _run(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """What the function returns, as text."""
    try:
        said = finished(function(**arguments))
    except Exception as error:  # whatever a caller's function raises: the talk goes on
        raise HookError(
            f"the tool {function.__name__} failed: {type(error).__name__}: {error}", "Mend the function"
        ) from error
    return "" if said is None else str(said)


def _declared(function: Callable[..., Any]) -> Function:
    """A Python function as a model is told of it."""
    types = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    schema = {
        "type": "object",
        "properties": {name: _schema(function.__name__, name, types.get(name)) for name in parameters},
        "required": [name for name, one in parameters.items() if one.default is one.empty],
    }
    return Function(function.__name__, inspect.getdoc(function), schema, list(getattr(function, _PHRASES, [])))


def _schema(function: str, name: str, kind: Any) -> dict[str, Any]:
    """The schema of a parameter, from its type."""
    if kind is bool:
        return {"type": "boolean"}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) is Annotated and get_args(kind)[0] is int and isinstance(get_args(kind)[1], range):
        values = get_args(kind)[1]
        return {"type": "integer", "enum": list(values)}
    raise UsageError(
        f"the values of the parameter {name!r} of {function} cannot be listed",
        'Give it a type such as Literal["on", "off"], bool, or Annotated[int, range(1, 13)]',
    )
