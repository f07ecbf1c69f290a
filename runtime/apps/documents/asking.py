"""Asking documents: the question to words, words to passages, passages into the prompt, the prompt to an answer.

In: a loaded model, a question (typed, spoken or both), and an index or a snapshot. Out: an `Answer`. A spoken question
is transcribed first, because the index is searched by words. Then the model gets the sound itself: it hears more than
the transcript says, and a word that was misheard for the search may be heard correctly now.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from voxrill.runtime.apps.documents.answer import Answer, DocumentQuestion, begin_answer
from voxrill.runtime.apps.documents.embeddings import Embedder
from voxrill.runtime.apps.documents.index import BEST, Index
from voxrill.runtime.apps.documents.prompt import QuotedSource, document_prompt, fitted, source
from voxrill.runtime.apps.transcription import transcribe
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.sound_source import AudioSource
from voxrill.runtime.bundle.manifest import TOKENIZER_FILE
from voxrill.runtime.engine.options import AnswerKeywords, answer_options
from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.upkeep.snapshot import open_snapshot, read_attached, save_snapshot

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

ANSWER_PART = 4
"""An answer of no stated length gets at least 1 / ANSWER_PART of the context."""


def open_index(model: Engine, folder: Path, place: Path | None = None, embeddings: Path | None = None) -> Index:
    """The index of a folder, in passages that fit this model's tokenizer; `update` reads the documents.

    Raises:
        UsageError: there is no such folder.
        DataError: `embeddings` is no sentence model, or the index's file no index.
    """
    embedder = None if embeddings is None else Embedder(embeddings, model.threads)
    tokenizer = model.manifest.files[TOKENIZER_FILE].sha256
    return Index(folder, model.parts.tokenizer.count, tokenizer, place, embedder)


def heard(
    model: Engine,
    text: str | None,
    audio: AudioSource | None,
    trim: bool | None = None,
    sample_rate: int | None = None,
) -> DocumentQuestion:
    """A question as it was typed, spoken or both, with the words to search by.

    Of its sound the model hears only the speech, or all of it (trim); None for what suits the model.

    Raises:
        UsageError: there is none.
        AudioFileError: the sound cannot be read.
    """
    _check_asked(text, audio)
    if audio is None:
        return DocumentQuestion(text or "", text)
    started, waveform = time.perf_counter(), model.parts.waveform(audio, trim, sample_rate)
    transcript = transcribe(model, waveform, SAMPLE_RATE, trim=False).text.strip()
    words = f"{transcript} {text}" if text else transcript
    return DocumentQuestion(words, text, waveform, time.perf_counter() - started)


def ask(
    model: Engine,
    question: DocumentQuestion,
    index: Index,
    best: int | None = None,
    *,
    voice: str | None = None,
    aloud: bool = False,
    **options: Unpack[AnswerKeywords],
) -> Answer:
    """An answer from the passages of an index, updated or not.

    Args:
        model: who answers.
        question: what is asked.
        index: where passages are searched.
        best: passages to give at most; None for `BEST`.
        voice: as in `Model.speak`.
        aloud: whether the answer is spoken too.
        options: see `AnswerOptions`.

    Raises:
        UsageError: the model cannot read documents.
        ContextFull: not even one passage fits.
    """
    answer_options("ask", options)
    check_reader(model)
    sources = [source(found) for found in index.search(question.words, best or BEST)]
    if not sources:
        return begin_answer(model, question, (), (), None, voice, aloud, options)
    wanted = options.get("max_new_tokens")
    prompt = fitted(sources, lambda system: prompt_positions(model, system, question) <= _room(model, wanted))
    conversation = model.conversation(system=prompt.system, output="text")
    return begin_answer(model, question, prompt.sources, prompt.left_out, conversation, voice, aloud, options)


def ask_snapshot(
    model: Engine,
    text: str | None,
    audio: AudioSource | None,
    snapshot: Path,
    *,
    trim: bool | None = None,
    voice: str | None = None,
    aloud: bool = False,
    **options: Unpack[AnswerKeywords],
) -> Answer:
    """An answer from the document of a snapshot, which the model has read already: nothing is searched.

    Raises:
        UsageError: there is no question.
        DataError: the snapshot is none of a document for asking.
    """
    answer_options("ask_snapshot", options)
    _check_asked(text, audio)
    conversation = open_snapshot(model, snapshot, "text")
    sources = read_attached(snapshot, tuple[QuotedSource, ...])
    if not sources:
        raise DataError(f"{snapshot} was not made for asking", "Make it with: voxrill snapshot --document FILE --ask")
    question = DocumentQuestion(text or "", text, None if audio is None else model.parts.waveform(audio, trim))
    return begin_answer(model, question, sources, (), conversation, voice, aloud, options)


def snapshot_document(model: Engine, document: Path, path: Path) -> int:
    """Have a document read by the model once, and keep its state for `ask_snapshot`; the positions it took.

    Raises:
        DataError: it cannot be read.
        UsageError: the model cannot read documents.
        ContextFull: it does not fit.
    """
    check_reader(model)
    prompt = document_prompt(document, model.parts.tokenizer.count)
    return save_snapshot(model, prompt.system, path, prompt.sources)


def check_reader(model: Engine) -> None:
    """Raise UsageError for a model that knows a list of words only: it cannot be told what documents say."""
    if model.parts.tokenizer.closed:
        raise UsageError(
            f"{model.manifest.name} knows too few words to read documents",
            "Name another bundle (--bundle), or have the passages themselves shown (--quote)",
        )


def _check_asked(text: str | None, audio: AudioSource | None) -> None:
    if audio is None and not (text and text.strip()):
        raise UsageError("there is no question", "Give a text, or --audio FILE")


def prompt_positions(model: Engine, system: str, question: DocumentQuestion) -> int:
    """Positions of a prompt up to where the answer begins."""
    context = model.conversation(system=system, output="text").context
    with context.turn("user"):
        if question.text is not None:
            context.add_text(question.text)
    context.open_turn("assistant")
    if question.waveform is None:
        return context.positions
    # The encoder is not run for this: its number of positions follows from the length, and -(-a // b) rounds up.
    spec = model.manifest.model
    return context.positions - (-spec.log_mel.frames(len(question.waveform)) // spec.encoder.subsampling)


def _room(model: Engine, max_new_tokens: int | None) -> int:
    """Positions that a prompt may take, the answer kept free."""
    whole = model.context_positions
    return whole - (max_new_tokens or min(model.manifest.tasks.write.max_new_tokens, whole // ANSWER_PART))
