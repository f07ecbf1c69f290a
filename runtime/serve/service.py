"""What all endpoints share: the model and its worker, the limits, and the exchange of one request for its answer.

An endpoint is a function from an exchange to a response. The exchange holds a slot from before the body is read until
the answer is sent, and cancels its jobs when the client leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.bundle.manifest import Task
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.reading import UnknownWords, warn
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import AudioEvent
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.background import Background
from voxrill.runtime.serve.job import Job, Pause
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.log import LOG
from voxrill.runtime.serve.metrics import Metrics
from voxrill.runtime.serve.names import VoiceName, check_model, check_voice, in_header, voice_shown
from voxrill.runtime.serve.request_log import Record, record_of
from voxrill.runtime.serve.state_cache import StateCache
from voxrill.runtime.serve.worker import Worker
from voxrill.runtime.talk.responder import ResponderOptions

T = TypeVar("T")

MODEL_HEADER = "X-Voxrill-Model"
VOICE_HEADER = "X-Voxrill-Voice"
"""The headers of an answer that name what made it: a client may have asked by one of OpenAI's names, or by none."""

WARNING_HEADER = "X-Voxrill-Warning"
"""The header of an answer that says what of the request had no effect, such as a tool that cannot be called."""

_LONGEST_WARNING = 500
"""Characters of that header, before they are encoded."""

_SOUND_THREADS = 2
"""Threads that take the messages of realtime sessions and look for speech in their sound, beside the model's."""

_UPLOAD_THREADS = 2
"""Threads that decode uploads. They are threads of their own, so that no upload holds up a realtime session."""


class Service:
    """One server's model and all that belongs to it.

    turns: how many turns before a question the model remembers, None for all. positions: how many positions of a
    conversation it remembers. judge: says at a pause whether a turn of a session with `semantic_vad` is over; None
    where silence alone decides. least_confidence: Home Assistant gets no transcript that is less certain; None for
    what the bundle says.
    """

    def __init__(
        self, model: Engine, limits: Limits, judge: PauseJudge | None = None, least_confidence: float | None = None
    ) -> None:
        self.model = model
        self.judge = judge
        self.limits = limits
        self.metrics = Metrics()
        self.worker = Worker(limits, self.metrics)
        self.states = StateCache(limits.memory, self.metrics)
        self._sound_pool = ThreadPoolExecutor(_SOUND_THREADS, "voxrill-sound")
        self._upload_pool = ThreadPoolExecutor(_UPLOAD_THREADS, "voxrill-upload")
        room = model.context_positions // 2  # the other half is for the next question and its answer
        self.positions = min(ResponderOptions.budget, room)
        self.turns = model.manifest.taught.turns
        taught = model.manifest.taught.least_confidence
        self.least_confidence = (taught or 0.0) if least_confidence is None else least_confidence
        self.created = int(time.time())

    def start(self) -> None:
        """Begin to work."""
        self.model.parts.reading.tell = _log_unknown_words  # a Python warning would quote what a client sent
        self.worker.start()

    def stop(self) -> None:
        """End what is in progress."""
        self.worker.stop()
        self.model.parts.reading.tell = warn
        self.states.close()
        self._sound_pool.shutdown(cancel_futures=True)
        self._upload_pool.shutdown(cancel_futures=True)

    def check_model(self, name: str | None) -> None:
        """Raise ApiError if a client's name for the model does not mean the served one."""
        check_model(self.model.manifest, name)

    def check_text(self, text: str, param: str) -> None:
        """Raise ApiError if a text is empty or too long."""
        if not text.strip():
            raise ApiError(400, "The text is empty. Send some words.", "empty_text", param)
        self.check_length(text, param)

    def check_length(self, text: str, param: str) -> None:
        """Raise ApiError if a text is too long."""
        if len(text) > self.limits.text:
            message = f"The text is longer than {self.limits.text} characters. Send it in parts."
            raise ApiError(400, message, "text_too_long", param)

    async def process_sound(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work` in a thread for realtime sound."""
        return await asyncio.get_running_loop().run_in_executor(self._sound_pool, work, *arguments)

    def in_background(self, steps: Generator[T | None, None, None], file: BinaryIO) -> Background[T]:
        """Work on a file that the threads for uploads do a little at a time."""
        return Background(steps, file, self._upload_pool, self.worker.wake)

    async def process_upload(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work` in a thread for uploads."""
        return await asyncio.get_running_loop().run_in_executor(self._upload_pool, work, *arguments)


def _log_unknown_words(unknown: UnknownWords) -> None:
    """The words are content, which never stands in the log."""
    LOG.warning(f"A {unknown.text} held {len(unknown.words)} words that the model does not know: {unknown.outcome}")


class _ClientLeft(Exception):
    """The client left before it was answered."""


class Exchange:
    """One request, and the jobs that make its answer."""

    def __init__(self, service: Service, request: Request) -> None:
        self.service = service
        self.request = request
        self.record = record_of(request.scope)
        self._voice = ""
        self._warning = ""
        self._ends: list[Callable[[], None]] = []

    def use_voice(self, task: Task, wanted: VoiceName, param: str) -> str:
        """The task's voice for a client's. The answer's headers name it.

        Raises:
            ApiError: there is none.
        """
        voice = check_voice(task, wanted, param)
        self._voice = voice_shown(task, voice)
        return voice

    def warn(self, text: str) -> None:
        """Tell the client in a header what of its request has no effect."""
        self._warning = f"{self._warning} {text}".strip()[:_LONGEST_WARNING]

    @property
    def used(self) -> dict[str, str]:
        """The headers that say which model, and which voice if there is one, made the answer."""
        names = {MODEL_HEADER: self.service.model.manifest.name, VOICE_HEADER: self._voice}
        names[WARNING_HEADER] = self._warning
        return {header: in_header(name) for header, name in names.items() if name}

    def at_end(self, end: Callable[[], None]) -> None:
        """Call `end` when the exchange ends, in whatever way."""
        self._ends.append(end)

    def in_background(self, steps: Generator[T | None, None, None], file: BinaryIO) -> Background[T]:
        """Work on a file that the threads for uploads do. It ends with the exchange, which closes the file."""
        work = self.service.in_background(steps, file)
        self.at_end(work.close)
        return work

    def run(self, make: Callable[[], Iterator[T | Pause | None]]) -> AsyncIterator[T]:
        """The items of steps that the worker makes. They end with the exchange."""
        job = Job(make, self.service.worker)
        self.at_end(job.cancel)
        return self._counted(job.items())

    async def _counted(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The items; the seconds of sound in them are counted for the request log."""
        async for item in items:
            if isinstance(item, AudioEvent):
                self.record.said += len(item.samples) / self.service.model.sample_rate
            yield item

    async def unless_left(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the client leaves. The body must have been read before."""
        task, left = asyncio.ensure_future(work), asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _ClientLeft
            return task.result()
        finally:
            task.cancel()
            left.cancel()

    async def _left(self) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self.request.receive()

    def close(self) -> None:
        """End the work that is not done."""
        for end in self._ends:
            end()


@contextmanager
def _cut_off(record: Record) -> Iterator[None]:
    """An answer that fails after its status was sent is cut off: the server closes the connection."""
    try:
        yield
    except (ApiError, VoxrillError) as error:
        record.code, record.whole = as_api_error(error).label, False


Handler = Callable[[Exchange], Awaitable[Response]]


class Endpoint:
    """A route that needs the model: it takes a slot and lets `handler` answer."""

    def __init__(self, service: Service, handler: Handler) -> None:
        self._service = service
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        with self._service.worker.slot():
            exchange = Exchange(self._service, Request(scope, receive))
            try:
                with suppress(_ClientLeft):
                    response = await self._handler(exchange)
                    response.headers.update(exchange.used)
                    with _cut_off(exchange.record):
                        await response(scope, receive, send)
            finally:
                exchange.close()


def as_json(value: Any) -> Response:
    """A response of JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def sse(value: Any) -> bytes:
    """One server-sent event of JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def or_error(exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Server-sent events; if they fail on the way, the last one says why, as OpenAI's clients expect it."""
    try:
        async for event in events:
            yield event
    except (ApiError, VoxrillError) as error:
        refusal = as_api_error(error)
        exchange.record.code = refusal.label
        yield sse({"error": refusal.body()})


SSE_DONE = b"data: [DONE]\n\n"

EVENT_STREAM = "text/event-stream"
