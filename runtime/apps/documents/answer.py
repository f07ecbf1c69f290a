"""An answer from documents, as it is made: checked text, then the same text spoken.

In: a conversation that knows the sources, and the question. Out: pieces of text and sound, and what was cited. A spoken
answer is written first and then read out by the same model, without its citations: what has been said aloud cannot be
taken back, so a model that speaks while it thinks could cite what does not exist.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voxrill.runtime.apps.documents.citations import Citation, CitationFilter
from voxrill.runtime.apps.documents.prompt import QuotedSource
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.options import AnswerKeywords
from voxrill.runtime.events import AudioEvent, EndEvent, FinishReason, TextEvent

if TYPE_CHECKING:
    from voxrill.runtime.audio.audio_file import Waveform
    from voxrill.runtime.engine.engine import Engine

NOTHING_FOUND = "The documents say nothing about that."
"""What is answered where no passage is relevant; the model is not asked."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class DocumentQuestion:
    """What is asked: `words` to search by (typed, or the transcript), and what the model is told of it.

    seconds: what its transcript took.
    """

    words: str
    text: str | None
    waveform: Waveform | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class AnswerText:
    """A piece of an answer's text, its citations checked; `at` in seconds since the answer was begun."""

    text: str
    at: float


@dataclass
class Answer:
    """Iterate it for `AnswerText` and `AudioEvent`s as they are made; afterwards its fields are whole.

    It is made once; iterating it again gives nothing new.

    question: the words that were searched by; sources: the passages the model was given, number 1 first; left_out:
    passages that its context had no room for; found: whether there was any; text: all of it; citations: those in the
    text, each once; removed: what the model cited that does not exist, as it wrote it; finish_reason: see
    `voxrill.runtime.events`; first_text: seconds until text began.
    """

    question: str
    sources: tuple[QuotedSource, ...]
    left_out: tuple[QuotedSource, ...] = ()
    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    audio_seconds: float = 0.0
    first_text: float | None = None
    seconds: float = 0.0
    _steps: Iterator[AnswerText | AudioEvent] = field(default_factory=lambda: iter(()), repr=False)

    @property
    def found(self) -> bool:
        """Whether there was any relevant passage."""
        return bool(self.sources)

    def __iter__(self) -> Iterator[AnswerText | AudioEvent]:
        yield from self._steps

    def finished(self) -> Answer:
        """This answer, whole; makes what is still missing."""
        for _ in self:
            pass
        return self


def begin_answer(
    model: Engine,
    question: DocumentQuestion,
    sources: tuple[QuotedSource, ...],
    left_out: tuple[QuotedSource, ...],
    conversation: Conversation | None,
    voice: str | None,
    aloud: bool,
    options: AnswerKeywords,
) -> Answer:
    """An answer of `conversation`, which was told of the sources; without one it is `NOTHING_FOUND`.

    Args:
        model: who speaks it.
        question: what is asked.
        sources: what the model was given.
        left_out: what it was not given for lack of room.
        conversation: who answers.
        voice: as in `Model.speak`.
        aloud: whether it is spoken too.
        options: see `AnswerOptions`.

    Raises:
        UsageError: the voice is unknown, or the question cannot be asked.
    """
    if aloud:
        model.speak(NOTHING_FOUND, voice=voice)  # what is wrong with the voice is said before anything is computed
    answer = Answer(question.words, sources, left_out)
    answer._steps = _made(answer, _written(answer, conversation, question, options), model, voice, aloud, options)
    return answer


def _made(
    answer: Answer,
    written: Iterator[str],
    model: Engine,
    voice: str | None,
    aloud: bool,
    options: AnswerKeywords,
) -> Iterator[AnswerText | AudioEvent]:
    started = time.perf_counter()
    for piece in written:
        at = time.perf_counter() - started
        answer.first_text = at if answer.first_text is None else answer.first_text
        answer.text += piece
        yield AnswerText(piece, at)
    for sentence in _sentences(answer) if aloud else ():
        seed, drawn = options.get("seed"), options.get("audio_sampling")
        for event in model.speak(sentence, voice=voice, seed=seed, audio_sampling=drawn):
            answer.audio_seconds += len(event.samples) / event.sample_rate
            yield event
    answer.seconds = time.perf_counter() - started


def _written(
    answer: Answer, conversation: Conversation | None, question: DocumentQuestion, options: AnswerKeywords
) -> Iterator[str]:
    """The answer's text in pieces, with no citation but those that exist."""
    if conversation is None:
        yield NOTHING_FOUND
        return
    checking = CitationFilter([source.citation for source in answer.sources])
    answer.citations, answer.removed = checking.citations, checking.removed
    for event in conversation.ask(audio=question.waveform, text=question.text, output="text", trim=False, **options):
        if isinstance(event, EndEvent):
            answer.finish_reason = event.finish_reason
        elif isinstance(event, TextEvent) and (piece := checking.push(event.text)):
            yield piece
    if rest := checking.flush():
        yield rest


def _sentences(answer: Answer) -> list[str]:
    """What is said aloud: each sentence by itself, since one speech has a limit, and citations are for the eye."""
    text = answer.text
    for citation in answer.citations:
        text = re.sub(rf"(?<!\s)\s*+\[{re.escape(str(citation))}\]", "", text)
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if any(map(str.isalnum, sentence))]
