"""What all doors share: the model and its worker, the limits, and the visit of one request.

A door is a function from a visit to a response. The visit holds a slot from before the body is read until the answer is
sent, and ends its jobs when the client leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from voxrill.runtime.bundle.manifest import Task
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.job import Job
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.metrics import Metrics
from voxrill.runtime.serve.states import States
from voxrill.runtime.serve.worker import Worker
from voxrill.runtime.talk.responder import ResponderOptions

T = TypeVar("T")

DEFAULT_VOICE = "default"
"""The name by which the model's own voice is meant: OpenAI's interface wants one."""

_EARS = 2
"""Threads that take the messages of realtime sessions and look for speech in their sound, beside the model's."""

_DECODERS = 2
"""Threads that decode uploads. They are not the ears, so that no upload holds up a realtime session."""


class Service:
    """One server's model and all that belongs to it.

    turns: how many it remembers before a question, None for all; positions: of a conversation that it remembers.
    """

    def __init__(self, model: Engine, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.metrics = Metrics()
        self.worker = Worker(limits, self.metrics)
        self.states = States(limits.memory, self.metrics)
        self.ears = ThreadPoolExecutor(_EARS, "voxrill-ears")
        self.decoders = ThreadPoolExecutor(_DECODERS, "voxrill-decoders")
        room = model.context_positions // 2  # the other half is for the next question and its answer
        self.positions = min(ResponderOptions.budget, room)
        self.turns = model.manifest.taught.turns
        self.created = int(time.time())

    def start(self) -> None:
        """Begin to work."""
        self.worker.start()

    def stop(self) -> None:
        """End what is being worked on."""
        self.worker.stop()
        self.states.close()
        self.ears.shutdown(cancel_futures=True)
        self.decoders.shutdown(cancel_futures=True)

    def check_model(self, name: str) -> None:
        """Raise ApiError if the model is not called so."""
        if name != self.model.manifest.name:
            raise ApiError(
                404,
                f"There is no model {name[:80]!r}. This server has: {self.model.manifest.name}",
                "model_not_found",
                "model",
            )

    def check_text(self, text: str, param: str) -> None:
        """Raise ApiError if a text is empty or too long."""
        if not text.strip():
            raise ApiError(400, "The text is empty.", "empty_text", param)
        self.check_length(text, param)

    def check_length(self, text: str, param: str) -> None:
        """Raise ApiError if a text is too long."""
        if len(text) > self.limits.text:
            raise ApiError(400, f"The text is longer than {self.limits.text} characters.", "text_too_long", param)

    async def hear(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work` in a thread for realtime sound."""
        return await asyncio.get_running_loop().run_in_executor(self.ears, work, *arguments)

    async def decode(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work` in a thread for uploads."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *arguments)


def check_voice(task: Task, voice: str, param: str) -> str:
    """The task's voice of that name.

    Raises:
        ApiError: there is none.
    """
    known = {name.casefold(): name for name in (*task.voices, DEFAULT_VOICE)}
    if voice.casefold() not in known:
        names = ", ".join(known.values())
        raise ApiError(400, f"There is no voice {voice[:80]!r}. This model has: {names}", "voice_not_found", param)
    return task.voice if voice.casefold() == DEFAULT_VOICE else known[voice.casefold()]


class _Gone(Exception):
    """The client left before it was answered."""


class Visit:
    """One request being served."""

    def __init__(self, service: Service, request: Request) -> None:
        self.service = service
        self.request = request
        self._jobs: list[Job[Any]] = []

    def work(self, make: Callable[[], Iterator[T | None]]) -> AsyncIterator[T]:
        """The items of steps that the worker makes; they end with the visit."""
        job = Job(make, self.service.worker)
        self._jobs.append(job)
        return job.items()

    async def wanted(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is given up when the client leaves; the body must have been read."""
        task, left = asyncio.ensure_future(work), asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Gone
            return task.result()
        finally:
            task.cancel()
            left.cancel()

    async def _left(self) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self.request.receive()

    def end(self) -> None:
        """Nothing of it is wanted any more."""
        for job in self._jobs:
            job.leave()


Answer = Callable[[Visit], Awaitable[Response]]


class Door:
    """A route of the server: takes a slot, lets `answer` answer, and counts."""

    def __init__(self, service: Service, answer: Answer) -> None:
        self._service = service
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        with self._service.worker.slot():
            visit = Visit(self._service, Request(scope, receive))
            try:
                with suppress(_Gone):
                    response = await self._answer(visit)
                    await response(scope, receive, send)
            finally:
                visit.end()


def as_json(value: Any) -> Response:
    """A response of JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def sse(value: Any) -> bytes:
    """One server-sent event of JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


SSE_DONE = b"data: [DONE]\n\n"

EVENT_STREAM = "text/event-stream"
