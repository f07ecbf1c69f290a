"""What clients may send to exhaust the server: it is refused or bounded, and honest clients are answered meanwhile."""

import asyncio
import io
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import websockets

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serve.test_serve_realtime import plain
from tests.serving import HEARD, QUESTION, in_base64, serving
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.uploads import decode, heard

SAMPLES = 57_600_000
"""What `Limits.samples` is."""


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.fixture
def http(server):
    with server.http() as opened:
        yield opened


def silence(seconds, rate=16_000, channels=1):
    """A FLAC file: an hour of silence is some kB."""
    return flac_of(np.zeros((round(seconds * rate), channels), np.int16), rate)


def flac_of(samples, rate=16_000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    return file.getvalue()


def promising(flac, frames):
    """The same FLAC file with another length in its header: 36 bits of its first block, 0 for an unknown one."""
    header = bytearray(flac)
    bits = int.from_bytes(header[21:26], "big")
    header[21:26] = (bits >> 36 << 36 | frames).to_bytes(5, "big")
    return bytes(header)


def chat(*sounds):
    """A chat request with a sound in each question."""
    messages = []
    for sound in sounds:
        part = {"type": "input_audio", "input_audio": {"data": in_base64(sound), "format": "flac"}}
        messages += [{"role": "user", "content": [part]}, {"role": "assistant", "content": "kitchen lights on"}]
    return {"model": "pebble", "messages": messages[:-1]}


def refusal(response):
    assert response.status_code == 400, response.text
    return response.json()["error"]["message"]


# Chat


@pytest.mark.parametrize("length", [599 * 16_000, 0], ids=["true header", "header without a length"])
def test_a_question_is_no_longer_than_the_encoder_holds(http, length):
    """38 kB of silence made an encoder's attention of 4 GB, and everyone else waited for it."""
    flac = promising(silence(599), length)
    assert len(flac) < 100_000
    assert "The sound is longer than 60 seconds" in refusal(http.post("/v1/chat/completions", json=chat(flac)))


def test_all_sounds_of_a_request_are_limited_together(http):
    message = refusal(http.post("/v1/chat/completions", json=chat(*[silence(59)] * 64)))
    assert "more than 600 seconds together" in message


def test_memory_returns_after_the_longest_questions(server, http):
    """The encoder's memory is that of one sound at a time; what onnxruntime keeps for the next is little."""
    question = read_audio(QUESTION)
    talking = flac_of(np.tile(question, 59 * 16_000 // len(question)))  # silence would not reach the encoder
    http.post("/v1/chat/completions", json=chat(flac_of(question)))
    before = psutil.Process().memory_info().rss
    assert http.post("/v1/chat/completions", json=chat(*[talking] * 9)).status_code == 200
    grown = psutil.Process().memory_info().rss - before
    assert grown < 1 << 30  # 160 MB where it was measured


# Uploads


@pytest.mark.parametrize("length", [60 * 655_350, 0], ids=["true header", "header without a length"])
def test_a_sound_of_many_samples_is_refused(length):
    """Of eight channels at 655 kHz a second is much work, and compresses to nothing."""
    flac = promising(silence(0.5, 655_350, 8), length)
    with pytest.raises(ApiError, match=r"8 channels at 655350 Hz|longer than 0\.19"):
        decode(flac, 600, SAMPLES if length else 1_000_000, "file")


def test_a_sound_of_many_channels_is_refused():
    file = io.BytesIO()
    soundfile.write(file, np.zeros((100, 9), np.int16), 16_000, format="WAV")
    with pytest.raises(ApiError, match="9 channels at 16000 Hz"):
        decode(file.getvalue(), 600, SAMPLES, "file")


def test_uploads_hold_up_no_realtime_session(server, monkeypatch):
    """While every thread that decodes uploads is busy, a session begins and takes sound."""
    gate, decoding = threading.Event(), threading.Semaphore(0)

    def held(*arguments):
        decoding.release()
        gate.wait(60)
        yield from heard(*arguments)

    monkeypatch.setattr("voxrill.runtime.serve.transcriptions.heard", held)
    found = []
    client = server.client()
    uploads = [
        threading.Thread(
            target=lambda: found.append(client.audio.transcriptions.create(model="pebble", file=QUESTION).text)
        )
        for _ in range(4)
    ]

    async def talk():
        async with plain(server) as session:
            await session.say(bytes(4800))
            await session.send("input_audio_buffer.clear")
            await session.next("input_audio_buffer.cleared")

    for upload in uploads:
        upload.start()
    try:
        for _ in range(2):
            assert decoding.acquire(timeout=30)
        asyncio.run(talk())
        assert not found
    finally:
        gate.set()
        for upload in uploads:
            upload.join()
    assert found == [HEARD] * 4


# A full disk


@pytest.fixture
def full_disk(monkeypatch):
    """Temporary files can be opened, but hold nothing."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "r+b"))


def test_begun_conversations_go_on_when_the_disk_is_full(full_disk):
    """What cannot be moved to disk stays in memory; new conversations are refused until there is room again."""
    with serving(Limits(memory=1)) as server, server.http() as http:

        async def talk():
            async with plain(server) as first, plain(server) as second:
                for session in (first, second, first, second):
                    await session.write("kitchen lights on")
                    await session.next("response.done")
                with pytest.raises(websockets.InvalidStatus) as denied:
                    async with plain(server):
                        pass
                assert denied.value.response.status_code == 507
                refused = await asyncio.to_thread(http.post, "/v1/chat/completions", json=chat(QUESTION.read_bytes()))
                assert refused.status_code == 507
                assert refused.json()["error"]["code"] == "insufficient_storage"

        asyncio.run(talk())
        while server.metric("voxrill_realtime_sessions") or server.metric("voxrill_state_bytes"):
            time.sleep(0.01)
        for _ in range(3):  # a kept conversation gives way
            assert http.post("/v1/chat/completions", json=chat(QUESTION.read_bytes())).status_code == 200


def test_an_upload_needs_no_disk(server, full_disk):
    sound = np.concatenate([read_audio(QUESTION), np.zeros(1 << 20, np.float32)])
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, format="WAV")
    assert server.client().audio.transcriptions.create(model="pebble", file=("a.wav", file.getvalue())).text == HEARD
