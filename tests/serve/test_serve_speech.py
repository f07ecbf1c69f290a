"""How speech is sent: its speed, and AAC."""

import base64
import io
import json
import shutil
import threading

import httpx
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serving import ANSWER, serving
from tests.sound_files import needs_ffmpeg
from voxrill.runtime.audio import ffmpeg
from voxrill.runtime.audio.audio_file import read_audio

RATE = 24_000


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.fixture
def http(server):
    with server.http() as opened:
        yield opened


def said(http, **fields):
    response = http.post("/v1/audio/speech", json={"input": ANSWER, "response_format": "pcm"} | fields)
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.25, 4.0])
def test_speech_at_another_speed(http, speed):
    usual = np.frombuffer(said(http), "<i2")
    made = np.frombuffer(said(http, speed=speed), "<i2")
    assert len(made) == pytest.approx(len(usual) / speed, abs=1)
    assert np.abs(made).mean() == pytest.approx(np.abs(usual).mean(), rel=0.2)


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus"])
def test_every_format_has_the_speed(http, form):
    sound = said(http, response_format=form, speed=2)
    usual = len(said(http)) / 2 / RATE
    assert read_audio(io.BytesIO(sound), RATE).size / RATE == pytest.approx(usual / 2, abs=0.1)


@pytest.mark.parametrize("speed", [None, 1, 1.0])
def test_the_usual_speed_is_the_sound_as_it_is(http, speed):
    assert said(http, speed=speed) == said(http)


@pytest.mark.parametrize("speed", [0, 0.24, 4.01, -1, "fast"])
def test_a_speed_that_cannot_be(http, speed):
    response = http.post("/v1/audio/speech", json={"input": ANSWER, "speed": speed})
    assert response.status_code == 400 and "speed" in response.text


def test_null_means_the_default(http):
    fields = dict.fromkeys(("model", "voice", "response_format", "stream_format", "speed", "seed", "instructions"))
    response = http.post("/v1/audio/speech", json={"input": ANSWER} | fields)
    assert response.headers["content-type"] == "audio/mpeg"


@needs_ffmpeg
def test_aac(server, http):
    """Streamed, as events, and whole in a chat: each is understood."""
    usual, model = len(said(http)) / 2 / RATE, server.service.model
    streamed = http.post("/v1/audio/speech", json={"input": ANSWER, "response_format": "aac"})
    assert streamed.headers["content-type"] == "audio/aac"
    lines = said(http, response_format="aac", stream_format="sse").decode().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    message = {
        "messages": [{"role": "user", "content": "turn on the kitchen lights"}],
        "modalities": ["text", "audio"],
        "audio": {"format": "aac"},
    }
    chat = http.post("/v1/chat/completions", json=message).json()["choices"][0]["message"]["audio"]
    for sound in (
        streamed.content,
        b"".join(base64.b64decode(event.get("audio", "")) for event in events),
        base64.b64decode(chat["data"]),
    ):
        heard = read_audio(io.BytesIO(sound), RATE)
        assert heard.size / RATE == pytest.approx(usual, abs=0.25)
        assert model.transcribe((heard, RATE)).text == ANSWER


def test_aac_without_ffmpeg(http, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    audio = {
        "messages": [{"role": "user", "content": "lights on"}],
        "modalities": ["audio"],
        "audio": {"format": "aac"},
    }
    for path, body in (
        ("/v1/audio/speech", {"input": ANSWER, "response_format": "aac"}),
        ("/v1/chat/completions", audio),
    ):
        error = http.post(path, json=body)
        assert error.status_code == 400 and "ffmpeg" in error.json()["error"]["message"]


@needs_ffmpeg
def test_ffmpeg_ends_with_a_client_that_leaves(server, http, monkeypatch):
    ended = threading.Event()
    close = ffmpeg.AacEncoder.close
    monkeypatch.setattr(ffmpeg.AacEncoder, "close", lambda self: (close(self), ended.set()))
    depthformer = server.service.model.parts.depthformer
    frame, gate = depthformer.frame, threading.Event()
    made = []

    def held(*arguments):
        made.append(arguments)
        if len(made) > 8:
            gate.wait(30)
        return frame(*arguments)

    monkeypatch.setattr(depthformer, "frame", held)
    body = {"input": ANSWER, "response_format": "aac"}
    with pytest.raises(httpx.ReadTimeout), http.stream("POST", "/v1/audio/speech", json=body, timeout=0.5) as response:
        for _ in response.iter_raw():
            pass
    assert ended.wait(30)
    gate.set()


@needs_ffmpeg
def test_an_encoder_that_was_ended_says_so():
    encoder = ffmpeg.AacEncoder(RATE)
    encoder.close()
    with pytest.raises(ffmpeg.FfmpegFailed):
        encoder.push(np.zeros(RATE, np.float32))
    with pytest.raises(ffmpeg.FfmpegFailed):
        encoder.finish()
