"""What a client may ask, as typed structs. They check requests, and the OpenAPI document shows them.

In: JSON or form fields. Out: a struct, or a refusal that names the wrong field. OpenAI's fields that have no meaning
here are not listed, and ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from voxrill.runtime.serve.api_errors import ApiError, NoRoom
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.names import VoiceName
from voxrill.runtime.serve.sound_formats import FORMATS

SoundFormat = Literal["wav", "pcm", "flac", "mp3", "opus"]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Count = Annotated[int, Meta(ge=1)]

assert set(SoundFormat.__args__) == set(FORMATS)  # type: ignore[attr-defined]


class SpeechRequest(msgspec.Struct):
    """POST /v1/audio/speech."""

    input: str
    model: str | None = None
    voice: VoiceName = None
    response_format: SoundFormat = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    speed: Annotated[float, Meta(ge=1, le=1, description="Speech has one speed.")] = 1.0
    seed: Seed | None = None


class TranscriptionRequest(msgspec.Struct):
    """The fields beside the file of POST /v1/audio/transcriptions."""

    model: str | None = None
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    stream: bool = False
    temperature: Temperature | None = None
    seed: Seed | None = None


class InputAudio(msgspec.Struct):
    """A spoken part of a message: a file in base64. Its kind is known by its bytes, whatever the format says."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "aiff", "au", "caf", "w64", "m4a", "webm", "aac", "amr"]


class AudioPart(msgspec.Struct, tag_field="type", tag="input_audio"):
    """A spoken part of a user's message."""

    input_audio: InputAudio


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """A written part of a message."""

    text: str


class AudioReference(msgspec.Struct):
    """An earlier spoken answer, by the id it came with."""

    id: str


class SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    """The system prompt."""

    content: str | list[TextPart]


class DeveloperMessage(msgspec.Struct, tag_field="role", tag="developer"):
    """The system prompt, by its newer name."""

    content: str | list[TextPart]


class UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    """A question: written, or one sound and text."""

    content: str | list[TextPart | AudioPart]


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    """An earlier answer: its text, or the id of the spoken one."""

    content: str | list[TextPart] | None = None
    audio: AudioReference | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage


class AudioOptions(msgspec.Struct):
    """How a spoken answer is sent."""

    format: Literal["wav", "pcm16", "flac", "mp3", "opus"]
    voice: VoiceName = None


class StreamOptions(msgspec.Struct):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=256)]
    model: str | None = None
    modalities: Annotated[tuple[Literal["text", "audio"], ...], Meta(min_length=1, max_length=2)] = ("text",)
    audio: AudioOptions | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    temperature: Temperature | None = None
    seed: Seed | None = None
    tools: Annotated[list[Any], Meta(max_length=0, description="Tools are not supported.")] | None = None


Struct = TypeVar("Struct", bound=msgspec.Struct)


async def read_json(request: Request, kind: type[Struct]) -> Struct:
    """The body of a request as `kind`.

    Raises:
        ApiError: the content has another type, or is malformed.
    """
    _check_type(request, "application/json")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is malformed: {error}", "invalid_body") from None


async def read_form(request: Request, limits: Limits) -> tuple[TranscriptionRequest, BinaryIO]:
    """The fields and the file of a form. A file larger than `spool` lies on disk. The caller closes it.

    Raises:
        ApiError: the content has another type, or is malformed, or there is no room for the file.
    """
    _check_type(request, "multipart/form-data")
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=32)
    parser.spool_max_size = limits.spool
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, f"The form cannot be read: {error.message}", "invalid_body") from None
    except OSError:
        raise NoRoom from None
    try:
        return _fields(form)
    except ApiError:
        await form.close()
        raise


def _fields(form: FormData) -> tuple[TranscriptionRequest, BinaryIO]:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "The form has no file. Send the sound as the field file.", "missing_file", "file")
    # An empty field means the same as an absent one: forms and generated clients send all of their fields.
    fields = {name: value for name, value in form.items() if isinstance(value, str) and value.strip()}
    try:
        return msgspec.convert(fields, TranscriptionRequest, strict=False), file.file
    except msgspec.ValidationError as error:
        raise ApiError(400, f"The form is malformed: {error}", "invalid_body") from None


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise ApiError(415, f"The type of the content is {given or 'missing'}. Send {wanted}.", "wrong_content_type")
