"""Function calls that wait for their output."""

from __future__ import annotations

from dataclasses import dataclass

from voxrill.runtime.serve.realtime.call_decider import Question

_MOST = 64
"""Calls that may wait; older ones are forgotten."""

_MOST_QUESTIONS = 8
"""Calls whose question is kept for the conversation: each may hold half a minute of sound."""


@dataclass(frozen=True)
class OpenCall:
    """A call. question: the turn that called; None if the client told of the call. items: those of the question."""

    question: Question | None
    items: tuple[str, ...] = ()


class OpenCalls:
    """The calls by their ids. One thread adds and takes them, another may look."""

    def __init__(self) -> None:
        self._calls: dict[str, OpenCall] = {}

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._calls

    def add(self, call_id: str, call: OpenCall) -> None:
        """A call was made."""
        self._calls[call_id] = call
        asked = [name for name, one in list(self._calls.items()) if one.question is not None]
        for name in asked[:-_MOST_QUESTIONS]:
            self._calls[name] = OpenCall(None)
        if len(self._calls) > _MOST:
            del self._calls[next(iter(self._calls))]

    def take(self, call_id: str) -> OpenCall | None:
        """The call, which waits no longer; None if it is forgotten."""
        return self._calls.pop(call_id, None)
