"""Long recordings over HTTP: read from the spool piece by piece, within limits of the server's options."""

import io
import tempfile
import time
import tracemalloc

import httpx
import numpy as np
import openai
import pytest
import soundfile

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serving import HEARD, QUESTION, serving
from tests.sound_files import by_ffmpeg, needs_ffmpeg
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.audio.endpointing import BEFORE
from voxrill.runtime.audio.segments import spans
from voxrill.runtime.serve import transcriptions, uploads
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.uploads import heard


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


def flac(*sounds, rate=SAMPLE_RATE):
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(sounds), rate, format="FLAC")
    return file.getvalue()


def silence(seconds):
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def refusal(response):
    assert response.status_code == 400, response.text
    return response.json()["error"]["message"]


def upload(http, data, **fields):
    return http.post("/v1/audio/transcriptions", data=fields, files={"file": ("a", data)})


def test_more_than_ten_minutes_are_heard(server):
    """What is said in the eleventh minute has its time. The noise before a word may count as its beginning."""
    question = read_audio(QUESTION)
    data = flac(question, silence(610), question)
    found = server.client().audio.transcriptions.create(
        model="pebble", file=("a", data), response_format="verbose_json"
    )
    assert [segment.text for segment in found.segments] == [HEARD, HEARD]
    assert found.segments[1].start - found.segments[0].start == pytest.approx(
        610 + len(question) / SAMPLE_RATE, abs=BEFORE
    )
    assert found.duration == pytest.approx(610 + 2 * len(question) / SAMPLE_RATE, abs=0.01)


def test_a_recording_is_never_held_whole():
    """Three minutes take 11.5 MB as samples; what is held at once is less than a third of that."""
    question, longest = read_audio(QUESTION), 15.0
    whole = np.concatenate([question, silence(180), question])
    file = io.BytesIO(flac(whole))
    tracemalloc.start()
    try:
        items = [item for item in heard(file, Limits(), longest, "file") if item is not None]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < whole.nbytes / 3
    assert items[0] == pytest.approx(len(whole) / SAMPLE_RATE)
    for span, same in zip(items[1:], spans(whole, longest), strict=True):
        assert (span.first, span.last, span.joined) == (same.first, same.last, same.joined)
        np.testing.assert_allclose(span.samples, same.samples, atol=1e-4)


def test_the_limit_is_the_servers_and_is_said():
    question = read_audio(QUESTION)
    with serving(Limits(recording=3)) as short, short.http() as http:
        assert upload(http, flac(question)).json()["text"] == HEARD
        for data in (flac(question, silence(2)), flac(silence(601))[:-1]):
            said = refusal(upload(http, data))
            assert "longer than 3 seconds" in said and "--max-audio-seconds" in said


def test_an_hours_limit_holds_while_a_stream_is_decoded(server):
    """A header without a length: the limit is found while the sound is decoded."""
    data = bytearray(flac(np.zeros(8000 * 3605, np.int16), rate=8000))
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the number of samples in FLAC's header: unknown
    assert len(data) < 1 << 20
    with server.http() as http:
        assert "longer than 3600 seconds" in refusal(upload(http, bytes(data)))


def test_a_file_may_be_larger_than_other_bodies():
    data = flac(read_audio(QUESTION))
    with serving(Limits(body=1000, file=len(data) + 1000)) as server, server.http() as http:
        assert upload(http, data).json()["text"] == HEARD
        large = upload(http, data + bytes(2000))
        assert large.status_code == 413 and "--max-upload-mb" in large.json()["error"]["message"]
        assert http.post("/v1/audio/speech", content=bytes(1001)).status_code == 413
    assert Limits().file_upload == 60 and Limits(file=100 << 20).file_upload == 240


def test_a_sound_that_was_cut_off_is_refused_before_it_is_heard(server, monkeypatch):
    """Also as a stream, whose status would be 200 by the time its end is reached."""
    data = flac(np.tile(read_audio(QUESTION), 20))
    monkeypatch.setattr(transcriptions, "transcribe_spans", None)
    with server.http() as http:
        for stream in ("false", "true"):
            assert refusal(upload(http, data[: len(data) // 2], stream=stream))


def test_a_stream_that_fails_ends_with_the_reason(server, monkeypatch):
    """The decoder failed when the sound was read again: OpenAI's client raises what the last event says."""

    def failing(file, longest, param):
        yield from [read_audio(QUESTION), silence(2)]
        raise ApiError(400, "The disk is gone.", "invalid_audio", param)

    monkeypatch.setattr(uploads, "_pieces", failing)
    heard = ""
    with pytest.raises(openai.APIError, match="The disk is gone"):
        for event in server.client().audio.transcriptions.create(model="pebble", file=QUESTION, stream=True):
            heard += event.delta
    assert heard == HEARD
    with pytest.raises(openai.BadRequestError, match="The disk is gone"):
        server.client().audio.transcriptions.create(model="pebble", file=QUESTION)


def test_a_full_disk_is_said(monkeypatch):
    """Of a file that is not held in memory."""

    class Full(tempfile.SpooledTemporaryFile):
        def rollover(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", Full)
    with serving(Limits(spool=1000)) as server, server.http() as http:
        response = upload(http, flac(read_audio(QUESTION)))
    assert response.status_code == 507 and "disk is full" in response.json()["error"]["message"]


def test_the_file_of_a_client_that_leaves_is_closed(server, monkeypatch):
    """However far it was read; and the file of a refused request, of which nothing was read."""
    files = []

    def endless():
        yield 1.0
        while True:
            yield None

    monkeypatch.setattr(transcriptions, "heard", lambda file, *_: files.append(file) or endless())
    with server.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/audio/transcriptions", files={"file": ("a", b"x")}, timeout=0.5)
        assert upload(http, b"x", model="llama-3").status_code == 404
    until = time.monotonic() + 30
    while not all(file.closed for file in files) and time.monotonic() < until:
        time.sleep(0.01)
    assert [file.closed for file in files] == [True, True]


@needs_ffmpeg
@pytest.mark.parametrize("spool", [1000, 1 << 20], ids=["on disk", "in memory"])
def test_what_ffmpeg_decodes_is_read_from_the_spool(tmp_path, spool):
    """Twice: to check it, and to hear it."""
    sound = np.concatenate([read_audio(QUESTION), silence(1), read_audio(QUESTION)])
    memo = by_ffmpeg(sound, tmp_path / "memo.mka", "-c:a", "pcm_s16le")
    with serving(Limits(spool=spool)) as server, server.http() as http:
        assert upload(http, memo.read_bytes()).json()["text"] == f"{HEARD} {HEARD}"
