"""POST /v1/audio/transcriptions: sound to text, segment by segment."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from starlette.responses import Response, StreamingResponse

from voxrill.runtime.apps.stitching import Stitcher
from voxrill.runtime.apps.subtitles import FORMS
from voxrill.runtime.apps.transcript import SegmentEvent, confidence_of, joined_text
from voxrill.runtime.apps.transcription import ModelRecogniser, longest_segment
from voxrill.runtime.audio.segments import Span
from voxrill.runtime.bundle.manifest import Tasks
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.languages import language_code, languages, prompt_in
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.background import Background
from voxrill.runtime.serve.job import PAUSE, Pause
from voxrill.runtime.serve.languages import is_language, language_name
from voxrill.runtime.serve.requests import TranscriptionRequest, read_form
from voxrill.runtime.serve.service import EVENT_STREAM, Exchange, as_json, or_error, sse
from voxrill.runtime.serve.uploads import heard

Pieces = AsyncIterator[str | SegmentEvent]
"""Pieces of text as they become certain, and each segment after its pieces."""

_CHUNKING = {"auto", "server_vad", "type=server_vad", '{"type":"server_vad"}'}
"""Ways to ask for what the server does anyway: it cuts sound at pauses."""


async def transcriptions(exchange: Exchange) -> Response:
    """Transcribe a file."""
    service = exchange.service
    asked, file = await read_form(exchange.request, service.limits, exchange.warn)
    sound: Background[float | Span] = exchange.in_background(
        heard(file, service.limits, longest_segment(service.model), "file"), file
    )
    service.check_model(asked.model)
    tasks = service.model.manifest.tasks
    language = _check(asked, tasks)
    system = prompt_in(tasks, tasks.transcribe, language) if asked.language else None
    if asked.stream and asked.response_format not in ("json", "text"):
        raise ApiError(
            400, "This format cannot be streamed. Ask for json or text.", "invalid_format", "response_format"
        )
    seconds = await exchange.unless_left(sound.first())
    assert isinstance(seconds, float)
    exchange.record.heard = seconds
    pieces: Pieces = exchange.run(
        lambda: transcribe_spans(service.model, sound.rest(), asked.temperature, asked.seed, system)
    )
    if asked.stream:
        return StreamingResponse(or_error(exchange, _stream(pieces)), media_type=EVENT_STREAM)
    segments = await exchange.unless_left(_segments(pieces))
    return _response(segments, seconds, asked.response_format, language_name(language, tasks.languages))


async def translations(exchange: Exchange) -> Response:
    """Refuse a file that was to be translated into English."""
    asked, file = await read_form(exchange.request, exchange.service.limits, exchange.warn)
    file.close()
    exchange.service.check_model(asked.model)
    name = language_name(exchange.service.model.manifest.tasks.language).capitalize()
    raise ApiError(
        400,
        f"This model hears {name} and writes it in {name}: it translates nothing into English. "
        "Send the sound to /v1/audio/transcriptions.",
        "translation_not_supported",
    )


def _check(asked: TranscriptionRequest, tasks: Tasks) -> str:
    """The code of the language that is heard.

    Raises:
        ApiError: the model cannot do what is asked.
    """
    for name in [*([asked.language] if asked.language else []), *asked.languages]:
        if _code(tasks, name) is None:
            known = ", ".join(languages(tasks))
            raise _unsupported(
                f"This model knows no language {name[:40]!r}. Send {known}, or leave it out.", "language"
            )
    times = asked.timestamp_granularities
    if set(times) - {"segment"}:
        raise _unsupported("This model gives times of segments only, not of words. Send segment.", _TIMES)
    if times and asked.response_format != "verbose_json":
        raise _unsupported("Only verbose_json holds times. Ask for it, or leave the times out.", _TIMES)
    if {"".join(entry.split()) for entry in asked.chunking_strategy} - _CHUNKING:
        raise _unsupported("The server cuts sound at pauses, and takes no settings for it. Send auto.", _CHUNKS)
    return (_code(tasks, asked.language) if asked.language else None) or tasks.language


def _code(tasks: Tasks, name: str) -> str | None:
    return tasks.language if is_language(tasks.language, name) else language_code(tasks, name)


_UNSURE = 1e-6
"""The confidence of a segment whose text was cut short, as its `avg_logprob` counts it."""

_TIMES, _CHUNKS = "timestamp_granularities", "chunking_strategy"


def _unsupported(message: str, param: str) -> ApiError:
    return ApiError(400, message, "unsupported_value", param)


def transcribe_spans(
    model: Engine,
    found: Iterable[Span | Pause | float],
    temperature: float | None = None,
    seed: int | None = None,
    system: str | None = None,
) -> Iterator[str | SegmentEvent | Pause]:
    """The pieces of text as they become certain, and each segment after its pieces; `PAUSE` where `found` has it."""
    recogniser = ModelRecogniser(model, system, temperature=temperature, seed=seed)
    stitcher, between = Stitcher(), ""
    for span in found:
        if not isinstance(span, Span):
            yield PAUSE
            continue
        pieces, text, words = recogniser.pieces(span.samples), "", None
        while words is None:
            try:
                piece = next(pieces)
            except StopIteration as over:
                words = over.value
            else:
                yield between * (not text) + piece if piece and not span.joined else ""
                text += piece
        segment = stitcher.add(span, text.strip(), words.loop, words.confidence)
        if segment is not None:
            if span.joined:  # its first words may have been said already, so all of them waited for the last
                yield between + segment.text
            between = " "
            yield segment


def sure_pieces(steps: Iterable[str | SegmentEvent | Pause], least: float) -> Iterator[str | SegmentEvent | Pause]:
    """The pieces of `transcribe_spans` without the segments whose confidence is below `least`.

    Each segment's pieces wait until its confidence is known, if `least` is above 0.
    """
    waiting: list[str] = []
    for step in steps:
        if isinstance(step, SegmentEvent):
            if step.confidence >= least:
                yield from waiting
                yield step
            waiting = []
        elif isinstance(step, str) and least > 0:
            waiting.append(step)
            yield PAUSE
        else:
            yield step


async def _segments(pieces: Pieces) -> list[SegmentEvent]:
    return [piece async for piece in pieces if isinstance(piece, SegmentEvent)]


async def _stream(pieces: Pieces) -> AsyncIterator[bytes]:
    text, segments = "", []
    async for piece in pieces:
        if isinstance(piece, SegmentEvent):
            segments.append(piece)
        elif piece:
            text += piece
            yield sse({"type": "transcript.text.delta", "delta": piece})
    yield sse({"type": "transcript.text.done", "text": text, "confidence": confidence_of(segments)})


def _response(segments: list[SegmentEvent], seconds: float, form: str, language: str) -> Response:
    text = joined_text(segments)
    if form == "json":
        return as_json({"text": text, "confidence": confidence_of(segments)})
    if form == "verbose_json":
        return as_json(_verbose(segments, text, seconds) | {"language": language})
    body = f"{text}\n" if form == "text" else "".join(FORMS[form].render(segments))
    return Response(body, media_type="text/vtt" if form == "vtt" else "text/plain")


def _verbose(segments: list[SegmentEvent], text: str, seconds: float) -> dict[str, Any]:
    return {
        "task": "transcribe",
        "duration": seconds,
        "text": text,
        "confidence": confidence_of(segments),
        "segments": [
            {
                "id": segment.number - 1,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "confidence": segment.confidence,
                "avg_logprob": round(math.log(segment.confidence or _UNSURE), 4),
            }
            for segment in segments
        ],
    }
