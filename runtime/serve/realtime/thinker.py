"""A conversation, and the responder that answers in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from voxrill.runtime.audio.protocols import Player
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.serve.realtime.settings import Settings
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.system_prompt import told_prompt
from voxrill.runtime.talk.events import TalkEvent
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Resumed
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import Responder, ResponderOptions


@dataclass(frozen=True)
class Thinker:
    """A responder and its conversation. Belongs to the worker's thread."""

    responder: Responder
    conversation: Conversation
    service: Service

    def step(self, signalled: bool = False) -> bool:
        """Answer a little, or take a signal only; whether there was anything to do."""
        if self.responder.idle or (signalled and self.responder.inbox.empty()):
            return False
        self.service.states.use(self.conversation.context)
        return self.responder.step()

    def settle(self) -> None:
        """Take all signals that wait, and withdraw an answer that was begun early."""
        self.responder.inbox.put(Resumed())
        while not self.responder.inbox.empty():
            self.step(signalled=True)

    def close(self) -> None:
        """Free its state. A generator in the making refers to its maker, so that it ends here."""
        self.service.states.drop(self.conversation.context)
        self.conversation.close()


def thinker(
    service: Service,
    settings: Settings,
    player: Player,
    floor: Floor,
    show: Callable[[TalkEvent], None],
    keep: Callable[[TalkTurn], None],
) -> Thinker:
    """A thinker that answers as the settings say, and knows nothing yet. player, floor, show, keep: see `Responder`."""
    prompt = told_prompt(service.model.manifest, settings.instructions, settings.output)
    conversation = service.model.conversation(system=prompt, output=settings.output)
    most = min(settings.most or service.limits.answer, service.limits.answer)
    options = ResponderOptions(budget=service.positions, turns=service.turns, max_new_tokens=most)
    return Thinker(Responder(conversation, player, floor, show, keep, options), conversation, service)
