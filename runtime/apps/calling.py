"""Tool calling: a user's turn (sound or text) to a call of one of a client's functions, or to none.

A function with phrases is recognised as a command is (see `control`): the model transcribes what was said, and can
write only the phrases. A function without phrases is called in writing, after a prompt that lists the functions. The
call begins with the model's token for calls, if it has one. How well a model does that depends on its weights; it was
measured with none. In both cases decoding is constrained, so that the arguments always fit the schema. The confidence
is the probability of the call among all that could be written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxrill.runtime.apps.constrained import PrefilledPrompt, search
from voxrill.runtime.apps.control import THRESHOLD
from voxrill.runtime.apps.functions import (
    MOST_CALLS,
    MOST_FUNCTIONS,
    Function,
    Schema,
    json_objects,
    spoken_calls,
    written_calls,
)
from voxrill.runtime.apps.grammar import Call, CommandSentence, distinct
from voxrill.runtime.apps.token_tree import TokenTree
from voxrill.runtime.apps.written import Written, as_transcribed
from voxrill.runtime.engine.context import Context, Floats
from voxrill.runtime.errors import UsageError

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

LISTING = "Call one of these functions, written as NAME(ARGUMENT=VALUE, ARGUMENT=VALUE):"
"""The beginning of the prompt for functions without phrases. Their JSON follows, one line for each."""


JSON_LISTING = "Answer with JSON that fits this schema:"
"""The end of the prompt for an answer in JSON. The schema follows."""


@dataclass(frozen=True)
class FunctionCall:
    """A function, the values of its arguments, and the model's confidence."""

    name: str
    values: Mapping[str, Any]
    confidence: float

    @property
    def arguments(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.values)


@dataclass(frozen=True)
class _CallPrompt:
    """A prompt, and the calls that may be written after it.

    spoken: what is written is a transcript of what was said. known: the calls by their text.
    """

    system: str
    spoken: bool
    written: Written
    tree: TokenTree
    known: Mapping[str, Call]


class JsonAnswers:
    """The JSON objects of a schema, one of which is the answer. May be made in any thread, and never changes.

    Args:
        model: what answers.
        system: the system prompt; the schema is added to it.
        schema: the schema: a flat object of enum, const, boolean, and integer with minimum and maximum.

    Raises:
        UsageError: the schema's objects cannot be listed, or the model writes no JSON; the message says why.
    """

    def __init__(self, model: Engine, system: str, schema: Schema) -> None:
        tokenizer = model.parts.tokenizer
        if tokenizer.closed:
            raise UsageError(
                "this model knows a list of words, and can write no JSON",
                "Leave the schema out, or give tools with phrases that it knows",
            )
        given = list(json_objects(schema))
        written = Written(given, tokenizer, lambda words: (words,), _parts)
        prompt = "\n".join([system, JSON_LISTING, json.dumps(schema.parameters or {})])
        self.prompts = [_CallPrompt(prompt, False, written, written.tree, {})]


class Functions:
    """Functions that may be called. May be made in any thread, and never changes.

    Args:
        model: what calls them.
        functions: the functions.
        only: the only one that may be called; None for all.

    Raises:
        UsageError: one of them is ambiguous or has too many calls; the message names it.
        UnknownText: the model does not know a word of them.
    """

    def __init__(self, model: Engine, functions: Sequence[Function], only: str | None = None) -> None:
        self._model, self._functions = model, functions
        _check(functions, only)
        calls = model.manifest.tasks.calls
        self._begin = model.parts.tokenizer.special([calls.begin]) if calls else ()
        self.listing = "\n".join(
            [
                calls.listing if calls else LISTING,
                *(function.listed() for function in functions if not function.phrases),
            ]
        )
        allowed = [function for function in functions if only in (None, function.name)]
        spoken = [function for function in allowed if function.phrases]
        written = [function for function in allowed if not function.phrases]
        if written and model.parts.tokenizer.closed:
            raise UsageError(
                f"the function {written[0].name} has no phrases, and this model can only transcribe what is said",
                'Give it phrases: "phrases": ["turn {state} the {room} lights"]',
            )
        said = list(distinct(_counted(spoken, spoken_calls)))
        called = list(_counted(written, written_calls, MOST_CALLS - len(said)))
        self.prompts = [
            *([self._call_prompt(model.manifest.tasks.transcribe.system, True, said, as_transcribed)] if said else []),
            *([self._call_prompt(self.listing, False, called, lambda words: (words,))] if called else []),
        ]

    def _call_prompt(
        self, system: str, spoken: bool, given: list[CommandSentence], forms: Callable[[str], tuple[str, ...]]
    ) -> _CallPrompt:
        begin = () if spoken else self._begin
        written = Written(given, self._model.parts.tokenizer, forms, _parts, begin)
        known = {_plain(sentence.words): sentence.call for sentence in given}
        return _CallPrompt(system, spoken, written, written.tree, known)

    def only(self, name: str) -> Functions:
        """The same functions, of which only `name` may be called.

        Raises:
            UsageError: there is no function of that name.
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
    """The sentences of all functions, at most `most` of them together."""
    for function in functions:
        for sentence in make(function, most):
            most -= 1
            yield sentence


def _parts(sentence: CommandSentence) -> Iterator[str]:
    """What is lost if a sentence cannot be written: its phrase, and the value of each parameter."""
    function = f"the function {sentence.call.command}"
    yield f"{sentence.phrase!r} of {function}"
    for name, value in sentence.call.slots.items():
        yield f"the value {value!r} of the parameter {name} of {function}"


def _plain(text: str) -> str:
    """Text as it is compared: without capitals, a mark at its end, or double spaces."""
    return " ".join(text.casefold().split()).rstrip(".!?")


class Caller:
    """Finds the calls in one client's turns. It belongs to the model's thread, and handles one turn at a time.

    Args:
        model: what listens.
        threshold: confidence from which a call is made in a turn that may also be none.
    """

    def __init__(self, model: Engine, threshold: float = THRESHOLD) -> None:
        self._model = model
        self._threshold = threshold
        self._prompts: dict[str, PrefilledPrompt] = {}

    @property
    def contexts(self) -> list[Context]:
        """The contexts that hold state."""
        return [prompt.context for prompt in self._prompts.values()]

    def forget(self, but: Functions | None) -> list[Context]:
        """Drop the prompts that `but` does not need. Returns their contexts."""
        kept = {prompt.system for prompt in but.prompts} if but is not None else set()
        gone = [self._prompts.pop(system) for system in [*self._prompts] if system not in kept]
        return [prompt.context for prompt in gone]

    def prompts(self, functions: Functions) -> list[PrefilledPrompt]:
        """The prompts that functions need. Each can hear a turn while it is spoken; `steps` then takes all of it."""
        return [self._prompt(prompt.system) for prompt in functions.prompts]

    def unhear(self) -> None:
        """Another turn begins: forget what was heard."""
        for prompt in self._prompts.values():
            prompt.unhear()

    def _prompt(self, system: str) -> PrefilledPrompt:
        if system not in self._prompts:
            self._prompts[system] = PrefilledPrompt(self._model, system)
        return self._prompts[system]

    def steps(
        self, functions: Functions | JsonAnswers, audio: Floats | None, text: str | None, must: bool
    ) -> Generator[Context, None, FunctionCall | None]:
        """Find the call in a turn, in small steps. Each step yields the context that the next one works on.

        Args:
            functions: what may be called, or answered.
            audio: what was said, (samples,) at 16 kHz.
            text: what was written.
            must: call a function even if none is likely enough; otherwise None is returned then.

        Raises:
            ContextFull: the prompt or the turn does not fit.
        """
        best: FunctionCall | None = None
        for prompt in functions.prompts:
            if audio is None and _plain(text or "") in prompt.known:
                call = prompt.known[_plain(text or "")]
                return FunctionCall(call.command, call.slots, 1.0)
            if audio is None and prompt.spoken and not must:
                continue  # written text is compared with the phrases: no model was taught to transcribe text
            found = yield from self._ask(prompt, audio, text, must)
            if found.confidence >= self._threshold:
                return found
            if best is None or found.confidence > best.confidence:
                best = found
        return best if must else None

    def _ask(
        self, wanted: _CallPrompt, audio: Floats | None, text: str | None, must: bool
    ) -> Generator[Context, None, FunctionCall]:
        """The likeliest call after one prompt, which is prefilled when it is first needed."""
        prompt = self._prompt(wanted.system)
        yield prompt.context
        while prompt.prefill():
            yield prompt.context
        if text is not None:
            text = self._model.parts.reading.question(text, with_sound=True)
        least = -math.inf if must or not self._threshold else math.log(self._threshold)
        searching = search(wanted.tree, prompt.ask(audio, text), least)
        while True:
            yield prompt.context  # before each step: the caller brings this context's state back if it was put away
            try:
                next(searching)
            except StopIteration as over:
                call = wanted.written.sentences[over.value.number].call
                return FunctionCall(call.command, call.slots, math.exp(over.value.log_probability))
