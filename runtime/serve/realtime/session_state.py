"""What the parts of a realtime session's listening side share: its settings, what waits, and the way to the worker.

Belongs to the listening thread, except for the queue: the worker's thread takes out of it what this thread puts in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue

from voxrill.runtime.serve.allowed_calls import AllowedCalls, allowed_calls
from voxrill.runtime.serve.realtime.answering import Answering
from voxrill.runtime.serve.realtime.client_items import Told
from voxrill.runtime.serve.realtime.emitter import Emit
from voxrill.runtime.serve.realtime.items import Items
from voxrill.runtime.serve.realtime.settings import Settings
from voxrill.runtime.serve.service import Service
from voxrill.runtime.talk.listener import Interrupted, Signal, Utterance

_FEW = 4
"""Changes that may wait for the worker when it is handed more sound: the blocks of one message, and a pause."""


class SessionState:
    """One session, as its listening thread knows it.

    settings, allowed: those in force, and the calls that turns may make. waiting: the user's messages that wait for
    response.create. outputs: of calls, which wait for it as well. committed: the client ended the turn that is being
    answered. inbox: changes that the worker's thread is to make.

    Args:
        service: what all sessions share.
        settings: those with which it begins.
        emit: takes events.
        beta: use OpenAI's names from before 2025.
    """

    def __init__(self, service: Service, settings: Settings, emit: Emit, beta: bool) -> None:
        self.service, self.settings, self.emit = service, settings, emit
        self.items = Items(emit)
        self.answers = Answering(service, settings, emit, self.items, beta)
        self.inbox: SimpleQueue[Callable[[Answering], None]] = SimpleQueue()
        self.allowed: AllowedCalls | None = None
        self.waiting: list[Told] = []
        self.outputs: dict[str, str] = {}
        self.committed = False

    def post(self, change: Callable[[Answering], None]) -> None:
        """Let the worker's thread make a change."""
        self.inbox.put(change)

    def takes_sound(self) -> bool:
        """Whether the worker's thread may be given what the user says while it is said.

        Only a model whose encoder works as sound comes has a use for it; and only when little waits, so that a busy
        worker gets it in larger pieces.
        """
        return self.service.model.parts.encoder.streams and self.settings.answers and self.inbox.qsize() < _FEW

    def signal(self, signal: Signal) -> None:
        """Let the worker's thread take a signal."""
        self.post(lambda answers: answers.take(signal))

    def interrupt(self, heard: int) -> None:
        """The answer that has the floor ends after its first `heard` samples."""
        answers = self.answers
        if answers.response is not None and answers.asked == answers.begun:
            answers.cut = answers.response.item_id, heard * 1000 // self.service.model.sample_rate
        self.signal(Interrupted(heard, time.perf_counter()))

    def transcribe(self, item: str, place: int, utterance: Utterance) -> None:
        """Write down what was said in an item, if the client wants that. place: of the sound in the item's content."""
        if self.settings.transcribes:
            self.post(lambda answers: answers.transcriber.add(item, place, utterance))

    def may_call(self, settings: Settings) -> AllowedCalls | None:
        """The calls that turns may make under these settings."""
        allowed = allowed_calls(self.service.model, settings.tools, settings.tool_choice)
        if allowed is not None:
            self.service.check_length(allowed.functions.listing, "tools")
        return allowed

    def check_text(self, text: str, param: str) -> None:
        """Raise ApiError or UsageError if a text is empty, too long, or not UTF-8."""
        self.service.check_text(text, param)
        self.service.model.parts.tokenizer.readable(text)
