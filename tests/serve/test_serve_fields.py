"""Every field of OpenAI's requests: done, without effect, or refused in words; and malformed requests in words."""

import asyncio
import json
import tracemalloc
import typing
from importlib import import_module

import msgspec
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from starlette.requests import Request

from tests.serving import ANSWER, HEARD, QUESTION, serving
from voxrill.runtime.malformed import explained
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.fields import HINTS, NO_EFFECT, ONLY_AT, undone
from voxrill.runtime.serve.requests import ChatRequest, ResponseRequest, SpeechRequest, TranscriptionRequest, read_json
from voxrill.runtime.serve.service import WARNING_HEADER

KINDS = {
    "chat": (ChatRequest, "chat.completion_create_params", "CompletionCreateParamsStreaming"),
    "response": (ResponseRequest, "responses.response_create_params", "ResponseCreateParamsStreaming"),
    "transcription": (TranscriptionRequest, "audio.transcription_create_params", "TranscriptionCreateParamsStreaming"),
    "speech": (SpeechRequest, "audio.speech_create_params", "SpeechCreateParams"),
}

AUDIO = {"voice": "alloy", "format": "wav"}
CHAT = {"messages": [{"role": "user", "content": "kitchen lights on"}]}


@pytest.fixture(scope="module")
def http():
    with serving() as started, started.http() as opened:
        yield opened


def chat(http, **fields):
    return http.post("/v1/chat/completions", json=CHAT | fields)


def transcribe(http, **fields):
    return http.post("/v1/audio/transcriptions", data=fields, files={"file": ("a.wav", QUESTION.read_bytes())})


def speech(http, **fields):
    return http.post("/v1/audio/speech", json={"input": ANSWER, "response_format": "pcm"} | fields)


def response(http, **fields):
    return http.post("/v1/responses", json={"input": "kitchen lights on"} | fields)


ASK = {"chat": chat, "response": response, "transcription": transcribe, "speech": speech}


def refused(response):
    """The message and the field, if the message is written for a person."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    message = error["message"]
    assert not any(mark in message for mark in ("`", "$", "Expected", "Object")), message
    assert message.count(". ") >= 1 and message.endswith("."), message  # what is wrong, and what to do
    return message, error["param"]


@pytest.mark.parametrize("endpoint", KINDS)
def test_every_field_that_the_sdk_knows_is_decided(endpoint):
    """A field of a newer SDK shows up here, to be decided."""
    kind, module, name = KINDS[endpoint]
    known = typing.get_type_hints(getattr(import_module(f"openai.types.{module}"), name))
    done = {field.name for field in msgspec.structs.fields(kind)}
    decided = [*done, *undone(endpoint)]
    assert len(decided) == len({*decided})
    assert not {*known} - {*decided, "file"}


@pytest.mark.parametrize(("endpoint", "field"), [(one, field) for one in KINDS for field in undone(one)])
def test_what_is_not_done_is_refused_in_words_and_asks_for_nothing_otherwise(http, endpoint, field):
    ask = ASK[endpoint]
    if field in NO_EFFECT[endpoint] or field in HINTS[endpoint]:
        answer = ask(http, **{field: "any value"})
        assert answer.status_code == 200
        assert answer.headers.get(WARNING_HEADER, "").startswith(f"{field} has no effect") == (field in HINTS[endpoint])
        for value in HINTS[endpoint][field].values if field in HINTS[endpoint] else ():
            assert WARNING_HEADER not in ask(http, **{field: value}).headers
        return
    rule = ONLY_AT[endpoint][field]
    if endpoint == "chat":
        assert ask(http, **{field: None}).status_code == 200
        for value in rule.values:
            assert ask(http, **{field: value}).status_code == 200
    for value in ("zyzzyva", "x" * 2000):
        message, param = refused(ask(http, **{field: value}))
        assert param == field in message and rule.told in message and len(message) < 300


def test_fields_without_effect_alone(http):
    alone = chat(http, audio=AUDIO, stream_options={"include_usage": True})
    told = "audio has no effect without the modality audio. stream_options has no effect without stream."
    assert alone.headers[WARNING_HEADER] == told
    assert WARNING_HEADER not in chat(http, audio=AUDIO, modalities=["text", "audio"]).headers


@pytest.mark.parametrize("endpoint", KINDS)
def test_the_document_lists_every_field(http, endpoint):
    """Those without effect say so."""
    kind, *_ = KINDS[endpoint]
    found = http.get("/openapi.json").json()["components"]["schemas"][kind.__name__]["properties"]
    assert all(found[name]["description"] for name in undone(endpoint))
    assert {field.name for field in msgspec.structs.fields(kind)} <= found.keys()


@pytest.mark.parametrize("endpoint", KINDS)
def test_null_and_empty_mean_absent(http, endpoint):
    """For each field that may be left out, all at once."""
    kind, *_ = KINDS[endpoint]
    optional = [field.name for field in msgspec.structs.fields(kind) if not field.required]
    nothing = "" if endpoint == "transcription" else None
    wanted = dict.fromkeys([*optional, *undone(endpoint)], nothing)
    answer = ASK[endpoint](http, **wanted)
    assert answer.status_code == 200 and WARNING_HEADER not in answer.headers


@pytest.mark.parametrize("endpoint", KINDS)
def test_a_field_that_nobody_knows_is_refused(http, endpoint):
    assert refused(ASK[endpoint](http, zyzzyva="1")) == ("There is no field 'zyzzyva'. Leave it out.", "zyzzyva")
    message, param = refused(ASK[endpoint](http, response_fromat="json"))
    if endpoint in ("transcription", "speech"):
        assert "Perhaps response_format is meant" in message and param == "response_fromat"


BODIES = [
    (b"{", "The body is not JSON", None),
    (b"\xff", "The body is not JSON", None),
    (b'{"model": "\xff"}', "The body is not UTF-8", None),
    (b"[]", "The body is a list. Send a JSON object", None),
    (b"{}", "The field messages is missing. Give a list of 1 to 256 entries", "messages"),
    (b'{"messages": []}', "The field messages has fewer than 1 entry", "messages"),
    (b'{"messages": null}', "The field messages is null", "messages"),
    (b'{"messages": [{"role": "x"}]}', "is 'x'. Give one of: system", "messages[0].role"),
    (b'{"messages": [{"role": 7}]}', "is of another kind. Give one of: system", "messages[0].role"),
    (b'{"messages": [{"role": "user", "content": 3}]}', "is a whole number. Give a text or", "messages[0].content"),
    (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        "is 'image_url'. Give one of: text, input_audio",
        "messages[0].content[0].type",
    ),
    (b'{"audio": {"format": "xx"}}', "Give one of: ", "audio.format"),
    (b'{"temperature": 5}', "is more than 2. Give a number from 0 to 2", "temperature"),
    (b'{"temperature": "hot"}', "is text. Give a number", "temperature"),
    (b'{"top_p": 0}', "is not more than 0. Give a number above 0 and at most 1", "top_p"),
    (b'{"seed": -1}', "is less than 0. Give a whole number of at least 0", "seed"),
    (b'{"stream": "yes"}', "is text. Give true or false", "stream"),
    (b'{"temperature": 1e999}', "is too large a number", "temperature"),
    (b'{"modalities": ["text", "audio", "text"]}', "has more than 2 entries", "modalities"),
    (b'{"metadata": ' + b"[" * 100_000, "nested too deeply", None),
]


@pytest.mark.parametrize(("body", "message", "param"), BODIES, ids=range(len(BODIES)))
def test_a_malformed_body_is_explained(http, body, message, param):
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    found = refused(answer)
    assert message in found[0] and found[1] == param


@pytest.mark.parametrize("field", ["metadata", "tools", "zyzzyva"])
def test_a_large_field_does_not_become_as_many_objects(field):
    """A million lists take 60 MB as Python's objects; what does nothing here is not decoded."""
    body = b'{"messages": [{"role": "user", "content": "on"}], "%s": [%s[]]}' % (field.encode(), b"[]," * 1_000_000)
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return sent.pop()

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    tracemalloc.start()
    try:
        if field == "metadata":
            asyncio.run(read_json(request, ChatRequest, warn=print))
        else:
            with pytest.raises(ApiError):
                asyncio.run(read_json(request, ChatRequest, warn=print))
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
    finally:
        tracemalloc.stop()


def test_every_constraint_has_words():
    """Those that the server's own structs use, and those that they may use."""

    class Inner(msgspec.Struct, forbid_unknown_fields=True):
        few: typing.Annotated[float, msgspec.Meta(gt=0, lt=9)] = 1

    class Outer(msgspec.Struct):
        name: typing.Annotated[str, msgspec.Meta(pattern="^a+$", description="the letter a")] = "a"
        short: typing.Annotated[str, msgspec.Meta(min_length=1, max_length=2)] = "a"
        inner: dict[str, list[Inner]] = {}

    def told(body):
        with pytest.raises(msgspec.ValidationError) as error:
            msgspec.json.decode(json.dumps(body), type=Outer)
        return explained(error.value, Outer)[0]

    assert told({"name": "b"}) == "The field name has characters that it may not have. Give the letter a."
    assert told({"short": "abc"}) == "The field short is longer than 2 characters. Give a text of 1 to 2 characters."
    assert told({"short": ""}).startswith("The field short is shorter than 1 characters.")
    assert told({"inner": {"x": [{"few": 9}]}}).startswith(
        "The field inner[...][0].few is not less than 9. Give a number above 0 and below 9."
    )
    assert told({"inner": {"x": [{"fw": 9}]}}) == "There is no field 'fw'. Perhaps few is meant."
    assert told({"inner": {"x": 1}}).endswith("Give a list, each entry an object.")


# What transcriptions and speech do with theirs


@pytest.mark.parametrize("language", ["en", "EN-us", "english"])
def test_the_model_s_own_language_is_a_hint(http, language):
    assert transcribe(http, language=language, **{"languages[]": "en"}).json()["text"] == HEARD


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"language": "de"}, "no language 'de'", "language"),
        ({"languages[]": ["en", "fr"]}, "no language 'fr'", "language"),
        ({"timestamp_granularities[]": ["word"], "response_format": "verbose_json"}, "not of words", None),
        ({"timestamp_granularities[]": ["segment"]}, "Only verbose_json holds times", None),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.3"}, "no settings", None),
        ({"response_format": "diarized_json"}, "Give one of: ", "response_format"),
        ({"include[]": ["logprobs"]}, "Probabilities are not given", "include"),
    ],
)
def test_what_a_transcription_cannot_do(http, fields, message, param):
    found = refused(transcribe(http, **fields))
    assert message in found[0] and found[1] == (param or next(iter(fields)).partition("[")[0])


@pytest.mark.parametrize("chunks", ["auto", {"type": "server_vad"}])
def test_times_of_segments(chunks):
    with serving() as server:
        found = server.client().audio.transcriptions.create(
            model="whisper-1",
            file=QUESTION,
            response_format="verbose_json",
            timestamp_granularities=["segment"],
            chunking_strategy=chunks,
        )
    (segment,) = found.segments
    assert segment.text == HEARD and 0 < segment.start < segment.end


def test_instructions_for_a_voice(http):
    """Pebble does not know their words: it speaks as without them."""
    plain, told = speech(http), speech(http, instructions="Speak in a cheerful and positive tone.")
    assert told.status_code == 200 and told.content == plain.content
