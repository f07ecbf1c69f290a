"""What came of a function call, told to the user: the client's text, said aloud in the model's voice, word for word.

No model here was taught to make an answer of a function's output, so that the output is the answer. It is made by a
mind of its own, which shares the floor, so that the user can interrupt it as any other answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from voxrill.runtime.audio.protocols import Player
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.serve.service import Service
from voxrill.runtime.talk.events import AssistantSaid, StateChanged, TalkEvent
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Typed
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import Responder, ResponderOptions


class Teller:
    """Says texts.

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
        task = service.model.manifest.tasks.speak
        self.conversation = Conversation(service.model.parts, task, task.system.replace("{voice}", task.voice))
        self._show = show
        self._text = ""
        options = ResponderOptions(turns=0, max_new_tokens=service.limits.answer)
        self.responder = Responder(self.conversation, player, floor, self._tell, keep, options)

    def say(self, text: str) -> None:
        """Say a text whose words the model knows."""
        self._text = text
        self.responder.inbox.put(Typed(text, time.perf_counter()))

    def _tell(self, event: TalkEvent) -> None:
        self._show(event)
        if event == StateChanged("thinking"):
            self._show(AssistantSaid(self._text))
