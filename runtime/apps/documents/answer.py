"""An answer from documents, as it is made: checked text, then the same text spoken.

In: a conversation that knows the sources, and the question. Out: pieces of text and sound, and the citations. A spoken
answer is written first. Then the same model reads it out, without its citations. Speech cannot be taken back: a model
that speaks while it thinks could cite a source that does not exist.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voxrill.runtime.apps.documents.citations import Citation, CitationFilter
from voxrill.runtime.apps.documents.prompt import QuotedSource
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.options import AnswerKeywords
from voxrill.runtime.events import AudioEvent, EndEvent, FinishReason, TextEvent

if TYPE_CHECKING:
    from voxrill.runtime.audio.audio_file import Waveform
    from voxrill.runtime.engine.engine import Engine

NOTHING_FOUND = "The documents say nothing about that."
"""The answer if no passage is relevant; the model is not asked."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class DocumentQuestion:
    """A question: `words` to search by (typed, or the transcript), and the `text` and `waveform` that the model gets.

    seconds: how long its transcript took.
    """

    words: str
    text: str | None
    waveform: Waveform | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class AnswerText:
    """A piece of an answer's text, its citations checked; `at` in seconds since the answer began."""

    text: str
    at: float


@dataclass
class Answer:
    """Iterate it for `AnswerText` and `AudioEvent`s as they are made; afterwards its fields are complete.

    The answer is made once. A second iteration gives nothing.

    question: the words of the search; sources: the passages that the model got, number 1 first; left_out: relevant
    passages that did not fit into its context; found: whether a passage was relevant; text: the whole text; citations:
    the citations in the text, each once; removed: citations of sources that do not exist, as the model wrote them;
    finish_reason: see `voxrill.runtime.events`; first_text: seconds until the text began.
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
        """Whether a passage was relevant."""
        return bool(self.sources)

    def __iter__(self) -> Iterator[AnswerText | AudioEvent]:
        yield from self._steps

    def finished(self) -> Answer:
        """This answer, complete; makes what is still missing."""
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
    """An answer in `conversation`, whose system prompt holds the sources.

    Args:
        model: speaks the answer.
        question: the question.
        sources: the passages that the model got.
        left_out: the passages that did not fit.
        conversation: answers; None for the answer `NOTHING_FOUND`.
        voice: as in `Model.speak`.
        aloud: whether the answer is spoken, too.
        options: see `AnswerOptions`.

    Raises:
        UsageError: the voice is unknown, or the question cannot be asked.
    """
    if aloud:
        model.speak(NOTHING_FOUND, voice=voice)  # an unknown voice is refused before the model works
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
    for sentence in _sentences(answer) if aloud else ():  # only now: the text is complete and its citations are checked
        for event in model.speak(sentence, voice=voice, **_spoken(options)):
            answer.audio_seconds += len(event.samples) / event.sample_rate
            yield event
    answer.seconds = time.perf_counter() - started


def _spoken(options: AnswerKeywords) -> AnswerKeywords:
    """The options of an answer that hold for its sound: the text that is said is given."""
    kept: AnswerKeywords = {}
    for name in ("seed", "audio_temperature", "audio_top_k"):
        if name in options:
            kept[name] = options[name]
    return kept


def _written(
    answer: Answer, conversation: Conversation | None, question: DocumentQuestion, options: AnswerKeywords
) -> Iterator[str]:
    """The answer's text in pieces; all its citations exist."""
    if conversation is None:
        yield NOTHING_FOUND
        return
    checking = CitationFilter([source.citation for source in answer.sources])
    answer.citations, answer.removed = checking.citations, checking.removed
    for event in conversation.ask(
        audio=question.waveform, text=question.text, output="text", sample_rate=SAMPLE_RATE, trim=False, **options
    ):
        if isinstance(event, EndEvent):
            answer.finish_reason = event.finish_reason
        elif isinstance(event, TextEvent) and (piece := checking.push(event.text)):
            yield piece
    if rest := checking.flush():
        yield rest


def _sentences(answer: Answer) -> list[str]:
    """What is said aloud, sentence by sentence: one speech has a limit. Citations are only shown, not said."""
    text = answer.text
    for citation in answer.citations:
        text = re.sub(rf"(?<!\s)\s*+\[{re.escape(str(citation))}\]", "", text)
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if any(map(str.isalnum, sentence))]
