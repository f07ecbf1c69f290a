"""What a client may ask, as typed structs. They check requests, and the OpenAPI document shows them.

In: JSON or form fields. Out: a struct, or a refusal that names the wrong field. A field that may be left out may be
null. OpenAI's other fields are in `fields`. A field that nobody knows is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, BinaryIO, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Meta
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from voxrill.runtime.apps.functions import Function, Name
from voxrill.runtime.audio.tempo import FASTEST, SLOWEST
from voxrill.runtime.malformed import explained
from voxrill.runtime.serve.api_errors import ApiError, NoRoom
from voxrill.runtime.serve.fields import EndpointName, check_undone, undone
from voxrill.runtime.serve.limits import TOOL_BYTES, Limits
from voxrill.runtime.serve.names import VoiceName
from voxrill.runtime.serve.sound_formats import FORMATS

SoundFormat = Literal["wav", "pcm", "flac", "mp3", "opus", "aac"]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Count = Annotated[int, Meta(ge=1)]
Stop = Annotated[str, Meta(min_length=1, max_length=256)]

assert set(SoundFormat.__args__) == set(FORMATS)  # type: ignore[attr-defined]


class SpeechRequest(msgspec.Struct):
    """POST /v1/audio/speech."""

    input: str
    model: str | None = None
    voice: VoiceName = None
    instructions: str | None = None
    response_format: SoundFormat | None = None
    stream_format: Literal["audio", "sse"] | None = None
    speed: Annotated[float, Meta(ge=SLOWEST, le=FASTEST, description="The pitch stays as it is.")] | None = None
    seed: Seed | None = None


class TranscriptionRequest(msgspec.Struct):
    """The fields beside the file of POST /v1/audio/transcriptions."""

    model: str | None = None
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    stream: bool = False
    temperature: Temperature | None = None
    seed: Seed | None = None
    language: str | None = None
    languages: list[str] = []
    timestamp_granularities: list[str] = []
    chunking_strategy: list[str] = []


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


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    """An earlier answer that was a refusal."""

    refusal: str

    @property
    def text(self) -> str:
        """Its words."""
        return self.refusal


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


class CalledFunction(msgspec.Struct):
    """A function that was called, and its arguments as JSON."""

    name: str
    arguments: str = ""


class EarlierCall(msgspec.Struct):
    """A call that an earlier answer made."""

    id: str
    function: CalledFunction


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    """An earlier answer: its text, the id of the spoken one, or the calls that it made."""

    content: str | list[TextPart | RefusalPart] | None = None
    audio: AudioReference | None = None
    tool_calls: list[EarlierCall] | None = None


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    """The output of a call."""

    content: str | list[TextPart]
    tool_call_id: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionTool(msgspec.Struct, tag_field="type", tag="function"):
    """A function that may be called."""

    function: Function


class FunctionName(msgspec.Struct):
    """A function's name."""

    name: str


class NamedTool(msgspec.Struct, tag_field="type", tag="function"):
    """A tool by its function's name."""

    function: FunctionName


class FunctionChoice(FunctionName, tag_field="type", tag="function"):
    """The function that must be called."""


class ToolSubset(msgspec.Struct):
    """Some of the tools, one of which may or must be called."""

    tools: list[NamedTool]
    mode: Literal["auto", "required"] = "auto"


class SubsetChoice(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    """That only some of the tools may be called."""

    allowed_tools: ToolSubset


class TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """An answer in words."""


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    """Some JSON."""


class NamedSchema(msgspec.Struct):
    """A schema of JSON, and its name."""

    name: Name
    schema: dict[str, Any] = {}


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON that fits a schema."""

    json_schema: NamedSchema


class AudioOptions(msgspec.Struct):
    """How a spoken answer is sent."""

    format: Literal["wav", "pcm16", "flac", "mp3", "opus", "aac"]
    voice: VoiceName = None


class StreamOptions(msgspec.Struct):
    """What a stream tells besides the answer."""

    include_usage: bool | None = None


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
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=4)] = []
    tools: list[FunctionTool] = []
    tool_choice: Literal["auto", "none", "required"] | NamedTool | SubsetChoice = "auto"
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat = TextFormat()


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    """A written part of an item."""

    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A written part of an earlier answer."""

    text: str


class ResponseItem(msgspec.Struct):
    """A message, a call that an earlier answer made, or the output of one. Its type says which fields it has."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] = "user"
    content: str | list[InputText | OutputText | RefusalPart | AudioPart] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[InputText] = ""


class ResponseTool(Function, frozen=True, tag_field="type", tag="function"):
    """A function that may be called."""


class ResponseSchema(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON that fits a schema."""

    name: Name
    schema: dict[str, Any] = {}


class ResponseText(msgspec.Struct, frozen=True):
    """What the text of an answer may be."""

    format: TextFormat | JsonObjectFormat | ResponseSchema = TextFormat()


class ResponseRequest(msgspec.Struct):
    """POST /v1/responses."""

    input: str | Annotated[list[ResponseItem], Meta(min_length=1, max_length=256)]
    model: str | None = None
    instructions: str = ""
    stream: bool = False
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    tools: list[ResponseTool] = []
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice = "auto"
    text: ResponseText = ResponseText()


Struct = TypeVar("Struct", bound=msgspec.Struct)


Warn = Callable[[str], None]
"""Takes a sentence about a hint that is not followed."""


async def read_json(request: Request, kind: type[Struct], warn: Warn) -> Struct:
    """The body of a request as `kind`.

    Raises:
        ApiError: the content has another type, or is malformed.
    """
    _check_type(request, "application/json")
    wire = _wire(kind, msgspec.Raw)
    try:
        return _read(kind, msgspec.json.decode(await request.body(), type=wire), warn)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, wire) from None


async def read_form(request: Request, limits: Limits, warn: Warn) -> tuple[TranscriptionRequest, BinaryIO]:
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
        return _read_form(form, warn)
    except ApiError:
        await form.close()
        raise


def _read_form(form: FormData, warn: Warn) -> tuple[TranscriptionRequest, BinaryIO]:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "The form has no file. Send the sound as the field file.", "missing_file", "file")
    wire = _wire(TranscriptionRequest, Any)
    try:
        return _read(TranscriptionRequest, msgspec.convert(_fields(form), wire, strict=False), warn), file.file
    except msgspec.ValidationError as error:
        raise _malformed(error, wire) from None


def _fields(form: FormData) -> dict[str, str | list[str]]:
    """A form's texts by name. `name[]` is an entry of a list, and `name[key]` of an object.

    An empty field means the same as an absent one: forms and generated clients send all of their fields.
    """
    found: dict[str, str | list[str]] = {}
    for given, value in form.multi_items():
        name, bracket, inner = given.partition("[")
        if not isinstance(value, str) or not value.strip():
            continue
        key = inner.rstrip("]")
        whole = f"{key}={value}" if key else value
        found[name] = [*found.get(name, []), whole] if bracket or name in _LISTS else whole
    return found


_LISTS = {"chunking_strategy", "languages", "timestamp_granularities"}
"""Fields of a form that are lists, with or without brackets behind their names."""


@cache
def _wire(kind: type[Struct], undone_type: Any) -> type[msgspec.Struct]:
    """A request as it comes: as `kind`, but what may be left out may be null; and with the fields that do nothing here.

    Those are not decoded (`msgspec.Raw`), and unknown fields are refused at once: a large body must not become as many
    Python objects before it is checked.
    """
    types = get_type_hints(kind, include_extras=True)
    absent = msgspec.Raw(b"null") if undone_type is msgspec.Raw else None
    fields: list[Any] = [(name, undone_type, absent) for name in undone(ENDPOINTS[kind])]
    for field in msgspec.structs.fields(kind):
        if field.name in _SCHEMAS.get(kind, ()):
            fields.append((field.name, msgspec.Raw, absent))
        else:
            fields.append(
                (field.name, types[field.name]) if field.required else (field.name, types[field.name] | None, None)
            )
    return msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, kw_only=True)


@cache
def _schemas(kind: type[Struct]) -> type[msgspec.Struct]:
    """The fields of `kind` that hold JSON schemas."""
    types = get_type_hints(kind, include_extras=True)
    return msgspec.defstruct(kind.__name__, [(name, types[name] | None, None) for name in _SCHEMAS[kind]])


def _read_schemas(kind: type[Struct], given: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """The fields that hold JSON schemas, within their bound.

    Raises:
        ApiError: they are too long, or malformed.
    """
    parts = [f'"{name}":'.encode() + bytes(value) for name, value in given.items()]
    if sum(map(len, parts)) > TOOL_BYTES:
        message = f"The tools and schemas take more than {TOOL_BYTES} bytes. Send fewer."
        raise ApiError(400, message, "too_long", next(iter(given)))
    try:
        found = msgspec.json.decode(b"{" + b",".join(parts) + b"}", type=_schemas(kind))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _malformed(error, _schemas(kind)) from None
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not None}


_SCHEMAS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    ChatRequest: ("tools", "tool_choice", "response_format"),
    ResponseRequest: ("tools", "tool_choice", "text"),
}
"""Fields that hold JSON of any form: they are decoded when their length is known."""


def _read(kind: type[Struct], wire: msgspec.Struct, warn: Warn) -> Struct:
    """The request without what does nothing here.

    Raises:
        ApiError: something was asked for that this server does not do.
    """
    given = {name: value for name, value in msgspec.structs.asdict(wire).items() if value is not None}
    nothing = {name: given.pop(name) for name in undone(ENDPOINTS[kind]) if name in given}
    check_undone(ENDPOINTS[kind], nothing, warn)
    schemas = {name: given.pop(name) for name in _SCHEMAS.get(kind, ()) if name in given}
    return kind(**given, **(_read_schemas(kind, schemas) if schemas else {}))


ENDPOINTS: dict[type[msgspec.Struct], EndpointName] = {
    ChatRequest: "chat",
    ResponseRequest: "response",
    TranscriptionRequest: "transcription",
    SpeechRequest: "speech",
}


def _malformed(error: Exception, kind: type[msgspec.Struct]) -> ApiError:
    sentence, param = explained(error, kind)
    return ApiError(400, sentence, "invalid_body", param)


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise ApiError(415, f"The type of the content is {given or 'missing'}. Send {wanted}.", "wrong_content_type")
