"""POST /v1/audio/transcriptions: sound to text, segment by segment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

from starlette.responses import Response, StreamingResponse

from voxrill.runtime.audio_file import SAMPLE_RATE, Waveform
from voxrill.runtime.conversation import Conversation
from voxrill.runtime.events import TextEvent
from voxrill.runtime.manifest import Sampling
from voxrill.runtime.model import Model
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.requests import TranscriptionRequest, read_form
from voxrill.runtime.serve.segments import Segment, segments
from voxrill.runtime.serve.service import EVENT_STREAM, Visit, as_json, sse
from voxrill.runtime.serve.uploads import decode

_LANGUAGE = "english"
"""What the published models hear."""


@dataclass(frozen=True)
class Line:
    """A segment's words, and the seconds at which it begins and ends."""

    start: float
    end: float
    text: str


async def transcriptions(visit: Visit) -> Response:
    """Write down what is said in a file."""
    service = visit.service
    asked, file = await read_form(visit.request, service.limits)
    service.check_model(asked.model)
    if asked.stream and asked.response_format not in ("json", "text"):
        raise ApiError(400, "Only json and text can be streamed.", "invalid_format", "response_format")
    waveform = await service.hear(partial(decode, file, service.limits.audio, "file"))
    spoken = await service.hear(lambda: list(segments(waveform)))
    pieces = visit.work(lambda: _transcribe(service.model, spoken, asked))
    if asked.stream:
        return StreamingResponse(_stream(pieces), media_type=EVENT_STREAM)
    lines = await visit.wanted(_lines(pieces))
    return _response(lines, waveform, asked.response_format)


def _transcribe(model: Model, spoken: list[Segment], asked: TranscriptionRequest) -> Iterator[str | Line]:
    """Pieces of text as they become certain, and every segment's line after them."""
    conversation = Conversation(model, model.manifest.tasks.transcribe)
    conversation.take_in_prompt()
    sampling = None if asked.temperature is None else Sampling(asked.temperature)
    between = ""
    for segment in spoken:
        text = ""
        for event in conversation.steps(audio=segment.samples, output="text", text_sampling=sampling, seed=asked.seed):
            piece = event.text if isinstance(event, TextEvent) else ""
            yield between + piece if piece else ""
            between = "" if piece else between
            text += piece
        conversation.retract()
        if text.strip():
            yield Line(segment.start, segment.end, text.strip())
            between = " "


async def _lines(pieces: AsyncIterator[str | Line]) -> list[Line]:
    return [piece async for piece in pieces if isinstance(piece, Line)]


async def _stream(pieces: AsyncIterator[str | Line]) -> AsyncIterator[bytes]:
    text = ""
    async for piece in pieces:
        if isinstance(piece, str) and piece:
            text += piece
            yield sse({"type": "transcript.text.delta", "delta": piece})
    yield sse({"type": "transcript.text.done", "text": text})


def _response(lines: list[Line], waveform: Waveform, form: str) -> Response:
    text = " ".join(line.text for line in lines)
    if form == "json":
        return as_json({"text": text})
    if form == "verbose_json":
        return as_json(_verbose(lines, text, len(waveform) / SAMPLE_RATE))
    body = {"text": f"{text}\n", "srt": _srt(lines), "vtt": _vtt(lines)}[form]
    return Response(body, media_type="text/vtt" if form == "vtt" else "text/plain")


def _verbose(lines: list[Line], text: str, seconds: float) -> dict[str, Any]:
    return {
        "task": "transcribe",
        "language": _LANGUAGE,
        "duration": seconds,
        "text": text,
        "segments": [
            {"id": number, "start": line.start, "end": line.end, "text": line.text} for number, line in enumerate(lines)
        ],
    }


def _srt(lines: list[Line]) -> str:
    return "".join(
        f"{number}\n{_clock(line.start, ',')} --> {_clock(line.end, ',')}\n{line.text}\n\n"
        for number, line in enumerate(lines, 1)
    )


def _vtt(lines: list[Line]) -> str:
    cues = (
        f"{_clock(line.start, '.')} --> {_clock(line.end, '.')}\n{escape(line.text, quote=False)}\n\n" for line in lines
    )
    return "WEBVTT\n\n" + "".join(cues)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
