"""The events about responses: created and cancelled.

In: the client's events, and what waits for an answer. Out: the question that the worker is to answer. Belongs to the
listening thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from voxrill.runtime.serve.allowed_calls import AllowedCalls
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.realtime.answering import BY_CLIENT, AskedItems
from voxrill.runtime.serve.realtime.client_items import Told, check_waiting, joined, read_message
from voxrill.runtime.serve.realtime.messages import MessageItem, ResponseCreate, opened
from voxrill.runtime.serve.realtime.response_options import ResponseOptions, response_options
from voxrill.runtime.serve.realtime.session_state import SessionState
from voxrill.runtime.serve.system_prompt import OPENING
from voxrill.runtime.talk.listener import Began, Ended, Signal, Typed, Utterance


class ResponseRequests:
    """Takes the events about responses.

    Args:
        state: of the session.
        hear: makes a turn of a sound's bytes.
    """

    def __init__(self, state: SessionState, hear: Callable[[bytes], Utterance]) -> None:
        self._state = state
        self._hear = hear

    def create(self, event: ResponseCreate) -> None:
        """Answer what waits, or what the client brings with it."""
        if self._state.settings.kind == "transcription":
            raise ApiError(
                400,
                'This session only writes down what is said. Set session.type to "realtime" for answers.',
                "transcription_session",
            )
        given = opened(event.response, "response")
        options = response_options(self._state.settings, given, self._state.service.model)
        self._check_options(options)
        if not options.in_conversation:
            self._respond_outside(options)
            return
        if self._state.answers.answering:
            if self._state.committed and not given:  # the turn that it committed is being answered
                self._state.committed = False
                return
            message = "An answer is being made. Wait for its response.done, or send response.cancel."
            raise ApiError(400, message, "conversation_already_has_active_response")
        settings, allowed = options.settings, self._state.allowed
        if (settings.tools, settings.tool_choice) != (self._state.settings.tools, self._state.settings.tool_choice):
            allowed = self._state.may_call(settings)
        waiting, self._state.waiting = self._state.waiting, []
        outputs, self._state.outputs = self._state.outputs, {}
        self._state.answers.player.all_played()  # the client heard all that it did not truncate
        self._state.answers.answering = True
        self._state.answers.asked += 1
        asked = AskedItems(tuple(told.item for told in waiting), options)
        if outputs and not waiting:
            self._state.post(lambda answers: answers.answer_outputs(outputs, asked))
            return
        if outputs:
            self._state.post(lambda answers: answers.remember_outputs(outputs))
        self._ask(joined(waiting) if waiting else self._opening(options), allowed, asked)

    def _ask(self, question: Told, allowed: AllowedCalls | None, asked: AskedItems) -> None:
        now = time.perf_counter()
        samples = question.samples
        said = Utterance(samples, 0, len(samples), now) if question.sounds else None
        self._state.signal(Began(anew=False))
        if said is not None and not question.text:
            signal: Signal = Ended(said, now, self._state.answers.floor.question())
        else:
            signal = Typed(question.text, now, said)
        self._state.post(lambda answers: answers.take(signal, allowed, asked))

    def _opening(self, options: ResponseOptions) -> Told:
        """The question where the client wants an answer, and nothing was said: the response's own instructions.

        A model with a closed vocabulary cannot follow instructions: it greets.
        """
        own = options.settings.instructions
        follows = own is not None and own != self._state.settings.instructions
        closed = self._state.service.model.parts.tokenizer.closed
        return Told("", "user", own if own is not None and follows and not closed else OPENING)

    def _check_options(self, options: ResponseOptions) -> None:
        instructions = options.settings.instructions
        if instructions is not None and instructions != self._state.settings.instructions:
            self._state.check_text(instructions, "response.instructions")

    def _respond_outside(self, options: ResponseOptions) -> None:
        if options.settings.tools != self._state.settings.tools:
            raise ApiError(400, "A response outside the conversation calls nothing.", "invalid_value", "response.tools")
        if self._state.answers.outside.full:
            message = "Too many responses outside the conversation are being made. Wait for one to end."
            raise ApiError(400, message, "conversation_already_has_active_response")
        known, asked = list[Told | str](), self._state.waiting
        if options.input is not None:
            known = [self._input(one) for one in options.input]
            check_waiting([one for one in known if isinstance(one, Told)])  # all of it is heard in one step
            asked = _last_asked(known)
            known = known[: len(known) - len(asked)]
        question = joined(asked) if asked else self._opening(options)
        self._state.answers.outside.asked += 1
        self._state.post(lambda answers: answers.answer_outside(options, known, question))

    def _input(self, item: Any) -> Told | str:
        """An item of a response's own input, or the name of an item of the conversation."""
        if not isinstance(item, MessageItem):
            self._state.items.get(item.id, "response.input")
            return next((told for told in self._state.waiting if told.item == item.id), str(item.id))
        told, _ = read_message(item, self._hear)
        self._state.service.check_length(told.text, "response.input")
        return told

    def cancel(self, response_id: str | None, event_id: str | None) -> None:
        """End the response that is being made, or the one of that id."""
        answers = self._state.answers
        own = response_id is None or (answers.response is not None and answers.response.response_id == response_id)
        if response_id is not None and not own:
            self._state.post(lambda answers: answers.cancel_outside(response_id, event_id))
            return
        heard = answers.floor.interrupt() if answers.answering else None
        if heard is None:
            raise ApiError(400, "No answer is being made.", "response_cancel_not_active")
        answers.reason = BY_CLIENT
        self._state.interrupt(heard)


def _last_asked(known: list[Told | str]) -> list[Told]:
    """The user's messages at the end of a response's own input: they are what is asked."""
    asked: list[Told] = []
    for one in reversed(known):
        if isinstance(one, str) or one.role != "user":
            break
        asked.insert(0, one)
    return asked
