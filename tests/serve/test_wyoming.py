"""The Wyoming protocol, as the package's own client speaks it; and a satellite made of the package's own server."""

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import asynccontextmanager, closing, suppress

import numpy as np
import pytest

pytest.importorskip("wyoming", reason="the serve extra is not installed")

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.handle import Handled
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.pipeline import PipelineStage, RunPipeline
from wyoming.satellite import RunSatellite
from wyoming.server import AsyncEventHandler, AsyncTcpServer
from wyoming.snd import Played
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice
from wyoming.vad import VoiceStarted

import voxrill
from tests.places import ROOT
from tests.serving import ANSWER, HEARD, QUESTION, serving
from voxrill.runtime.apps.own_end import pause_judge
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.errors import UsageError
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.log import LOG, OneOfAKind
from voxrill.runtime.serve.realtime.session import RealtimeSession
from voxrill.runtime.serve.wyoming import satellite, satellite_links
from voxrill.runtime.serve.wyoming.addresses import bind, uri_of
from voxrill.runtime.serve.wyoming.handler import ClientHandler
from voxrill.runtime.serve.wyoming.incoming_audio import PcmFormat
from voxrill.runtime.serve.wyoming.server import Wyoming, _ReadAhead

LOCAL = "tcp://127.0.0.1:0"
CHUNK = 1024
"""Samples that Home Assistant sends at once."""

SAYING, OTHER = "kitchen lights on", "bedroom lights off"

ECHO, NEXT = (QUESTION.parent.parent / "tests" / "pebble" / f"{name}.flac" for name in ("04-known", "06-known"))


@pytest.fixture(scope="module")
def listening():
    with closing(bind(LOCAL, anyone=False)) as bound:
        yield bound


@pytest.fixture(scope="module")
def server(listening):
    with serving(wyoming=Wyoming(listening)) as started:
        yield started


@pytest.fixture
def uri(server, listening):
    return uri_of(listening)


@asynccontextmanager
async def connected(uri):
    async with AsyncClient.from_uri(uri, read_timeout=60) as client:
        yield client


async def until(client, *kinds):
    """The events up to the first of those types."""
    events = []
    while not events or events[-1].type not in kinds:
        event = await client.read_event()
        assert event is not None, f"it was closed after {events}"
        events.append(event)
    return events


def pcm(path=QUESTION, rate=16_000, width=2, channels=1):
    """A sound as samples of that form, the same in every channel."""
    scaled = np.rint(read_audio(path, rate) * ((1 << (8 * width - 1)) - 1 - 127 * (width == 4)))
    return np.repeat(scaled.astype(f"<i{width}")[:, None], channels, 1)


async def say(client, samples, rate=16_000, begin=True, end=True):
    form = {"rate": rate, "width": samples.itemsize, "channels": samples.shape[1]}
    if begin:
        await client.write_event(AudioStart(**form).event())
    for start in range(0, len(samples), CHUNK):
        await client.write_event(AudioChunk(**form, audio=samples[start : start + CHUNK].tobytes()).event())
    if end:
        await client.write_event(AudioStop().event())


async def heard(uri, samples, rate=16_000):
    """What is written down of a sound."""
    async with connected(uri) as client:
        await client.write_event(Transcribe(language="en").event())
        await say(client, samples, rate)
        *_, last = await until(client, "transcript", "error")
        return Transcript.from_event(last).text


async def saying(uri, text):
    """The sound of a text, asked for on a connection of its own."""
    async with connected(uri) as client:
        return await spoken(client, text)


async def spoken(client, text):
    """The sound of a text, (n,) in 16 bits."""
    await client.write_event(Synthesize(text).event())
    events = await until(client, "audio-stop", "error")
    return sound_of(events)


def sound_of(events):
    start = AudioStart.from_event(next(event for event in events if event.type == "audio-start"))
    assert (start.rate, start.width, start.channels) == (24_000, 2, 1)
    return np.frombuffer(b"".join(event.payload for event in events if event.type == "audio-chunk"), "<i2")


def test_it_says_what_it_is(uri):
    async def ask():
        async with connected(uri) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            await client.write_event(Ping("you").event())
            return info, Pong.from_event(await client.read_event())

    info, pong = asyncio.run(ask())
    (asr,), (tts,), (handle,) = info.asr, info.tts, info.handle
    assert [model.name for model in (*asr.models, *handle.models)] == ["pebble"] * 2
    assert asr.models[0].languages == ["en"] and tts.voices[0].name and pong.text == "you"
    assert asr.supports_transcript_streaming and tts.supports_synthesize_streaming and handle.supports_handled_streaming


FORMS = [(16_000, 2, 1), (48_000, 4, 2), (44_100, 2, 2), (16_000, 3, 1), (22_050, 3, 2), (16_000, 1, 1), (8_000, 1, 2)]


@pytest.mark.parametrize(("rate", "width", "channels"), FORMS)
def test_sound_of_any_form_becomes_text(uri, rate, width, channels):
    """However the chunks are cut, also within a sample."""
    sent = as_bytes(pcm(rate=rate, width=4, channels=channels), width)

    async def ask():
        async with connected(uri) as client:
            await client.write_event(AudioStart(rate, width, channels).event())
            for start in range(0, len(sent), 4099):
                await client.write_event(AudioChunk(rate, width, channels, sent[start : start + 4099]).event())
            await client.write_event(AudioStop().event())
            *_, last = await until(client, "transcript", "error")
            return last.data

    assert asyncio.run(ask())["text"] == HEARD


def as_bytes(samples, width):
    """32-bit samples as samples of `width` bytes: as in WAV files, one byte is unsigned."""
    upper = np.ascontiguousarray(samples, "<i4").view(np.uint8).reshape(-1, 4)[:, 4 - width :].copy()
    if width == 1:
        upper += 128
    return upper.tobytes()


def test_sound_of_any_width_is_the_same_sound():
    sound = np.array([0.0, 0.5, -0.5, 0.25, -1.0])
    samples = np.rint(sound * (1 << 31)).clip(-(1 << 31), (1 << 31) - 128).astype("<i4")
    for width in (1, 2, 3, 4):
        form = PcmFormat(16_000, width, 1)
        assert np.allclose(form.mono(as_bytes(samples, width)), sound, atol=2.0 ** (1 - 8 * width))


@pytest.mark.parametrize("sound", [np.zeros((0, 1), "<i2"), np.zeros((24_000, 1), "<i2")], ids=["none", "silent"])
def test_sound_without_speech_has_an_empty_transcript(uri, sound):
    assert asyncio.run(heard(uri, sound)) == ""


def test_a_voice_of_null_is_the_default_voice(uri):
    async def ask():
        async with connected(uri) as client:
            sounds = []
            for data in ({"text": SAYING, "voice": None}, {"text": SAYING}):
                await client.write_event(Event("synthesize", data))
                sounds.append(sound_of(await until(client, "audio-stop", "error")))
            await client.write_event(Event("synthesize-start", {"voice": None, "context": None}))
            await client.write_event(SynthesizeChunk(SAYING).event())
            await client.write_event(SynthesizeStop().event())
            return [*sounds, sound_of(await until(client, "synthesize-stopped", "error"))]

    first, second, third = asyncio.run(ask())
    assert np.array_equal(first, second) and np.array_equal(first, third)


def test_a_transcript_streams(uri):
    async def ask():
        async with connected(uri) as client:
            await say(client, pcm())
            return await until(client, "transcript-stop")

    events = asyncio.run(ask())
    kinds = [event.type for event in events]
    assert kinds[0] == "transcript-start" and kinds[-2:] == ["transcript", "transcript-stop"]
    pieces = [event.data["text"] for event in events if event.type == "transcript-chunk"]
    assert len(pieces) > 1 and "".join(pieces).strip() == events[-2].data["text"] == HEARD


def test_words_of_little_confidence_are_kept_from_home_assistant():
    """Of one sound: with a bound below its confidence it is written down, with one above it the transcript is empty."""
    for least, words in ((0.5, HEARD), (0.9999, "")):
        with closing(bind(LOCAL, anyone=False)) as bound, serving(wyoming=Wyoming(bound, least_confidence=least)):
            assert asyncio.run(heard(uri_of(bound), pcm())) == words


def test_a_text_becomes_sound_that_is_heard_as_that_text(server, uri):
    async def ask():
        async with connected(uri) as client:
            whole = await spoken(client, SAYING)
            await client.write_event(SynthesizeStart(SynthesizeVoice(name="default")).event())
            for piece in ("kitchen ", "lights on"):
                await client.write_event(SynthesizeChunk(piece).event())
            await client.write_event(Synthesize(SAYING).event())  # for servers that do not know the others
            await client.write_event(SynthesizeStop().event())
            return whole, await until(client, "synthesize-stopped")

    whole, events = asyncio.run(ask())
    assert np.array_equal(sound_of(events), whole)
    assert asyncio.run(heard(uri, whole[:, None], 24_000)) == SAYING


def test_a_text_is_answered(uri):
    async def ask(text):
        async with connected(uri) as client:
            await client.write_event(Transcript(text, context={"conversation_id": "7"}).event())
            return await until(client, "handled-stop", "not-handled", "error")

    events = asyncio.run(ask(HEARD))
    assert events[0].type == "handled-start" and events[-1].type == "handled-stop"
    whole = Handled.from_event(events[-2])
    assert whole.text.startswith(ANSWER) and whole.context == {"conversation_id": "7"}


def test_clients_at_once_are_not_mixed(server, uri):
    clips = [ECHO, NEXT]
    expected = [server.service.model.transcribe(clip).text for clip in clips]

    async def ask():
        written = (heard(uri, pcm(clip)) for clip in clips)
        return await asyncio.gather(*written, *(saying(uri, text) for text in (SAYING, OTHER, SAYING)))

    alone = {text: asyncio.run(saying(uri, text)) for text in (SAYING, OTHER)}
    *written, first, other, again = asyncio.run(ask())
    assert written == expected and len(set(written)) == 2
    for sound, text in ((first, SAYING), (other, OTHER), (again, SAYING)):
        assert np.array_equal(sound, alone[text])


# What is wrong


def line(kind, data=b"", payload=b"", **changes):
    """An event's bytes, with what is said of their lengths changed."""
    head = {"type": kind, "data_length": len(data), "payload_length": len(payload), **changes}
    return json.dumps(head).encode() + b"\n" + data + payload


FORM = b'{"rate": 16000, "width": 2, "channels": 1}'

BROKEN = {
    "no JSON": b"hello\n",
    "no object": b"[]\n",
    "nested deeply": b"[" * 60_000 + b"\n",
    "no type": b"{}\n",
    "no UTF-8": b'{"type": "\xff"}\n',
    "a long line": b"x" * 100_000,
    "a length below nothing": line("audio-chunk", payload_length=-1),
    "a length that is a text": line("audio-chunk", payload_length="many"),
    "more than there may be": line("audio-chunk", payload_length=1 << 40),
    "data that is none": line("audio-start", b"{"),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_event_ends_the_connection(uri, sent):
    async def send():
        async with connected(uri) as client:
            client._writer.write(sent)
            error = await client.read_event()
            return error, await client.read_event()

    error, end = asyncio.run(send())
    assert error.type == "error" and error.data["code"] in ("invalid_event", "too_large") and end is None


WRONG = {
    "sound that was not begun": ([AudioStop().event()], "audio-start"),
    "a form without a rate": ([Event("audio-start", {"width": 2, "channels": 1})], "rate"),
    "a rate of nothing": ([AudioStart(0, 2, 1).event()], "rate"),
    "samples of five bytes": ([AudioStart(16_000, 5, 1).event()], "width"),
    "another rate": ([AudioStart(16_000, 2, 1).event(), AudioChunk(8_000, 2, 1, b"ab").event()], "changed its rate"),
    "text where sound belongs": ([AudioStart(16_000, 2, 1).event(), Event("audio-chunk", {"text": "a"})], "rate"),
    "a language": ([Transcribe(language="de-DE").event()], "'de-DE'"),
    "an empty text": ([Synthesize(" ").event()], "empty"),
    "a long text": ([Synthesize("on " * 2000).event()], "longer than"),
    "pieces that grow": ([SynthesizeStart().event(), SynthesizeChunk("on " * 2000).event()], "longer than"),
    "no text": ([Event("synthesize", {})], "text"),
    "markup": ([Event("synthesize", {"text": "on", "text_format": "ssml"})], "ssml"),
    "a voice": ([Synthesize("on", SynthesizeVoice(name="nobody")).event()], "no voice 'nobody'"),
}


@pytest.mark.parametrize(("sent", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_request_that_fails_is_told_why_and_ends_the_connection(uri, sent, words):
    """Home Assistant's client waits for a transcript or for sound, whatever else comes, until the connection ends."""

    async def send():
        async with connected(uri) as client:
            for event in sent:
                await client.write_event(event)
            return await client.read_event(), await client.read_event()

    error, end = asyncio.run(send())
    assert error.type == "error" and words in error.data["text"] and end is None
    assert asyncio.run(heard(uri, pcm())) == HEARD


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (Transcript(" ").event(), "empty"),
        (Transcript("on " * 2000).event(), "longer than"),
        (Transcript("on", language="de").event(), "'de'"),
        (Event("transcript", {}), "text"),
        (Transcript("on", context={"conversation_id": "x" * 10_000}).event(), "context takes more than"),
    ],
    ids=["empty", "long", "language", "none", "context"],
)
def test_a_question_that_fails_is_not_handled_and_the_client_goes_on(uri, sent, words):
    async def ask():
        async with connected(uri) as client:
            await client.write_event(sent)
            refused = await client.read_event()
            await client.write_event(Event("no-such-event"))
            await say(client, pcm())
            *_, last = await until(client, "transcript", "error")
            return refused, last

    refused, last = asyncio.run(ask())
    assert refused.type == "not-handled" and words in refused.data["text"] and len(refused.data["text"]) < 2000
    assert last.data.get("text") == HEARD


def test_what_nobody_foresaw_is_told_and_the_others_go_on(uri, monkeypatch, caplog):
    async def ask():
        async with connected(uri) as client:
            await client.write_event(Describe().event())
            return await client.read_event(), await client.read_event()

    with monkeypatch.context() as broken:
        broken.setattr("voxrill.runtime.serve.wyoming.handler.server_info", lambda manifest: 1 / 0)
        error, end = asyncio.run(ask())
    assert "made a mistake" in error.data["text"] and end is None
    assert "ZeroDivisionError" in caplog.text
    assert asyncio.run(heard(uri, pcm())) == HEARD


def test_a_mistake_that_many_clients_meet_is_logged_once(uri, monkeypatch, caplog):
    async def ask():
        async with connected(uri) as client:
            await client.write_event(Describe().event())
            return (await client.read_event()).type

    async def everyone():
        return await asyncio.gather(*(ask() for _ in range(20)))

    filtered = OneOfAKind()
    LOG.addFilter(filtered)
    try:
        monkeypatch.setattr("voxrill.runtime.serve.wyoming.handler.server_info", lambda manifest: 1 / 0)
        assert asyncio.run(everyone()) == ["error"] * 20
    finally:
        LOG.removeFilter(filtered)
    assert len(caplog.records) == 1


def test_requests_are_counted(server, uri):
    asyncio.run(heard(uri, pcm()))
    assert 'voxrill_requests_total{route="wyoming audio-stop",status="200"}' in server.service.metrics.text().decode()


def test_too_much_is_refused_until_there_is_room():
    async def ask(uri, service):
        async with connected(uri) as first:
            await say(first, pcm(), end=False)
            while service.worker._slots == 0:
                await asyncio.sleep(0.01)
            async with connected(uri) as second:
                await second.write_event(Synthesize(SAYING).event())
                refused, end = await second.read_event(), await second.read_event()
                assert end is None
            await say(first, pcm()[:0], begin=False)
            *_, transcript = await until(first, "transcript", "error")
        return refused, transcript, await saying(uri, SAYING)

    with (
        closing(bind(LOCAL, anyone=False)) as bound,
        serving(Limits(active=1, queue=0), wyoming=Wyoming(bound)) as small,
    ):
        refused, transcript, sound = asyncio.run(ask(uri_of(bound), small.service))
    assert refused.data["code"] == "rate_limit_exceeded" and transcript.data["text"] == HEARD and len(sound)


def test_limits_of_length_and_patience():
    async def ask(uri):
        async with connected(uri) as long, connected(uri) as slow:
            await say(long, pcm()[:1].repeat(32_000, 0), end=False)
            await slow.write_event(AudioStart(16_000, 2, 1).event())
            return await long.read_event(), await slow.read_event(), await slow.read_event()

    limits = Limits(audio=1.0, upload=0.5)
    with closing(bind(LOCAL, anyone=False)) as bound, serving(limits, wyoming=Wyoming(bound)):
        long, slow, end = asyncio.run(ask(uri_of(bound)))
    assert long.data["code"] == "audio_too_long" and slow.data["code"] == "timeout" and end is None


def test_too_often():
    async def ask(uri):
        async with connected(uri) as client:
            await client.write_event(Synthesize(SAYING).event())
            await until(client, "audio-stop")
            await client.write_event(Synthesize(SAYING).event())
            return await client.read_event(), await client.read_event()

    with closing(bind(LOCAL, anyone=False)) as bound, serving(Limits(rate=1), wyoming=Wyoming(bound)):
        refused, end = asyncio.run(ask(uri_of(bound)))
    assert refused.data["code"] == "rate_limit_exceeded" and end is None


# Attacks


@pytest.mark.parametrize("limits", [Limits(connections=3), Limits(address_connections=3)], ids=["all", "one address"])
def test_connections_are_limited_and_there_is_room_again(limits):
    """One address alone cannot take all connections; what is too many is told so at once."""

    async def ask(uri):
        silent = [await asyncio.open_connection("127.0.0.1", int(uri.rpartition(":")[2])) for _ in range(3)]
        async with connected(uri) as refused:
            event, end = await refused.read_event(), await refused.read_event()
        for _, writer in silent:
            writer.close()
        return event, end

    async def after(uri):
        while True:
            with suppress(ConnectionError):  # the system may reset what is refused at once
                async with connected(uri) as client:
                    await client.write_event(Ping("you").event())
                    event = await client.read_event()
                    if event is not None and event.type == "pong":
                        return True

    with closing(bind(LOCAL, anyone=False)) as bound, serving(limits, wyoming=Wyoming(bound)):
        event, end = asyncio.run(ask(uri_of(bound)))
        assert event.data["code"] == "busy" and end is None
        assert asyncio.run(asyncio.wait_for(after(uri_of(bound)), 60))


def test_a_socket_in_the_file_system_is_one_user_s_who_may_use_all_connections(tmp_path):
    limits = Limits(address_connections=1)
    with closing(bind(f"unix://{tmp_path}/socket", anyone=False)) as bound, serving(limits, wyoming=Wyoming(bound)):

        async def ask():
            async with connected(uri_of(bound)), connected(uri_of(bound)) as second:
                await second.write_event(Ping("you").event())
                return await second.read_event()

        assert asyncio.run(ask()).type == "pong"


@pytest.mark.parametrize("sent", [b"", b'{"type": '], ids=["nothing", "half an event"])
def test_a_connection_that_says_nothing_is_closed_soon(sent):
    """One that has said something may be quiet for longer: some clients keep their connection."""

    async def wait(uri):
        async with connected(uri) as silent, connected(uri) as client:
            silent._writer.write(sent)
            await client.write_event(Ping("a").event())
            pong = await client.read_event()
            events = [await silent.read_event(), await silent.read_event()]
            await client.write_event(Ping("b").event())
            return pong, events, await client.read_event()

    limits = Limits(headers=0.2)
    with closing(bind(LOCAL, anyone=False)) as bound, serving(limits, wyoming=Wyoming(bound)):
        pong, (error, end), again = asyncio.run(wait(uri_of(bound)))
    assert error.data["code"] == "timeout" and end is None
    assert pong.data["text"] == "a" and again.data["text"] == "b"


def test_what_is_read_ahead_is_bounded(uri, server, monkeypatch):
    """Events of a client that waits for its turn stay in its own buffers, and none is lost."""
    held, ahead = threading.Event(), []
    take, put = ClientHandler.take, _ReadAhead.put

    async def watched(waiting, event, size):
        ahead.append(waiting._bytes + size)
        await put(waiting, event, size)

    async def slowly(handler, event):
        while event.data.get("text") == "first" and not held.is_set():
            await asyncio.sleep(0.01)
        await take(handler, event)

    monkeypatch.setattr(_ReadAhead, "put", watched)
    monkeypatch.setattr(ClientHandler, "take", slowly)

    async def ask():
        async with connected(uri) as client:
            for text in ("first", *map(str, range(2000))):
                await client.write_event(Ping(text).event())
            while len(ahead) < 100:
                await asyncio.sleep(0.01)
            counted = len(ahead)
            held.set()
            return counted, [(await client.read_event()).data["text"] for _ in range(2001)]

    counted, texts = asyncio.run(asyncio.wait_for(ask(), 60))
    assert counted < 200 and max(ahead) < 80 << 10
    assert texts == ["first", *map(str, range(2000))]


def test_who_leaves_gives_its_place_back(server, uri):
    async def leave():
        async with connected(uri) as client:
            await say(client, pcm(), end=False)
        async with connected(uri) as client:
            await client.write_event(Synthesize(SAYING).event())
            await until(client, "audio-chunk")
        while server.service.worker._slots:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 30))
    assert asyncio.run(heard(uri, pcm())) == HEARD


# Addresses


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://0.0.0.0:10300", "--wyoming-anyone"),
        ("tcp://127.0.0.1", "is not an address"),
        ("tcp://127.0.0.1:many", "is not an address"),
        ("http://127.0.0.1:1", "tcp://ADDRESS:PORT"),
        ("unix:///no/such/folder/socket", "cannot listen"),
    ],
)
def test_addresses_that_are_refused(cli, address, message):
    cli.refuses("serve", "--wyoming", address, saying=(message,))


def test_a_satellite_that_is_no_address_is_refused(cli):
    cli.refuses("serve", "--satellite", "kitchen", saying=("kitchen is not an address", "tcp://ADDRESS:PORT"))


def test_anyone_may_be_let_in():
    bind("tcp://0.0.0.0:0", anyone=True).close()


def test_a_socket_in_the_file_system(tmp_path):
    place = f"unix://{tmp_path}/socket"
    bind(place, anyone=False).close()  # what a server that is killed leaves behind
    with closing(bind(place, anyone=False)) as bound:
        assert (tmp_path / "socket").stat().st_mode & 0o077 == 0
        with serving(wyoming=Wyoming(bound)):
            assert asyncio.run(heard(place, pcm())) == HEARD
            with pytest.raises(UsageError, match="cannot listen"):
                bind(place, anyone=False)


# Satellites


SILENCE = np.zeros((16_000, 1), "<i2")


class Microphone(AsyncEventHandler):
    """A satellite that asks its question once, and keeps what it is sent."""

    def __init__(self, run, events, *streams):
        super().__init__(*streams)
        self._run, self._events = run, events

    async def handle_event(self, event):
        self._events.append(event)
        if RunSatellite.is_type(event.type):
            await self.write_event(self._run.event())
            asyncio.get_running_loop().create_task(self._ask())
        return True

    async def stay_silent(self):
        """Ask nothing."""

    async def _ask(self):
        await self.play(SILENCE, pcm(), SILENCE)

    async def play(self, *sounds):
        """Hear those sounds, one after the other, at once."""
        sound = np.concatenate(sounds)
        for start in range(0, len(sound), CHUNK):
            await self.write_event(AudioChunk(16_000, 2, 1, sound[start : start + CHUNK].tobytes()).event())


class CutOff(Microphone):
    """It stops as soon as the last word is said, as those do that stream for some seconds only."""

    async def _ask(self):
        await self.play(SILENCE, pcm())
        await self.write_event(AudioStop().event())


class Taken(Microphone):
    """It talks with another server."""

    async def handle_event(self, event):
        self._events.append(event)
        return False


class Echoing(Microphone):
    """It hears its own loudspeaker late, says that it has played, and is asked something else."""

    _echoed = False

    async def handle_event(self, event):
        await super().handle_event(event)
        if AudioStop.is_type(event.type) and not self._echoed:
            self._echoed = True
            asyncio.get_running_loop().create_task(self._echo())
        return True

    async def _echo(self):
        await asyncio.sleep(len(sound_of(self._events)) / 24_000 + 0.5)  # by the server's clock it is quiet again
        await self.play(pcm(ECHO), SILENCE)
        await self.write_event(Played().event())
        await asyncio.sleep(2 * satellite.TAIL)
        await self.play(SILENCE, pcm(NEXT), SILENCE)


async def told(events, kind, count=1):
    """Wait until a satellite has had `count` events of that type."""
    until = time.monotonic() + 20
    while sum(event.type == kind for event in events) < count:
        assert time.monotonic() < until, [event.type for event in events]
        await asyncio.sleep(0.02)


def satellites_told(runs, kind, words=None, later=False, made=Microphone, count=1, judge=None, model=None):
    """The events that satellites with those pipelines get, until each has had `count` events of that type.

    words: what the server says of them. later: they come after the server. made: what they are. judge, model: the
    server's.
    """

    async def talk():
        heard, ports = [[] for _ in runs], [free_port() for _ in runs]
        servers = [AsyncTcpServer("127.0.0.1", port) for port in ports]

        async def begin():
            for server, run, events in zip(servers, runs, heard, strict=True):
                await server.start(lambda *streams, run=run, events=events: made(run, events, *streams))

        names = tuple(f"tcp://127.0.0.1:{port}" for port in ports)
        home = Wyoming(None, names, (words if words is not None else []).append)
        context = serving(wyoming=home, judge=judge, model=model)
        if not later:
            await begin()
        await asyncio.to_thread(context.__enter__)
        try:
            if later:
                while not words:
                    await asyncio.sleep(0.02)
                await begin()
            await asyncio.gather(*(told(events, kind, count) for events in heard))
        finally:
            await asyncio.gather(*(server.stop() for server in servers))
            await asyncio.to_thread(context.__exit__, None, None, None)
        return heard

    return asyncio.run(talk())


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_satellites_are_answered_aloud(server, uri):
    """Two at once: each hears an answer of its own, and reads what it asked."""
    run = RunPipeline(PipelineStage.ASR, PipelineStage.TTS)
    for events in satellites_told([run, run], "handled"):
        kinds = [event.type for event in events if event.type not in ("audio-chunk", "ping")]
        assert kinds == [
            *("run-satellite", "voice-started", "voice-stopped"),
            *("transcript", "audio-start", "audio-stop", "handled"),
        ]
        named = {event.type: event for event in events}
        assert named["transcript"].data["text"] == HEARD and named["handled"].data["text"] == ANSWER
        assert VoiceStarted.from_event(named["voice-started"]).timestamp == pytest.approx(1000, abs=300)
        assert asyncio.run(heard(uri, sound_of(events)[:, None], 24_000)) == ANSWER


def test_a_satellite_without_a_loudspeaker_reads_its_answer():
    (events,) = satellites_told([RunPipeline(PipelineStage.WAKE, PipelineStage.HANDLE, restart_on_end=True)], "handled")
    assert "audio-start" not in [event.type for event in events]
    assert next(event for event in events if event.type == "handled").data["text"].startswith(ANSWER)


def test_what_a_satellite_cannot_have_is_told():
    (events,) = satellites_told([RunPipeline(PipelineStage.TTS, PipelineStage.TTS, announce_text="hello")], "error")
    assert "not with tts" in events[-1].data["text"]


def test_a_satellite_is_looked_for_until_it_is_there(monkeypatch):
    monkeypatch.setattr(satellite_links, "RETRY", 0.1)
    words = []
    satellites_told([RunPipeline(PipelineStage.ASR, PipelineStage.TTS)], "handled", words, later=True)
    assert "is not there" in words[0] and words[1].endswith("is there")


def test_a_run_in_which_nothing_is_said_ends(monkeypatch):
    monkeypatch.setattr(satellite, "PING", 0.1)
    monkeypatch.setattr(satellite, "UNSPOKEN", 0.2)
    monkeypatch.setattr(Microphone, "_ask", Microphone.stay_silent)
    (events,) = satellites_told([RunPipeline(PipelineStage.ASR, PipelineStage.TTS)], "error")
    error = next(event for event in events if event.type == "error")
    assert error.data["code"] == "stt-no-text-recognized"


def test_a_satellite_that_stops_is_answered_with_what_it_sent():
    (events,) = satellites_told([RunPipeline(PipelineStage.WAKE, PipelineStage.TTS)], "transcript", made=CutOff)
    assert next(event for event in events if event.type == "transcript").data["text"] == HEARD


@pytest.mark.parametrize(("made", "probability"), [(Microphone, 1.0), (CutOff, 0.0)])
def test_a_satellite_is_answered_by_meaning_where_the_server_can(made, probability):
    """Its turns are judged. One that seems unfinished is answered all the same where the sound just stops."""
    asked = []

    def judge(sound, options):
        asked.append(len(sound))
        return options.patience.silence(probability)

    run = RunPipeline(PipelineStage.WAKE, PipelineStage.TTS)
    (events,) = satellites_told([run], "transcript", made=made, judge=judge)
    assert asked and next(event for event in events if event.type == "transcript").data["text"] == HEARD


class Brief(Microphone):
    """After its command it sends less silence than ends a turn, and never says that it stops."""

    async def _ask(self):
        await self.play(SILENCE, pcm(), SILENCE[: round(0.4 * 16_000)])


def test_a_satellite_is_answered_at_its_first_pause_by_the_built_in_models_own_word():
    model = voxrill.load(threads=1)
    run = RunPipeline(PipelineStage.WAKE, PipelineStage.TTS)
    judge = pause_judge(model, None, None, print)
    (events,) = satellites_told([run], "transcript", made=Brief, judge=judge, model=model)
    assert next(event for event in events if event.type == "transcript").data["text"] == HEARD


def test_a_satellite_does_not_answer_its_own_loudspeaker(server):
    run = RunPipeline(PipelineStage.WAKE, PipelineStage.TTS, restart_on_end=True)
    (events,) = satellites_told([run], "transcript", made=Echoing, count=2)
    written = [event.data["text"] for event in events if event.type == "transcript"]
    assert written == [HEARD, server.service.model.transcribe(NEXT).text]


def test_a_satellite_whose_session_broke_gets_another(monkeypatch, caplog):
    broken, step = [], RealtimeSession.step

    def once(session):
        if not broken:
            broken.append(session)
            raise ZeroDivisionError
        return step(session)

    monkeypatch.setattr(satellite_links, "RETRY", 0.1)
    monkeypatch.setattr(RealtimeSession, "step", once)
    run = RunPipeline(PipelineStage.ASR, PipelineStage.TTS)
    satellites_told([run], "run-satellite", count=2)
    assert "ZeroDivisionError" in caplog.text and broken


def test_a_satellite_that_another_server_has_is_told_of_once(monkeypatch):
    monkeypatch.setattr(satellite_links, "RETRY", 0.05)
    words = []
    run = RunPipeline(PipelineStage.ASR, PipelineStage.TTS)
    satellites_told([run], "run-satellite", words, made=Taken, count=3)
    assert len(words) == 1 and "is not there" in words[0]


def test_who_does_not_read_is_left_and_the_others_go_on():
    limits = Limits(stall=0.3)

    async def ask(uri):
        with pytest.raises(ConnectionError):
            async with connected(uri) as client:
                while True:  # until nothing fits between the two, and the server gives it up
                    await asyncio.wait_for(client.write_event(Describe().event()), 30)

    with closing(bind(LOCAL, anyone=False)) as bound, serving(limits, wyoming=Wyoming(bound)):
        asyncio.run(ask(uri_of(bound)))
        assert asyncio.run(heard(uri_of(bound), pcm())) == HEARD


def test_the_page_has_every_event_that_is_taken():
    page = (ROOT / "docs" / "reference" / "wyoming.md").read_text(encoding="utf-8")
    table = page.partition("## Events that it takes")[2].partition("Any other event")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)]
    assert sorted(named) == sorted(ClientHandler(None, None, "", None, None)._takes)
