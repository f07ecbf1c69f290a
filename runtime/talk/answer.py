"""An answer in the making. It can be cut off at the place up to which the user heard it.

In: a prepared conversation and a question. Out: events one by one, each with its sound; and a mark in the conversation
for every piece of sound that was not heard yet. The live loop and its replay both make answers here, so that they take
the same steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.context import ContextMark
from voxrill.runtime.engine.conversation import Conversation, Steps
from voxrill.runtime.engine.options import AnswerKeywords
from voxrill.runtime.events import AudioEvent, EndEvent, Event, FinishReason, StageEvent, TextEvent

_SMALL = 1 << 20
"""Bytes of a mark that is taken at each frame. A larger one (a model with sliding windows) is taken once a second."""

_FRAMES = 12
"""Frames between two such marks: about a second. To cut between them, the pieces after the first are told again."""


@dataclass(frozen=True)
class _Mark:
    """The conversation after the answer's first `samples` samples, when `text` characters had been written.

    It then had `pieces` pieces. context: the same place, or an earlier one.
    """

    samples: int
    text: int
    pieces: int
    context: ContextMark


class TalkAnswer:
    """One question's answer. `step` makes it; the attributes hold what there is so far.

    Args:
        conversation: prepared; nothing else may use it until the answer is over.
        audio: the spoken question (samples,) at 16 kHz; None if it was typed.
        text: the typed question.
        seed: the same seed gives the same answer.
        max_new_tokens: limit on text tokens and frames together; None for the task's own.
    """

    def __init__(
        self,
        conversation: Conversation,
        audio: Floats | None,
        text: str | None,
        seed: int,
        max_new_tokens: int | None = None,
    ) -> None:
        self._conversation = conversation
        how: AnswerKeywords = {"seed": seed, "max_new_tokens": max_new_tokens}
        if not conversation.hears:
            self._steps = conversation.steps(audio=audio, text=text, trim=False, **how)
        elif audio is None:
            conversation.unhear()
            self._steps = conversation.steps(text=text, **how)
        else:
            self._steps = self._rest_heard(audio, text, how)
        self._marks: deque[_Mark] = deque()
        self.text = ""
        self.tokens: list[int] = []
        self.codes: list[list[int]] = []
        self.sound: list[Floats] = []
        self.samples = 0
        self.finish_reason: FinishReason | None = None

    def _rest_heard(self, audio: Floats, text: str | None, how: AnswerKeywords) -> Steps:
        """The same steps whether some of the sound was heard before or not, so that a replay makes the same bits."""
        self._conversation.hear_rest(audio)
        yield from self._conversation.steps(text=text, **how)

    @property
    def made(self) -> int:
        """Number of text tokens and frames so far."""
        return len(self.tokens) + len(self.codes)

    def step(self) -> Event | StageEvent:
        """Make the next part.

        Raises:
            ContextFull: the question does not fit. The conversation is as if it had not been asked.
            AudioFileError: it is longer than a fixed-shape encoder takes. The same holds.
        """
        event = next(self._steps)
        if isinstance(event, TextEvent):
            self.tokens.append(event.token)
            self.text += event.text
        elif isinstance(event, AudioEvent):
            self._take(event)
        elif isinstance(event, EndEvent):
            self.finish_reason = event.finish_reason
        elif event.stage == "prefilled":
            self._mark()
        return event

    def _take(self, event: AudioEvent) -> None:
        self.sound.append(event.samples)
        self.samples += len(event.samples)
        if event.codes is not None:
            self.codes.append([int(code) for code in event.codes])
            self._mark()

    def _mark(self) -> None:
        last = self._marks[-1].context if self._marks else None
        if last is None or last.nbytes <= _SMALL or len(self.codes) % _FRAMES == 0:
            last = self._conversation.mark()
        self._marks.append(_Mark(self.samples, len(self.text), len(self._conversation.context.pieces), last))

    def heard(self, samples: int) -> None:
        """The first `samples` samples were played, so that the answer will not be cut before them."""
        # The last mark at or before `samples` stays: the answer may still be cut there.
        while len(self._marks) > 1 and self._marks[1].samples <= samples:
            self._marks.popleft()

    def cut(self, samples: int) -> None:
        """End the answer, text and sound, after the last frame that lies wholly in its first `samples` samples.

        A realtime client may have heard less than `heard` was told. The answer then ends at the first mark.
        """
        while not self._marks:  # the question is not prefilled yet, but was asked: it stays, with an empty answer
            self.step()
        heard = [mark for mark in self._marks if mark.samples <= samples]
        mark = max(heard, key=lambda mark: mark.samples, default=self._marks[0])
        self._conversation.cut(mark.context, mark.pieces)
        self.text = self.text[: mark.text]

    def waveform(self) -> Floats:
        """All sound so far (samples,)."""
        return np.concatenate([np.zeros(0, np.float32), *self.sound])
