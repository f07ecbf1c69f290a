"""Which functions a question may call: those that a client declared, under its tool_choice.

Realtime sessions and chat completions both ask here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from voxrill.runtime.apps.calling import Functions
from voxrill.runtime.apps.functions import Function
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import UsageError
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.limits import TOOL_BYTES


class ChosenFunction(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """The function that must be called."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | ChosenFunction


@dataclass(frozen=True)
class AllowedCalls:
    """The functions that a turn may call. required: it must call one of them."""

    functions: Functions
    required: bool


def check_size(tools: Sequence[msgspec.Struct]) -> None:
    """Raise ApiError if a client's tools take too many bytes."""
    if len(msgspec.json.encode(tools)) > TOOL_BYTES:
        raise ApiError(400, f"The tools take more than {TOOL_BYTES} bytes of JSON. Send fewer.", "too_long", "tools")


def allowed_calls(model: Engine, tools: Sequence[Function], choice: ToolChoice) -> AllowedCalls | None:
    """The calls that a client's settings allow; None for none.

    Raises:
        UsageError: see `Functions`; or a call is required, and there are no functions.
    """
    functions = Functions(model, tools)
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise UsageError("a call is required, and there are no functions", "Give tools, or another tool_choice")
        return AllowedCalls(functions, choice == "required") if tools and choice != "none" else None
    return AllowedCalls(functions.only(choice.name), required=True)
