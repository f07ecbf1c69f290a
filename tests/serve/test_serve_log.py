"""The server's log: one line a request, never what was said or sent, and never in the server's way."""

import asyncio
import base64
import io
import json
import logging
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import httpx
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import websockets

from tests.command_line import clean_environment
from tests.serving import ANSWER, QUESTION, in_base64, serving
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.errors import BundleError
from voxrill.runtime.serve import log
from voxrill.runtime.serve.access import Admission
from voxrill.runtime.serve.limits import Limits

NAME = "voxrill.serve.requests"


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


class Lines:
    """The lines of requests that were logged. A line is written after its answer, so that it is waited for."""

    def __init__(self, caplog):
        self._caplog = caplog

    def __call__(self, count=1):
        until = time.monotonic() + 30
        while len(self._all()) < count and time.monotonic() < until:
            time.sleep(0.01)
        return self._all()

    def _all(self):
        return [(one.levelname, one.getMessage()) for one in self._caplog.records if one.name == NAME]


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.DEBUG, NAME)
    return Lines(caplog)


@pytest.fixture
def bounded(monkeypatch):
    """The log's filters, as a server that is a process of its own has them."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio", "voxrill.serve", NAME)]
    before = [list(logger.filters) for logger in loggers]
    monkeypatch.setattr(log, "_FILTER", log.OneOfAKind())
    log.bound_log()
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


def speech(**fields):
    return {"input": ANSWER, "response_format": "pcm"} | fields


def seconds(wav):
    """How long a sound is, as the log writes it."""
    return re.escape(f"{read_audio(io.BytesIO(wav), 24_000).size / 24_000:.1f} s")


def test_a_line_has_method_path_status_time_and_seconds_of_sound(server, lines):
    with server.http() as http:
        http.get("/v1/models")
        http.post("/v1/audio/transcriptions", files={"file": ("a.wav", QUESTION.read_bytes())})
        speech_sound = http.post("/v1/audio/speech", json=speech(response_format="wav")).content
        sound = {"type": "input_audio", "input_audio": {"data": in_base64(QUESTION.read_bytes()), "format": "wav"}}
        spoken = {"modalities": ["text", "audio"], "audio": {"format": "wav"}}
        answer = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [sound]}], **spoken})
    answer_sound = base64.b64decode(answer.json()["choices"][0]["message"]["audio"]["data"])
    expected = [
        r"GET /v1/models 200 \d+ ms",
        r"POST /v1/audio/transcriptions 200 \d+ ms, heard 1.9 s",
        rf"POST /v1/audio/speech 200 \d+ ms, said {seconds(speech_sound)}",
        rf"POST /v1/chat/completions 200 \d+ ms, heard 1.9 s, said {seconds(answer_sound)}",
    ]
    logged = lines(len(expected))
    assert [level for level, _ in logged] == ["INFO"] * len(expected)
    for (_, line), pattern in zip(logged, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_what_fails_is_logged_with_its_code(server, lines):
    with server.http() as http:
        http.post("/v1/audio/speech", json=speech(voice="nobody"))
        http.post("/v1/audio/speech", json=speech(model="llama-3"))
        http.get("/audio/speech")
    logged = lines(3)
    assert [level for level, _ in logged] == ["WARNING"] * 3
    assert re.fullmatch(r"POST /v1/audio/speech 400 \d+ ms, voice_not_found", logged[0][1])
    assert re.fullmatch(r"POST /v1/audio/speech 404 \d+ ms, model_not_found", logged[1][1])
    assert re.fullmatch(r"GET /audio/speech 404 \d+ ms", logged[2][1])  # the mistake of a base_url without /v1


def test_requests_that_machines_poll_are_no_news(server, lines):
    with server.http() as http:
        http.get("/health")
        http.get("/metrics")
    assert [level for level, _ in lines(2)] == ["DEBUG"] * 2


def test_websockets_have_a_line_when_they_end(server, lines, caplog, bounded):
    async def visit(query):
        async with websockets.connect(server.url.replace("http:", "ws:") + f"/realtime{query}") as session:
            await session.send(json.dumps({"type": "input_audio_buffer.append", "audio": in_base64(bytes(96_000))}))
            await session.send(json.dumps({"type": "input_audio_buffer.clear"}))
            while json.loads(await session.recv())["type"] != "input_audio_buffer.cleared":
                pass

    asyncio.run(visit("?model=gpt-realtime"))
    with pytest.raises(websockets.InvalidStatus):
        asyncio.run(visit("?model=llama-3"))
    logged = sorted(lines(2))
    assert {one.name for one in caplog.records} == {NAME}  # uvicorn says nothing of a refused handshake
    assert logged[0][0] == "INFO" and re.fullmatch(r"WEBSOCKET /v1/realtime 101 \d+ ms, heard 2.0 s", logged[0][1])
    assert logged[1][0] == "WARNING" and logged[1][1].endswith(", model_not_found")


def test_no_line_holds_what_was_sent(server, caplog):
    """Neither texts, names, keys nor queries, in requests that succeed and in those that fail."""
    secret = "xyzzy"
    caplog.set_level(logging.DEBUG, "voxrill.serve")
    chat = {"messages": [{"role": "user", "content": f"lights on {secret}"}]}
    key = {"Authorization": f"Bearer {secret}"}
    with server.http(headers=key) as http:
        http.post("/v1/audio/speech", json=speech(input=f"lights on {secret}"))
        http.post("/v1/audio/speech", json=speech(voice=secret))
        http.post("/v1/audio/speech", content=f'{{"{secret}'.encode(), headers={"Content-Type": "application/json"})
        http.post("/v1/chat/completions", json=chat)
        http.post("/v1/chat/completions", json=chat | {"model": secret})
        http.post("/v1/audio/transcriptions", data={"prompt": secret}, files={"file": (secret, b"RIFF" + b"x" * 50)})
        http.get(f"/v1/models?key={secret}")
    time.sleep(0.1)
    assert len([one for one in caplog.records if one.name == NAME]) >= 7 and secret not in caplog.text


def test_a_path_cannot_write_a_line_of_its_own(server, lines):
    with server.http() as http:
        http.get("/a%0a2026-01-01%20INFO%20GET%20/forged%1b[31m" + "x" * 1000)
    ((_, line),) = lines()
    assert "\n" not in line and "\x1b" not in line and len(line) < 300


def test_a_flood_of_refusals_is_one_line(lines, bounded):
    with serving(Limits(rate=3), Admission("a-key-of-24-characters-x", ())) as locked, locked.http() as http:
        for _ in range(5):
            http.get("/v1/models")
    assert len(lines()) == 1


def test_an_answer_that_is_cut_off_is_one_line(lines, caplog, bounded, monkeypatch):
    """The model fails when half of a sound was sent: a known error needs no traceback, and no line of uvicorn's."""
    with serving() as server, server.http() as http:
        depthformer, count = server.service.model.parts.depthformer, 0
        frame = depthformer.frame

        def failing(*arguments):
            nonlocal count
            count += 1
            if count > 8:
                raise BundleError("A file is gone", "Copy the bundle again")
            return frame(*arguments)

        monkeypatch.setattr(depthformer, "frame", failing)
        with pytest.raises(httpx.RemoteProtocolError):
            http.post("/v1/audio/speech", json=speech())
        count = 0
        events = http.post("/v1/audio/speech", json=speech(stream_format="sse")).text
    assert '"message":"A file is gone. Copy the bundle again."' in events
    for level, line in lines(2):
        assert level == "WARNING"
        assert re.fullmatch(r"POST /v1/audio/speech 200 \d+ ms, said 0.6 s, server_error", line), line
    assert {one.name for one in caplog.records} == {NAME}


def test_an_answer_that_the_end_of_the_server_cuts_off_leaves_no_traceback(caplog, bounded, monkeypatch):
    monkeypatch.setattr("voxrill.runtime.serve.server._GRACE", 0.1)
    with httpx.Client(timeout=60) as http, ExitStack() as streams:
        with serving() as server:
            depthformer = server.service.model.parts.depthformer
            frame = depthformer.frame
            monkeypatch.setattr(depthformer, "frame", lambda *arguments: (time.sleep(0.1), frame(*arguments))[1])
            response = streams.enter_context(http.stream("POST", f"{server.url}/audio/speech", json=speech()))
            rest = response.iter_raw()
            next(rest)
        with pytest.raises(httpx.RemoteProtocolError):
            list(rest)
    assert any("1 running task" in one.getMessage() for one in caplog.records)
    assert not [one for one in caplog.records if one.exc_info]


def test_a_client_that_leaves_is_no_failure(server, lines, monkeypatch):
    depthformer = server.service.model.parts.depthformer
    frame = depthformer.frame
    monkeypatch.setattr(depthformer, "frame", lambda *arguments: (time.sleep(0.1), frame(*arguments))[1])
    with server.http() as http, http.stream("POST", "/v1/audio/speech", json=speech()) as response:
        next(response.iter_raw())
    ((level, line),) = lines()
    assert level == "INFO" and line.endswith(", client_left")


# The process


def started(*options):
    command = [sys.executable, "-m", "voxrill", "serve", "--port", "0", "--json", "--threads", "1", *options]
    return subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def logged(*options):
    """What a server logs of a good and a bad request."""
    with started(*options) as server:
        url = json.loads(server.stdout.readline())["url"]
        httpx.get(f"{url}/models")
        httpx.post(f"{url}/audio/speech", json=speech(voice="nobody"))
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    return [line for line in errors.decode().splitlines() if "/v1/" in line]


def test_an_impatient_ctrl_c_leaves_no_trace():
    with started() as server:
        server.stdout.readline()
        server.send_signal(signal.SIGINT)
        time.sleep(0.02)  # two that arrive at once are one
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0 and b"Traceback" not in errors


def test_a_log_in_json():
    good, bad = map(json.loads, logged("--log-json"))
    assert (
        good["level"] == "info" and good["method"] == "GET" and good["path"] == "/v1/models" and good["status"] == 200
    )
    assert bad["level"] == "warning" and bad["status"] == 400 and bad["code"] == "voice_not_found"
    assert set(bad) == {"time", "level", "logger", "message", "method", "path", "status", "ms", "code"}


def test_a_log_of_failures_only():
    (bad,) = logged("--log-level", "warning")
    assert re.match(r"\d{4}-\d\d-\d\d .* WARNING POST /v1/audio/speech 400 \d+ ms, voice_not_found$", bad)


def test_a_log_that_nobody_reads_holds_nothing_up():
    """A pipe takes 64 kB. What does not fit is left out, and the next line says how much."""
    program = """
import os, threading, time
from voxrill.runtime.serve.log import LOG, set_up_log
reading, writing = os.pipe()
set_up_log("info", False, writing)
for number in range(30_000):
    LOG.info("line %d", number)
def read():
    while b"the last" not in (some := os.read(reading, 1 << 16)):
        os.write(1, some)
    os.write(1, some)
reader = threading.Thread(target=read)
reader.start()
while LOG.root.handlers[-1]._lines.unfinished_tasks:
    time.sleep(0.01)
LOG.info("the last")
reader.join()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    lines = ran.stdout.decode().splitlines()
    assert len(lines) < 30_000 and lines[0].endswith("INFO line 0")
    assert "INFO the last" in lines[-1]
    # On a busy machine the writing thread falls behind before the pipe is full, too: then there are several remarks.
    left_out = [int(count) for count in re.findall(r"\((\d+) lines before it were left out\)\n", ran.stdout.decode())]
    assert sum(left_out) == 30_001 - len(lines)
