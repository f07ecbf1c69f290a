"""A response outside the conversation: it is told beside what is said aloud, and nothing of it is remembered.

In: what the answer knows, and a question. Out: the events of a response. It has a floor and a player of its own, so
that neither the user nor another answer interrupts it. Belongs to the worker's thread.
"""

from __future__ import annotations

import time
from collections import deque

from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.serve.api_errors import as_api_error
from voxrill.runtime.serve.realtime.client_items import Told
from voxrill.runtime.serve.realtime.emitter import Emit
from voxrill.runtime.serve.realtime.items import Items
from voxrill.runtime.serve.realtime.playback import ClientPlayer
from voxrill.runtime.serve.realtime.responses import MessageResponse, ResponseForm
from voxrill.runtime.serve.realtime.settings import Settings
from voxrill.runtime.serve.realtime.thinker import thinker
from voxrill.runtime.serve.realtime.weak_callback import weak_callback
from voxrill.runtime.serve.service import Service
from voxrill.runtime.talk.events import AnswerFailed, AssistantSaid, TalkEvent
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Ended, Typed, Utterance
from voxrill.runtime.talk.reply import TalkTurn

_MOST = 4
"""Responses outside the conversation that may wait or be made: each has a conversation's state."""


class OutOfBand:
    """One response outside the conversation. `over` says that nothing more will come.

    Args:
        service: whose model answers.
        settings: of this response.
        emit, items, form: see `Response`.
    """

    def __init__(self, service: Service, settings: Settings, emit: Emit, items: Items, form: ResponseForm) -> None:
        send, finished = weak_callback(self._send_sound), weak_callback(self._finished)
        player = ClientPlayer(service.model.sample_rate, send, finished)
        show, keep = weak_callback(self._show), weak_callback(self._keep)
        self._floor = Floor(player)
        self.thinker = thinker(service, settings, player, self._floor, show, keep)
        self._response = MessageResponse(emit, items, form)

    @property
    def over(self) -> bool:
        """Whether the response has ended."""
        return self._response.ended

    @property
    def response_id(self) -> str:
        """The response's id."""
        return self._response.response_id

    def ask(self, question: Told) -> None:
        """Answer a question."""
        now = time.perf_counter()
        samples = question.samples
        said = Utterance(samples, 0, len(samples), now) if len(samples) else None
        if said is not None and not question.text:
            self.thinker.responder.inbox.put(Ended(said, now, self._floor.question()))
        else:
            self.thinker.responder.inbox.put(Typed(question.text, now, said))

    def cancel(self) -> None:
        """The client wants no more of it."""
        if not self.over:
            self._response.end("cancelled", "client_cancelled")

    def _show(self, event: TalkEvent) -> None:
        if self.over:
            return
        if isinstance(event, AnswerFailed):
            self._response.end("failed", None, as_api_error(event.error).body())
        elif isinstance(event, AssistantSaid):
            self._response.add_text(event.piece)

    def _send_sound(self, samples: Floats) -> None:
        if not self.over:
            self._response.add_sound(samples)

    def _finished(self) -> None:
        if not self.over:
            self._response.end("completed")

    def _keep(self, turn: TalkTurn) -> None:
        """Nothing of it is remembered."""


class OutOfBandQueue:
    """The responses outside the conversation: one is made at a time.

    asked: how many were asked for, as the listening thread counts them.
    """

    def __init__(self) -> None:
        self.asked = self._over = 0
        self._waiting: deque[OutOfBand] = deque()

    @property
    def full(self) -> bool:
        """Whether no further one may begin."""
        return self.asked - self._over >= _MOST

    def add(self, response: OutOfBand) -> None:
        """Make a response after those before it."""
        self._waiting.append(response)

    def cancel(self, response_id: str) -> bool:
        """Cancel a response. Returns whether it was there."""
        found = [one for one in self._waiting if one.response_id == response_id and not one.over]
        for one in found:
            one.cancel()
        return bool(found)

    def step(self) -> bool:
        """Make a little of the first one; whether there was anything to do."""
        if not self._waiting:
            return False
        if not self._waiting[0].over:
            return self._waiting[0].thinker.step()
        self._waiting.popleft().thinker.close()
        self._over += 1
        return True

    def close(self) -> None:
        """Free the state of all."""
        for one in self._waiting:
            one.thinker.close()
        self._waiting.clear()
