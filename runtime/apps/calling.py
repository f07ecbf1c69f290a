"""What a user's turn calls: sound or text in, a call of one of a client's functions out, or none.

A function with phrases is heard as a command is (see `control`): the model writes down what was said, and can write
nothing but the phrases. One without is called in writing, after a prompt that lists the functions; how well a model
does that depends on its weights, and was measured with none. Either way the tokens are masked exactly, so that the
arguments always fit the schema, and the confidence is the probability of the call among all that could be written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxrill.runtime.apps.constrained import PrefilledPrompt, search
from voxrill.runtime.apps.control import THRESHOLD
from voxrill.runtime.apps.functions import MOST_CALLS, MOST_FUNCTIONS, Function, spoken_calls, written_calls
from voxrill.runtime.apps.grammar import Call, CommandSentence, distinct
from voxrill.runtime.apps.token_tree import TokenTree
from voxrill.runtime.apps.written import Written, as_transcribed
from voxrill.runtime.engine.context import Context, Floats
from voxrill.runtime.errors import UsageError

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

LISTING = "Call one of these functions, written as NAME(ARGUMENT=VALUE, ARGUMENT=VALUE):"
"""What the prompt of functions without phrases begins with; their JSON follows, a line each."""


@dataclass(frozen=True)
class FunctionCall:
    """A function, the values of its arguments, and how sure the model is."""

    name: str
    values: Mapping[str, Any]
    confidence: float

    @property
    def arguments(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.values)


@dataclass(frozen=True)
class _Way:
    """One way to call: after which prompt, and all that may be written there.

    aloud: it is what is said that is written; known: the calls by their text.
    """

    system: str
    aloud: bool
    written: Written
    tree: TokenTree
    known: Mapping[str, Call]


class Functions:
    """Functions that may be called. Made in any thread, and never changed.

    Args:
        model: who is to call them.
        functions: what may be called.
        only: the one that may be called; None for all.

    Raises:
        UsageError: something in them cannot be meant or counted out; the message names it.
        UnknownText: the model does not know words of theirs.
    """

    def __init__(self, model: Engine, functions: Sequence[Function], only: str | None = None) -> None:
        self._model, self._functions = model, functions
        _check(functions, only)
        self.listing = "\n".join([LISTING, *(function.listed() for function in functions if not function.phrases)])
        allowed = [function for function in functions if only in (None, function.name)]
        aloud = [function for function in allowed if function.phrases]
        written = [function for function in allowed if not function.phrases]
        if written and model.parts.tokenizer.closed:
            raise UsageError(
                f"the function {written[0].name} has no phrases, and this model can write nothing but what is said",
                'Give it phrases: "phrases": ["turn {state} the {room} lights"]',
            )
        said = list(distinct(_counted(aloud, spoken_calls)))
        called = list(_counted(written, written_calls, MOST_CALLS - len(said)))
        self.ways = [
            *([self._way(model.manifest.tasks.transcribe.system, True, said, as_transcribed)] if said else []),
            *([self._way(self.listing, False, called, lambda words: (words,))] if called else []),
        ]

    def _way(
        self, system: str, aloud: bool, given: list[CommandSentence], forms: Callable[[str], tuple[str, ...]]
    ) -> _Way:
        written = Written(given, self._model.parts.tokenizer, forms, _parts)
        return _Way(system, aloud, written, written.tree, {_plain(sentence.words): sentence.call for sentence in given})

    def only(self, name: str) -> Functions:
        """The same, of which one may be called.

        Raises:
            UsageError: there is none of that name.
        """
        return Functions(self._model, self._functions, name)


def _check(functions: Sequence[Function], only: str | None) -> None:
    names = [function.name for function in functions]
    if len(names) > MOST_FUNCTIONS:
        raise UsageError(f"there are {len(names)} functions", f"Give {MOST_FUNCTIONS} at most")
    if len(set(names)) < len(names):
        raise UsageError("two functions have the same name", "Give each a name of its own")
    if only is not None and only not in names:
        raise UsageError(f"there is no function {only!r} to choose", f"Choose one of: {', '.join(names) or 'none'}")


def _counted(
    functions: Iterable[Function], make: Callable[[Function, int], Iterator[CommandSentence]], most: int = MOST_CALLS
) -> Iterator[CommandSentence]:
    """The sentences of all functions, `most` of them together."""
    for function in functions:
        for sentence in make(function, most):
            most -= 1
            yield sentence


def _parts(sentence: CommandSentence) -> Iterator[str]:
    """What a sentence is the way to: its phrase, and the value of each parameter."""
    function = f"the function {sentence.call.command}"
    yield f"{sentence.phrase!r} of {function}"
    for name, value in sentence.call.slots.items():
        yield f"the value {value!r} of the parameter {name} of {function}"


def _plain(text: str) -> str:
    """Text as it is compared: without capitals, a mark at its end, and doubled spaces."""
    return " ".join(text.casefold().split()).rstrip(".!?")


class Caller:
    """Finds out what one client's turns call. Belongs to the model's thread; at most one turn at a time.

    Args:
        model: who listens.
        threshold: confidence from which a call is made, where none need be.
    """

    def __init__(self, model: Engine, threshold: float = THRESHOLD) -> None:
        self._model = model
        self._threshold = threshold
        self._prompts: dict[str, PrefilledPrompt] = {}

    @property
    def contexts(self) -> list[Context]:
        """Whatever holds state."""
        return [prompt.context for prompt in self._prompts.values()]

    def forget(self, but: Functions | None) -> list[Context]:
        """Only these functions are called from now on: what is not needed for them any more."""
        kept = {way.system for way in but.ways} if but is not None else set()
        gone = [self._prompts.pop(system) for system in [*self._prompts] if system not in kept]
        return [prompt.context for prompt in gone]

    def steps(
        self, functions: Functions, audio: Floats | None, text: str | None, must: bool
    ) -> Generator[Context, None, FunctionCall | None]:
        """Find out, in small steps: each is given the context that it is about to work on.

        Args:
            functions: what may be called.
            audio: what was said, (samples,) at 16 kHz.
            text: what was written.
            must: call something, however unsure; None is returned otherwise if nothing is likely enough.

        Raises:
            ContextFull: the prompt or the turn does not fit.
        """
        best: FunctionCall | None = None
        for way in functions.ways:
            if audio is None and _plain(text or "") in way.known:
                call = way.known[_plain(text or "")]
                return FunctionCall(call.command, call.slots, 1.0)
            if audio is None and way.aloud and not must:
                continue  # what is written is compared: no model was taught to write it down
            found = yield from self._hear(way, audio, text, must)
            if found.confidence >= self._threshold:
                return found
            if best is None or found.confidence > best.confidence:
                best = found
        return best if must else None

    def _hear(
        self, way: _Way, audio: Floats | None, text: str | None, must: bool
    ) -> Generator[Context, None, FunctionCall]:
        if way.system not in self._prompts:
            self._prompts[way.system] = PrefilledPrompt(self._model, way.system)
        prompt = self._prompts[way.system]
        yield prompt.context
        while prompt.prefill():
            yield prompt.context
        least = -math.inf if must or not self._threshold else math.log(self._threshold)
        looking = search(way.tree, prompt.ask(audio, text), least)
        while True:
            yield prompt.context
            try:
                next(looking)
            except StopIteration as over:
                call = way.written.sentences[over.value.number].call
                return FunctionCall(call.command, call.slots, math.exp(over.value.log_probability))
