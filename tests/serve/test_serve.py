"""The HTTP endpoints, asked by OpenAI's own client and by a plain one."""

import asyncio
import base64
import io
import socket
import struct
import subprocess
import threading
import time
import wave

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the serve extra is not installed")

import openai

from tests.serving import ANSWER, HEARD, QUESTION, in_base64, serving
from tests.sound_files import by_ffmpeg, encoded, needs_ffmpeg, wav_bytes
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.errors import AudioFileError, ContextFull, DataError, UnknownText, UsageError
from voxrill.runtime.serve.access import Admission
from voxrill.runtime.serve.api_errors import ApiError, as_api_error
from voxrill.runtime.serve.limits import Limits

KEY = "a-key-of-24-characters-x"


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def client(server):
    return server.client()


@pytest.fixture
def http(server):
    with server.http() as opened:
        yield opened


def refused(response, status):
    """The error's message, in OpenAI's shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def wav(seconds=1.0, rate=16_000, promised=None):
    samples = b"\0\0" * round(seconds * rate)
    size = len(samples) if promised is None else promised
    header = (b"RIFF", 36 + min(size, 1 << 31), b"WAVEfmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size)
    return struct.pack("<4sI8sIHHIIHH4sI", *header) + samples


# Models, health, metrics


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == "pebble" == client.models.retrieve("pebble").id
    with pytest.raises(openai.NotFoundError, match="This server has: pebble"):
        client.models.retrieve("llama-3")


def test_facts_of_the_device(server, http):
    facts = http.get("/v1/device").json()
    assert facts["bundle"] == "pebble" and facts["threads"] == 1 and facts["sessions"] == {"open": 0, "most": 8}
    graphs = server.service.model.manifest.graphs
    assert facts["provider"] == dict.fromkeys(graphs, "cpu") and facts["precision"].keys() == graphs.keys()
    assert facts["bytes"] == server.service.model.manifest.size


def test_health_and_metrics(http):
    assert http.get("/health").json() == {"status": "ok"}
    http.get("/no/such/path")
    metrics = http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert 'voxrill_requests_total{route="/health",status="200"}' in metrics.text
    assert 'voxrill_requests_total{route="none",status="404"}' in metrics.text and "such" not in metrics.text


# Transcriptions


@pytest.mark.parametrize("form", ["json", "text", "srt", "vtt", "verbose_json"])
def test_transcriptions(client, form):
    found = client.audio.transcriptions.create(model="pebble", file=QUESTION, response_format=form)
    if form == "json":
        assert found.text == HEARD
    elif form == "verbose_json":
        assert found.text == HEARD and found.duration == pytest.approx(1.87, abs=0.01)
        (segment,) = found.segments
        assert 0.5 < segment.confidence < 1 and -0.7 < segment.avg_logprob < 0
        assert segment.text == HEARD and 0 < segment.start < segment.end < found.duration
    else:
        assert HEARD in found
        assert ("-->" in found) == (form != "text") and found.startswith("WEBVTT") == (form == "vtt")


def test_a_transcription_as_it_is_made(client):
    events = list(client.audio.transcriptions.create(model="pebble", file=QUESTION, stream=True))
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    assert len(events) > 3 and events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == HEARD


def test_two_sentences_are_two_segments(client):
    sound = read_audio(QUESTION, 16_000)
    silence = np.zeros(16_000, np.float32)
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([sound, silence, sound]), 16_000, format="FLAC")
    found = client.audio.transcriptions.create(
        model="pebble", file=("two.flac", file.getvalue()), response_format="verbose_json"
    )
    assert [segment.text for segment in found.segments] == [HEARD, HEARD]
    assert found.segments[1].start == pytest.approx(found.segments[0].start + len(sound) / 16_000 + 1, abs=0.1)


def test_silence_has_no_words(client):
    assert client.audio.transcriptions.create(model="pebble", file=("a.wav", wav())).text == ""


# Speech


@pytest.mark.parametrize("form", ["wav", "pcm", "flac", "mp3", "opus"])
def test_speech(server, client, form):
    """What is said is heard again, in every form."""
    said = server.service.model.speak(ANSWER, voice="UK female").samples
    with client.audio.speech.with_streaming_response.create(
        model="pebble", voice="UK female", input=ANSWER, response_format=form
    ) as response:
        pieces = list(response.iter_bytes())
    sound = b"".join(pieces)
    if form == "pcm":
        file = io.BytesIO()
        soundfile.write(file, np.frombuffer(sound, "<i2"), 24_000, format="WAV")
        sound = file.getvalue()
    assert read_audio(io.BytesIO(sound), 24_000).size == pytest.approx(said.size, abs=2_400)  # MP3 adds silence
    assert client.audio.transcriptions.create(model="pebble", file=(f"a.{form}", sound)).text == ANSWER


def test_speech_is_sent_as_it_is_made(server, http, monkeypatch):
    """The first sound arrives before the last is made: the steps are counted with each piece.

    Each frame takes 10 ms here, so that the server is not done before a client can ask.
    """
    depthformer = server.service.model.parts.depthformer
    frame = depthformer.frame
    monkeypatch.setattr(depthformer, "frame", lambda *arguments: (time.sleep(0.01), frame(*arguments))[1])
    body = {"model": "pebble", "voice": "default", "input": ANSWER, "response_format": "pcm"}
    made = []
    with http.stream("POST", "/v1/audio/speech", json=body) as response:
        for _ in response.iter_raw():
            made.append(server.metric("voxrill_steps_total"))
    assert len(made) > 3 and made[0] < made[-1]


def test_speech_as_events(http):
    body = {"model": "pebble", "voice": "default", "input": ANSWER, "response_format": "pcm", "stream_format": "sse"}
    lines = http.post("/v1/audio/speech", json=body).text.split("\n\n")
    assert "speech.audio.delta" in lines[0] and lines[-2] == 'data: {"type":"speech.audio.done"}'


# Chat


def question(data=None):
    sound = {"data": in_base64(QUESTION.read_bytes()) if data is None else data, "format": "wav"}
    return {"role": "user", "content": [{"type": "input_audio", "input_audio": sound}]}


SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}


def test_a_spoken_question_has_a_spoken_answer(client):
    found = client.chat.completions.create(model="pebble", messages=[question()], **SPOKEN)
    (choice,) = found.choices
    assert choice.finish_reason == "stop" and choice.message.audio.transcript == ANSWER
    sound = base64.b64decode(choice.message.audio.data)
    assert client.audio.transcriptions.create(model="pebble", file=("a.wav", sound)).text == ANSWER
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens > 40


def test_a_written_question_has_a_written_answer(client):
    messages = [{"role": "user", "content": "turn on the kitchen lights"}]
    found = client.chat.completions.create(model="pebble", messages=messages)
    assert found.choices[0].message.content == ANSWER and found.choices[0].message.audio is None


def test_an_answer_as_it_is_made(client):
    whole = client.chat.completions.create(
        model="pebble",
        messages=[question()],
        modalities=["text", "audio"],
        audio={"voice": "default", "format": "pcm16"},
    )
    text, pieces, usage, finish = "", b"", None, None
    stream = client.chat.completions.create(
        model="pebble",
        messages=[question()],
        modalities=["text", "audio"],
        audio={"voice": "default", "format": "pcm16"},
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.delta.audio is not None:
                text += choice.delta.audio.transcript or ""
                pieces += base64.b64decode(choice.delta.audio.data or "")
    assert text == ANSWER and finish == "stop" and usage == whole.usage
    assert pieces == base64.b64decode(whole.choices[0].message.audio.data)


def test_an_answer_goes_on_from_the_one_before(server, client):
    """With a kept state, or one made again from the messages: both prompts have the same number of positions."""
    messages = [question()]
    turns, server.service.turns = server.service.turns, None
    try:
        first = client.chat.completions.create(model="pebble", messages=messages, **SPOKEN)
        messages += [{"role": "assistant", "audio": {"id": first.choices[0].message.audio.id}}, question()]
        kept, anew = (client.chat.completions.create(model="pebble", messages=messages, **SPOKEN) for _ in range(2))
    finally:
        server.service.turns = turns
    assert kept.usage.prompt_tokens == anew.usage.prompt_tokens > 2 * first.usage.prompt_tokens
    assert kept.choices[0].message.audio.transcript == anew.choices[0].message.audio.transcript


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "fewer than 1 entry"),
        ({"messages": [{"role": "assistant", "content": "kitchen"}]}, "End with a user message"),
        ({"messages": [{"role": "user", "content": []}]}, "empty"),
        ({"messages": [question("no base64!")]}, "base64"),
        ({"messages": [question(in_base64(b"RIFF and no more"))]}, "not a sound file we can read"),
        ({"messages": [question(in_base64(b"<html>"))]}, "Give a WAV, FLAC, OGG, MP3"),
        ({"messages": [{"role": "user", "content": "kitchen " * 1000}]}, "longer than 4096"),
        ({"modalities": ["text", "audio"]}, "needs a voice and a format"),
        ({"modalities": ["audio"], "audio": {"voice": "nobody", "format": "wav"}}, "no voice 'nobody'"),
        ({"modalities": ["audio"], "audio": {"voice": "default", "format": "wav"}, "stream": True}, "pcm16"),
        ({"n": 2}, "A request gets one answer"),
        ({"tools": [{}]}, "tools"),
        ({"temperature": "hot"}, "temperature"),
        (
            {"messages": [question(), {"role": "assistant", "audio": {"id": "audio_1"}}, question()]},
            "no longer remembered",
        ),
    ],
)
def test_chat_that_cannot_be(http, change, message):
    body = {"model": "pebble", "messages": [{"role": "user", "content": "lights on"}]} | change
    assert message in refused(http.post("/v1/chat/completions", json=body), 400)


REFUSAL = "sorry i only know the house"


@pytest.mark.parametrize(
    ("before", "text", "answer"),
    [
        ([{"role": "system", "content": "You are a friendly assistant."}], "kitchen lights on", ANSWER),
        ([{"role": "developer", "content": "Be brief."}], "kitchen lights on please, monsieur", ANSWER),
        ([], "zyzzyva", REFUSAL),
    ],
    ids=["prompt", "some words", "no words"],
)
def test_words_that_the_model_does_not_know(client, caplog, before, text, answer):
    """It answers. The log says once for each text how many words there were, and none of them."""
    for _ in range(2):
        messages = [*before, {"role": "user", "content": text}]
        raw = client.chat.completions.with_raw_response.create(model="pebble", messages=messages)
        assert raw.parse().choices[0].message.content == answer
        assert "This model does not know words of the " in raw.headers["x-voxrill-warning"]  # the client is told which
    lines = [record.getMessage() for record in caplog.records if "does not know" in record.getMessage()]
    assert len(lines) == len(before) + (text != "kitchen lights on")
    assert all("held 1 words" in line or "held 2 words" in line for line in lines)
    assert not any(word in line for line in lines for word in ("friendly", "brief", "monsieur", "zyzzyva"))


# What cannot be


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "The sound is empty"),
        (b"\x7fELF" + bytes(1000), "Give a WAV, FLAC, OGG, MP3"),
        (wav(0.03, promised=36_000 * 32_000), "cut off"),
        (wav()[:20_000], "cut off"),
        (wav(0), "no samples"),
        (b"fLaC" + bytes(100), "not a sound file"),
        (b"\xff\xfb" + bytes(100), "sound"),
    ],
    ids=["empty", "program", "10 hours in 1 kB", "truncated", "no samples", "no FLAC", "no MP3"],
)
def test_sound_that_cannot_be(http, file, message):
    response = http.post("/v1/audio/transcriptions", data={"model": "pebble"}, files={"file": ("a.wav", file)})
    assert message in refused(response, 400)


KINDS = {
    "RIFX": encoded(read_audio(QUESTION), "WAV", "PCM_16", endian="BIG"),
    **{form: encoded(read_audio(QUESTION), form, "PCM_16") for form in ("RF64", "AIFF", "AU", "CAF", "W64", "FLAC")},
    "MPEG 2.5": encoded(read_audio(QUESTION, 8000), "MP3", rate=8000),
    "two bytes too many": wav_bytes(read_audio(QUESTION), 2 * len(read_audio(QUESTION)) + 2),
    "no size": wav_bytes(read_audio(QUESTION), 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_a_command_reads_is_heard(client, kind):
    heard = client.audio.transcriptions.create(model="pebble", file=("a", KINDS[kind])).text
    assert heard == HEARD or (kind == "MPEG 2.5" and heard)  # at 8 kHz the model may hear otherwise


@needs_ffmpeg
@pytest.mark.parametrize("name", ["memo.m4a", "memo.webm"])
def test_a_phones_memo_and_a_browsers_recording_are_heard(client, tmp_path, name):
    options = ("-c:a", "aac") if name.endswith("m4a") else ("-c:a", "libopus")
    try:
        memo = by_ffmpeg(read_audio(QUESTION), tmp_path / name, *options)
    except subprocess.CalledProcessError:
        pytest.skip(f"this ffmpeg cannot write {name}")
    assert client.audio.transcriptions.create(model="pebble", file=(name, memo.read_bytes())).text == HEARD


def test_a_wav_answer_that_is_sent_whole_gives_its_true_length(client, http):
    body = {"model": "pebble", "voice": "default", "input": ANSWER, "response_format": "wav"}
    response = http.post("/v1/audio/speech", json=body)
    found = client.chat.completions.create(model="pebble", messages=[question()], **SPOKEN)
    for sound in (response.content, base64.b64decode(found.choices[0].message.audio.data)):
        with wave.open(io.BytesIO(sound)) as file:
            assert len(file.readframes(1 << 31)) == 2 * file.getnframes() > 24_000
        assert int.from_bytes(sound[4:8], "little") == len(sound) - 8
    assert int(response.headers["content-length"]) == len(response.content)


def test_truncated_flac(http):
    file = io.BytesIO()
    soundfile.write(file, read_audio(QUESTION), 16_000, format="FLAC")
    half = file.getvalue()[: len(file.getvalue()) // 2]
    response = http.post("/v1/audio/transcriptions", data={"model": "pebble"}, files={"file": ("a.flac", half)})
    assert refused(response, 400)


def test_content_of_another_type(http):
    assert "Send application/json" in refused(http.post("/v1/audio/speech", content=b"a=1"), 415)
    assert "Send multipart/form-data" in refused(http.post("/v1/audio/transcriptions", json={}), 415)
    form = http.post("/v1/audio/transcriptions", headers={"Content-Type": "multipart/form-data"}, content=b"x")
    assert "boundary" in refused(form, 400)


def test_a_form_without_a_file(http):
    response = http.post("/v1/audio/transcriptions", data={"model": "pebble"}, files={"other": b"x"})
    assert "has no file" in refused(response, 400)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "llama-3"}, 404, "This server has: pebble"),
        ({"voice": "nobody"}, 400, "This model has: US male"),
        ({"voice": "../../etc/passwd"}, 400, "no voice"),
        ({"input": " "}, 400, "empty"),
        ({"input": "a" * 4097}, 400, "longer"),
        ({"response_format": "m4a"}, 400, "m4a"),
        ({"speed": 5}, 400, "speed"),
    ],
)
def test_speech_that_cannot_be(http, change, status, message):
    body = {"model": "pebble", "voice": "default", "input": "lights on"} | change
    assert message in refused(http.post("/v1/audio/speech", json=body), status)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[" * 100_000, b'{"model": "\xff"}'])
def test_json_that_is_none(http, body):
    headers = {"Content-Type": "application/json"}
    message = refused(http.post("/v1/audio/speech", content=body, headers=headers), 400)
    assert message.startswith("The body is") and "Send" in message


def test_a_body_that_is_too_large():
    with serving(Limits(body=1000)) as small, small.http() as http:
        assert "larger" in refused(http.post("/v1/audio/speech", content=bytes(1001)), 413)
        pieces = iter([bytes(600)] * 2)  # without a Content-Length
        headers = {"Content-Type": "application/json"}
        assert "larger" in refused(http.post("/v1/audio/speech", content=pieces, headers=headers), 413)


def test_a_body_that_does_not_come():
    """The server waits for a limited time; then the slot is free again."""
    with serving(Limits(upload=0.2, active=1, queue=0)) as impatient, impatient.http() as http:
        with socket.create_connection(("127.0.0.1", http.base_url.port)) as slow:
            head = "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert b"408" in slow.recv(100)
        assert http.post("/v1/audio/speech", content=b"").status_code == 415


def test_paths_and_methods_that_are_not_there(http):
    assert refused(http.get("/v1/nothing"), 404)
    assert refused(http.get("/v1/audio/speech"), 405)
    assert refused(http.get("/v1/models/..%2f..%2fetc%2fpasswd"), 404)


# Access


def test_a_key_is_asked_for():
    with serving(admission=Admission(KEY, ())) as locked, locked.http() as http:
        assert "Bearer" in refused(http.get("/v1/models"), 401)
        assert refused(http.get("/metrics"), 401)
        for wrong in (KEY[:-1], KEY + "x", "\xe4" * 24):
            header = f"Bearer {wrong}".encode("latin-1")
            assert refused(http.get("/v1/models", headers={"Authorization": header}), 401)
        assert refused(http.get("/v1/device"), 401)
        assert http.get("/health").status_code == http.get("/").status_code == 200
        assert locked.client(KEY).models.list().data
        with pytest.raises(openai.AuthenticationError):
            locked.client("wrong").models.list()


def test_keys_cannot_be_guessed_without_end():
    """After too many wrong keys the address is refused even with the right key: otherwise guessing would go on."""
    with serving(Limits(wrong_keys=3), Admission(KEY, ())) as locked, locked.http() as http:
        guesses = [http.get("/v1/models", headers={"Authorization": f"Bearer {guess}"}) for guess in range(5)]
        assert [guess.status_code for guess in guesses] == [401, 401, 401, 429, 429]
        assert int(guesses[-1].headers["Retry-After"]) == 20
        assert "wrong keys" in refused(http.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}), 429)
        assert refused(http.get("/v1/models"), 401)  # no key is no guess
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=elsewhere, base_url=locked.url) as other:
            assert other.get("models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("key", [None, KEY], ids=["no route reads it", "no key"])
def test_a_refused_body_is_not_read(key):
    """The connection is closed with the refusal; otherwise the server would read the rest, however long it is."""
    with serving(admission=Admission(key)) as server, server.http() as http:
        with socket.create_connection(("127.0.0.1", http.base_url.port), 10) as sender:
            sender.sendall(b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n{")
            received = b""
            while piece := sender.recv(4096):
                received += piece
        assert received.startswith(b"HTTP/1.1 404" if key is None else b"HTTP/1.1 401")


@pytest.mark.parametrize("origin", ["https://example.org", "null", "http://[", "http://]/", "http://\u2100", "http://"])
def test_other_sites_pages_may_not_ask(server, http, origin):
    assert refused(http.get("/v1/models", headers={"Origin": origin.encode()}), 403)


def test_the_own_page_may_ask(server, http):
    own = str(http.base_url).rstrip("/")
    assert refused(http.get("/v1/models", headers={"Host": "rebound.example.org"}), 403)
    allowed = http.get("/v1/models", headers={"Origin": own})
    assert allowed.status_code == 200 and "access-control-allow-origin" not in allowed.headers


def test_a_site_that_was_allowed():
    site = {"Origin": "https://example.org"}
    with serving(admission=Admission(origins=(site["Origin"],))) as open_to, open_to.http() as http:
        assert http.get("/v1/models", headers=site).headers["access-control-allow-origin"] == site["Origin"]
        asked = {**site, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        assert http.options("/v1/audio/speech", headers=asked).status_code == 200
        assert refused(http.get("/v1/models", headers={"Origin": "https://example.com"}), 403)


def test_the_rate_is_limited():
    with serving(Limits(rate=3)) as slow, slow.http() as http:
        answers = [http.get("/health") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert int(answers[-1].headers["Retry-After"]) == 20


# Many at once


def test_overload_is_shed_and_passes(server):
    """Of many requests at once, some are told when to ask again, and all others are answered. Afterwards all are."""
    client, found, shed = server.client(), [], []

    def ask():
        try:
            found.append(client.audio.transcriptions.create(model="pebble", file=QUESTION).text)
        except (openai.RateLimitError, openai.InternalServerError) as error:  # requests, and connections
            shed.append(int(error.response.headers["Retry-After"]))

    crowd = [threading.Thread(target=ask) for _ in range(40)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert len(found) >= 12 and set(found) == {HEARD}
    assert len(shed) == 40 - len(found) > 0 and min(shed) >= 1
    assert server.metric("voxrill_shed_total") >= len(shed)
    assert client.audio.transcriptions.create(model="pebble", file=QUESTION).text == HEARD


@pytest.fixture
def slow(server, monkeypatch):
    """Every frame of speech takes a fifth of a second."""
    depthformer = server.service.model.parts.depthformer
    frame = depthformer.frame

    def slowly(*arguments):
        time.sleep(0.2)
        return frame(*arguments)

    monkeypatch.setattr(depthformer, "frame", slowly)


def test_a_client_that_leaves_is_no_longer_worked_for(server, http, slow):
    body = {"model": "pebble", "voice": "default", "input": ANSWER, "response_format": "pcm"}
    before = server.metric("voxrill_steps_total")
    with http.stream("POST", "/v1/audio/speech", json=body) as response:
        next(response.iter_raw())
    while server.metric("voxrill_requests_held"):
        time.sleep(0.01)
    server.client().models.list()
    whole = 25  # steps of this answer
    assert 0 < server.metric("voxrill_steps_total") - before < whole - 5


def test_a_client_that_leaves_before_its_answer(server, http, slow):
    body = {"model": "pebble", "messages": [question()], **SPOKEN}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=1)
    while server.metric("voxrill_requests_held"):
        time.sleep(0.01)
    assert server.client().audio.transcriptions.create(model="pebble", file=QUESTION).text == HEARD


def test_a_client_that_does_not_read():
    """The server waits for a limited time; then the slot is free, and the rest of the answer is not made."""
    body = f'{{"model":"pebble","voice":"default","response_format":"pcm","input":"{ANSWER}"}}'.encode()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/audio/speech", "headers": headers, "query_string": b""}
    sent = []

    async def receive():
        if receive.whole:
            await asyncio.Event().wait()
        receive.whole = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    receive.whole = False
    with serving(Limits(stall=0.2, active=1, queue=0)) as server:
        asyncio.run(server.app(scope, receive, send))
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        assert server.client().audio.transcriptions.create(model="pebble", file=QUESTION).text == HEARD


# Errors


@pytest.mark.parametrize("kind", [UsageError, UnknownText, DataError, AudioFileError, ContextFull])
def test_a_client_can_mend_its_own_mistakes(kind):
    assert as_api_error(kind("What is wrong", "What to do")).status == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"model": "pebble", "voice": "default", "input": "a", "response_format": "x" * 100_000}),
        ("/v1/audio/speech", {"model": "x" * 100_000, "voice": "default", "input": "a"}),
        ("/v1/audio/speech", {"model": "pebble", "voice": "x" * 100_000, "input": "a"}),
        ("/v1/audio/speech", {"model": "pebble", "voice": "default", "input": "xyzzy " * 600}),
        ("/v1/chat/completions", {"model": "pebble", "messages": [{"role": "x" * 100_000}]}),
        ("/v1/" + "x" * 10_000, {}),
    ],
    ids=["enumeration", "model", "voice", "unknown words", "tag", "path"],
)
def test_what_an_error_quotes_is_bounded(http, path, body):
    assert len(http.post(path, json=body).content) < 2000


def test_a_long_message_keeps_its_remedy():
    message = ApiError(400, "x" * 5000 + " Send less.").message
    assert len(message) < 1100 and message.endswith("Send less.")


def test_a_content_type_that_is_long(http):
    response = http.post("/v1/audio/speech", content=b"{}", headers={"Content-Type": "x" * 30_000})
    assert len(refused(response, 415)) < 2000
