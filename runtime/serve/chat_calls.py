"""Chat answers that are not free text: a function call, or JSON that fits a schema; and answers to a call's output.

In: a chat request. Out: what may be called or written, found in an upload's thread; then the answer's steps, in the
worker's. Decoding is constrained by the decoder of realtime sessions (`runtime/apps/calling.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from voxrill.runtime.apps.calling import Caller, FunctionCall, Functions, JsonAnswers
from voxrill.runtime.apps.functions import Function, Schema
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import UnknownText, UsageError
from voxrill.runtime.events import EndEvent, Event, Result, StageEvent, TextEvent
from voxrill.runtime.serve.allowed_calls import AllowedCalls, ChosenFunction, ToolChoice, allowed_calls
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.chat_messages import ChatQuestion
from voxrill.runtime.serve.requests import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NamedTool, SubsetChoice
from voxrill.runtime.serve.state_cache import StateCache


@dataclass(frozen=True)
class CallMade:
    """A call that the answer consists of. prompt: positions of its prompt; made: its tokens."""

    call: FunctionCall
    prompt: int
    made: int
    id: str

    def shown(self) -> dict[str, object]:
        """As OpenAI shows it."""
        function = {"name": self.call.name, "arguments": self.call.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True)
class Constraints:
    """What an answer may be besides free text.

    calls: functions that may be called. json: the objects, one of which must be the answer. never: why some functions
    are never called; empty if all may be.
    """

    calls: AllowedCalls | None
    json: JsonAnswers | None
    never: str


def constraints(model: Engine, asked: ChatRequest, system: str | None, spoken: bool) -> Constraints:
    """What the answer to a request may be. May take a second: all calls are listed.

    Raises:
        ApiError: JSON is asked for without a schema, or aloud.
        UsageError: a call is required, or a schema is given, and cannot be listed; the message says why.
        UnknownText: a call is required, and the model does not know its words.
    """
    calls, never = _calls(model, asked)
    return Constraints(calls, _json(model, asked, system, spoken), never)


def _calls(model: Engine, asked: ChatRequest) -> tuple[AllowedCalls | None, str]:
    functions, choice = [tool.function for tool in asked.tools], _choice(asked)
    if isinstance(asked.tool_choice, SubsetChoice):
        functions = _subset(functions, asked.tool_choice)
    if choice == "none":
        return None, ""
    if choice != "auto":
        return allowed_calls(model, functions, choice), ""
    usable, reasons = [], []
    for function in functions:
        try:
            Functions(model, [function])
            usable.append(function)
        except (UsageError, UnknownText) as error:
            reasons.append(f"{function.name} is never called: {error}")
    return allowed_calls(model, usable, "auto"), " ".join(reasons)


def _choice(asked: ChatRequest) -> ToolChoice:
    choice = asked.tool_choice
    if isinstance(choice, NamedTool):
        return ChosenFunction(choice.function.name)
    return choice.allowed_tools.mode if isinstance(choice, SubsetChoice) else choice


def _subset(functions: list[Function], choice: SubsetChoice) -> list[Function]:
    names = [tool.function.name for tool in choice.allowed_tools.tools]
    known = {function.name: function for function in functions}
    for name in names:
        if name not in known:
            raise ApiError(400, f"There is no tool {name[:64]!r} to choose. Send it in tools.", param="tool_choice")
    return [known[name] for name in dict.fromkeys(names)]


def _json(model: Engine, asked: ChatRequest, system: str | None, spoken: bool) -> JsonAnswers | None:
    wanted = asked.response_format
    if isinstance(wanted, JsonObjectFormat):
        raise ApiError(
            400,
            "json_object does not say which JSON is meant. Send json_schema, with the values of each property.",
            "unsupported_value",
            "response_format",
        )
    if not isinstance(wanted, JsonSchemaFormat):
        return None
    if spoken:
        raise ApiError(400, "JSON is not spoken. Ask for the modality text.", "unsupported_value", "response_format")
    schema = Schema(wanted.json_schema.name, parameters=wanted.json_schema.schema)
    return JsonAnswers(model, model.manifest.tasks.write.system if system is None else system, schema)


def find_call(
    model: Engine, states: StateCache, choices: Functions | JsonAnswers, question: ChatQuestion, must: bool
) -> Generator[None, None, CallMade | None]:
    """Find the call, or the JSON, that answers a question, in small steps. None if nothing is likely enough.

    Args:
        model: what answers.
        states: brings the contexts that the search works on into memory.
        choices: what may be called or written.
        question: the question.
        must: choose the likeliest in any case.

    Raises:
        ContextFull: the prompt or the question does not fit.
    """
    caller = Caller(model)
    steps = caller.steps(choices, question.audio, question.text, must)
    prompt = 0
    try:
        while True:
            context = next(steps)
            states.use(context)
            prompt = max(prompt, context.positions)
            yield
    except StopIteration as over:
        call: FunctionCall | None = over.value
    finally:
        for context in caller.contexts:
            states.drop(context)
    if call is None:
        return None
    return CallMade(call, prompt, model.parts.tokenizer.count(call.arguments), f"call_{secrets.token_hex(12)}")


def told(text: str, prompt: int = 0) -> Iterator[Event | StageEvent]:
    """The events of an answer whose text is known."""
    yield StageEvent("prefilled", 0.0)
    yield TextEvent(text, 0, 0.0)
    yield EndEvent("stop", Result(text=text, prompt_positions=prompt), 0.0)
