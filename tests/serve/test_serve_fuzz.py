"""The server against generated requests, broken sounds and senseless events: never a 500 or a crash.

VOXRILL_FUZZ is how many of each are made up. CI makes few; `VOXRILL_FUZZ=3400` makes 10,000 requests, 13,000 sounds and
10,000 events of each protocol.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import soundfile

pytest.importorskip("starlette", reason="the serve extra is not installed")
pytest.importorskip("schemathesis", reason="the dev extra is not installed")

import httpx
import hypothesis
import openai
import schemathesis
import websockets

from tests.command_line import clean_environment
from tests.serving import HEARD, QUESTION, in_base64, spoken
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.uploads import decode

COUNT = int(os.environ.get("VOXRILL_FUZZ", "60"))
FRAMES = 3 * COUNT
WAIT = 5.0
"""Seconds of silence after which the server is assumed to wait for the rest of an event with changed lengths."""

GROWTH = 128 << 20
"""Bytes by which a process may grow while it is fuzzed: what is kept for the next request, and onnxruntime's arenas."""


@dataclass(frozen=True)
class Running:
    """A server in its own process, and the bytes of memory that it used after its first answer."""

    url: str
    wyoming: str
    process: psutil.Process
    before: int

    def metric(self, name):
        lines = httpx.get(f"{self.url.removesuffix('/v1')}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.fixture(scope="module")
def server():
    command = [
        sys.executable,
        "-m",
        "voxrill",
        "serve",
        "--port",
        "0",
        "--json",
        "--threads",
        "1",
        "--rate",
        "10000000",
        "--wyoming",
        "tcp://127.0.0.1:0",
    ]
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        ready, process = json.loads(started.stdout.readline()), psutil.Process(started.pid)
        still_answers(ready["url"])
        yield Running(ready["url"], ready["wyoming"], process, process.memory_info().rss)
        assert started.poll() is None, "it crashed"
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate(timeout=60)
    assert started.returncode == 0 and "Traceback" not in errors.decode()


@pytest.fixture(scope="module")
def operations(server):
    schema = schemathesis.openapi.from_url(server.url.removesuffix("/v1") + "/openapi.json")
    return {operation.ok().label: operation.ok() for operation in schema.get_all_operations()}


def still_answers(url):
    client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0)
    assert client.audio.transcriptions.create(model="pebble", file=QUESTION).text == HEARD


LABELS = (
    "GET /health",
    "GET /metrics",
    "GET /v1/device",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "GET /docs",
    "GET /v1/audio/voices",
    "POST /v1/audio/speech",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "POST /v1/chat/completions",
    "POST /v1/responses",
)


def test_all_operations_are_fuzzed(operations):
    assert set(operations) - {"GET /openapi.json"} == set(LABELS)  # schemathesis leaves out the document itself


@pytest.mark.parametrize("label", LABELS)
def test_made_up_requests(server, operations, label):
    """Right and wrong requests, made from the OpenAPI document: every answer has a status that the document lists."""
    operation = operations[label]
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    count = COUNT if label.startswith("POST") else min(COUNT, 20)

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hypothesis.strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def ask(case):
        response = case.call(timeout=30)
        assert response.status_code < 500, (case.as_curl_command(), response.text)
        assert str(response.status_code) in operation.definition.raw["responses"] or response.status_code == 405

    ask()
    still_answers(server.url)


def broken(random_, whole):
    """A damaged file: bytes are changed, cut out, doubled or cut off."""
    data = bytearray(whole)
    for _ in range(random_.choice((0, 1, 4, 64))):
        data[random_.randrange(min(len(data), random_.choice((64, 4096, 1 << 20))))] = random_.randrange(256)
    if random_.random() < 0.5:
        start, end = sorted(random_.randrange(len(data)) for _ in range(2))
        data[start:end] = random_.choice((b"", data[start:end] * 2, random_.randbytes(end - start)))
    return bytes(data)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_broken_sounds(container):
    """Each is decoded or refused. Nothing else is raised, and memory does not grow."""
    file = io.BytesIO()
    soundfile.write(file, read_audio(QUESTION, 16_000), 16_000, format=container)
    random_ = random.Random(container)
    heard = refused = 0
    before = psutil.Process().memory_info().rss
    for _ in range(COUNT):
        try:
            waveform = decode(broken(random_, file.getvalue()), 30.0, 3_000_000, "file")
        except ApiError as error:
            assert error.status == 400
            refused += 1
        else:
            assert waveform.dtype == np.float32 and 0 < len(waveform) <= 31 * 16_000 and np.isfinite(waveform).all()
            heard += 1
    assert heard and refused
    assert psutil.Process().memory_info().rss - before < GROWTH


def senseless_options(random_):
    """Some options of a response."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    options = {
        "conversation": random_.choice(("none", "auto", 1)),
        "input": random_.choice(([item], [], [{"type": "item_reference", "id": "item_1"}], None, {})),
        "instructions": random_.choice(("hello", "xyzzy", "", None)),
        "output_modalities": random_.choice((["text"], ["audio"], [])),
        "metadata": random_.choice(({}, {"a": "b"}, {"a": []})),
        "max_output_tokens": random_.choice((1, "inf", None, -1)),
    }
    return dict(random_.sample(sorted(options.items()), random_.randrange(4)))


def senseless_settings(random_):
    """Some settings of a session."""
    kinds = ({"type": "audio/pcmu"}, {"type": "audio/pcm", "rate": 8000}, {"rate": 48_000}, "g711_alaw", None, 1)
    turns = (
        None,
        {"type": "semantic_vad", "eagerness": "high"},
        {"type": "server_vad"},
        {"silence_duration_ms": []},
        0,
    )
    heard = {"format": random_.choice(kinds), "turn_detection": random_.choice(turns), "transcription": {}}
    settings = {
        "type": random_.choice(("realtime", "realtime", "transcription")),
        "audio": random_.choice(({"input": heard}, {"output": {"format": random_.choice(kinds)}}, None, [])),
        "output_modalities": random_.choice((["text"], ["audio"], None)),
        "instructions": random_.choice(("hello", "xyzzy", None)),
        "max_output_tokens": random_.choice((3, "inf", None)),
    }
    return dict(random_.sample(sorted(settings.items()), random_.randrange(4)))


def senseless(random_, sound):
    """An event, or something like one."""
    name = f"item_{random_.randrange(8)}"
    events = (
        {"type": "input_audio_buffer.append", "audio": in_base64(random_.randbytes(random_.randrange(4000)))},
        {"type": "input_audio_buffer.append", "audio": in_base64(sound[: random_.randrange(len(sound))])},
        {"type": "input_audio_buffer.append", "audio": "what is said here is text"},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {"type": "response.create", "response": {"modalities": ["text"]}},
        {"type": "response.cancel"},
        {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 10**9},
        {"type": "session.update", "session": {"turn_detection": random_.choice((None, {"threshold": 0.9}, {}))}},
        {"type": "session.update", "session": {"instructions": "lights on" * random_.randrange(3)}},
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "lights on"}]},
        },
        {
            "type": "conversation.item.create",
            "previous_item_id": random_.choice((None, "root", name, "x")),
            "item": {"type": "message", "role": random_.choice(("user", "assistant", "system")), "id": name}
            | {"content": [{"type": "text", "text": "hello"}] * random_.randrange(3)},
        },
        {"type": random_.choice(("conversation.item.retrieve", "conversation.item.delete")), "item_id": name},
        {"type": "conversation.item.truncate", "item_id": name, "audio_end_ms": random_.randrange(2000)},
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call", "name": "a", "arguments": "", "call_id": name},
        },
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": name, "output": random_.choice(("", "hello", "xyzzy"))},
        },
        {"type": "response.create", "response": senseless_options(random_)},
        {"type": "session.update", "session": senseless_settings(random_)},
    )
    text = json.dumps(random_.choice(events))
    if random_.random() < 0.4:
        at = random_.randrange(len(text))
        text = (
            text[:at]
            + random_.choice(("", "\0", "}", "[[", '"', "\ud7ff", "1e999"))
            + text[at + random_.randrange(9) :]
        )
    return random_.choice((text, text, text, random_.randbytes(random_.randrange(50))))


def test_senseless_events(server):
    """Sessions go on, or are told what is wrong. Afterwards nothing is left of them, and other sessions go on."""

    async def pester(seed):
        random_ = random.Random(seed)
        sound = spoken()[:96_000]
        async with websockets.connect(server.url.replace("http:", "ws:") + "/realtime") as connection:

            async def listen():
                async for raw in connection:
                    event = json.loads(raw)
                    assert event["type"] != "error" or event["error"]["type"] == "invalid_request_error", event

            listening = asyncio.ensure_future(listen())
            for _ in range(FRAMES // 4):
                await connection.send(senseless(random_, sound))
                await asyncio.sleep(0)
            await connection.send(json.dumps({"type": "input_audio_buffer.clear"}))
        await listening

    async def everyone():
        kept = server.metric("voxrill_state_bytes")  # of the conversations of made-up requests, for their next one
        await asyncio.gather(*map(pester, range(4)))
        while server.metric("voxrill_realtime_sessions") or server.metric("voxrill_state_bytes") > kept:
            await asyncio.sleep(0.02)

    asyncio.run(everyone())
    still_answers(server.url)


FORM = {"rate": 16_000, "width": 2, "channels": 1}


def senseless_wyoming(random_, sound):
    """An event of that protocol as bytes, or something like one."""
    form = FORM | {"rate": random_.choice((16_000, 8_000, 0, 10**9, "a"))}
    events = (
        ("describe", {}, b""),
        ("transcribe", {"language": random_.choice(("en", "xx", 3))}, b""),
        ("audio-start", form, b""),
        ("audio-chunk", form, sound[: 2 * random_.randrange(4000)]),
        ("audio-chunk", form, random_.randbytes(random_.randrange(99))),
        ("audio-stop", {}, b""),
        ("synthesize", {"text": random_.choice(("lights on", "", "xyzzy", None))}, b""),
        ("synthesize-start", {"voice": random_.choice(({}, {"name": "nobody"}, []))}, b""),
        ("synthesize-chunk", {"text": "lights on " * random_.randrange(3)}, b""),
        ("synthesize-stop", {}, b""),
        ("transcript", {"text": random_.choice(("lights on", 1))}, b""),
    )
    whole = [("audio-start", FORM, b""), ("audio-chunk", FORM, sound), ("audio-stop", {}, b"")]
    return b"".join(_bytes(random_, *event) for event in random_.choice((whole, *([event] for event in events))))


def _bytes(random_, kind, data, payload):
    data = json.dumps(data).encode()
    line = json.dumps({"type": kind, "data_length": len(data), "payload_length": len(payload)}).encode()
    if random_.random() < 0.05:  # rarely: it ends the connection
        at = random_.randrange(len(line))
        line = line[:at] + random_.choice((b"", b"\0", b"}", b"[[", b"9", b"\xff")) + line[at + random_.randrange(9) :]
    return line + b"\n" + data + payload


def test_senseless_wyoming_events(server):
    """The same over Wyoming, whose connections end at bytes that are no event."""
    address, seen = urlsplit(server.wyoming), set()

    async def until_pong(reader):
        """What the server sends until it has read everything, closes the connection, or waits for more."""
        said = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(WAIT):
                while b'"pong"' not in said and (more := await reader.read(1 << 16)):
                    said += more
        return said

    async def pester(seed):
        random_ = random.Random(seed)
        sound, left = spoken(rate=16_000), FRAMES // 4
        while left > 0:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            said = b'"pong"'
            while left > 0 and b'"pong"' in said:
                writer.write(senseless_wyoming(random_, sound) + b'{"type": "ping"}\n')
                said = await until_pong(reader)
                assert b"made a mistake" not in said
                seen.update(re.findall(rb'"type": "([a-z-]+)"', said))
                left -= 1
            writer.close()

    async def everyone():
        await asyncio.gather(*map(pester, range(4)))
        while server.metric("voxrill_requests_held"):
            await asyncio.sleep(0.02)

    asyncio.run(everyone())
    assert {b"error", b"info", b"pong", b"audio-chunk", b"transcript", b"handled"} <= seen
    still_answers(server.url)


def test_the_server_did_not_grow(server):
    """After all of the above; its caches, of which the conversations it keeps are the largest, are within the bound."""
    assert server.process.memory_info().rss - server.before < GROWTH
