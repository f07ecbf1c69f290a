"""The output of a function call, told to the user: the client's text, spoken in the model's voice, word for word.

No model here was trained to turn a function's output into an answer, so the output is the answer. It has a responder of
its own, which shares the floor with the session's, so that the user can interrupt it like any other answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from voxrill.runtime.audio.protocols import Player
from voxrill.runtime.serve.realtime.thinker import Thinker
from voxrill.runtime.serve.realtime.weak_callback import weak_callback
from voxrill.runtime.serve.service import Service
from voxrill.runtime.talk.events import AssistantSaid, StateChanged, TalkEvent
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Typed
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import Responder, ResponderOptions


class OutputSpeaker:
    """Speaks texts.

    Args:
        service: whose model speaks.
        player, floor, show, keep: see `Responder`.
    """

    def __init__(
        self,
        service: Service,
        player: Player,
        floor: Floor,
        show: Callable[[TalkEvent], None],
        keep: Callable[[TalkTurn], None],
    ) -> None:
        conversation = service.model.reciting()
        self._show = show
        self._text = ""
        options = ResponderOptions(turns=0, max_new_tokens=service.limits.answer)
        show_text = weak_callback(self._show_text)  # the responder must not keep its owner in memory
        self.thinker = Thinker(Responder(conversation, player, floor, show_text, keep, options), conversation, service)

    def speak(self, text: str) -> None:
        """Speak a text whose words the model knows."""
        self._text = text
        self.thinker.responder.inbox.put(Typed(text, time.perf_counter()))

    def _show_text(self, event: TalkEvent) -> None:
        self._show(event)
        if event == StateChanged("thinking"):
            self._show(AssistantSaid(self._text))
