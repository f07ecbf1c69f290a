"""Sound over the realtime WebSocket: its formats, its chunks, and turns that the client ends."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serve.test_serve_realtime import connected, plain, sound_of, text_of
from tests.serving import ANSWER, HEARD, in_base64, serving, spoken
from voxrill.runtime.audio import g711
from voxrill.runtime.audio.sinc_resampler import resample
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.sound_format import FORMATS, PCM_RATES, SoundFormat, SoundIn, SoundOut

COMPLETED = "conversation.item.input_audio_transcription.completed"

KINDS = [*({"type": "audio/pcm", "rate": rate} for rate in PCM_RATES), {"type": "audio/pcmu"}, {"type": "audio/pcma"}]


@pytest.fixture(scope="module")
def server():
    with serving(Limits(sessions=10)) as started:
        yield started


def named(kind):
    return f"{kind['type']} {kind.get('rate', '')}"


def coded(kind, **around):
    """The question in a client's format."""
    pcm = spoken(rate=kind.get("rate", 8000), **around)
    if kind["type"] == "audio/pcm":
        return pcm
    return g711.encode(np.frombuffer(pcm, "<i2"), "ulaw" if kind["type"] == "audio/pcmu" else "alaw")


def heard_in(server, kind, sound):
    """What the model itself hears of an answer's sound."""
    if kind["type"] == "audio/pcm":
        samples, rate = np.frombuffer(sound, "<i2"), kind["rate"]
    else:
        samples, rate = g711.decode(sound, "ulaw" if kind["type"] == "audio/pcmu" else "alaw"), 8000
    waveform = resample(samples.astype(np.float32) / 32768, rate, 16_000)
    return server.service.model.transcribe(waveform, sample_rate=16_000).text


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_spoken_turn_in_every_format(server, kind):
    """Both directions: the model understands what comes, and the answer sounds right in what goes."""

    async def talk():
        async with plain(server) as client:  # the SDK knows no rate but 24 kHz
            heard = {"format": kind, "transcription": {}}
            session = await client.update(audio={"input": heard, "output": {"format": kind}})
            await client.say(coded(kind))
            return session, (await client.next("response.done"))[1]

    session, passed = asyncio.run(talk())
    assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == kind
    (written,) = [event["transcript"] for event in passed if event["type"] == COMPLETED]
    assert written == HEARD and text_of(passed) == ANSWER
    seconds = len(sound_of(passed)) / (kind.get("rate", 8000) * (2 if kind["type"] == "audio/pcm" else 1))
    assert 1 < seconds < 4
    assert heard_in(server, kind, sound_of(passed)) == ANSWER


@pytest.mark.parametrize(("before", "kind"), [("g711_ulaw", "audio/pcmu"), ("g711_alaw", "audio/pcma")])
def test_telephones_from_before_2025(server, before, kind):
    async def talk():
        async with connected(server, beta=True) as client:
            wanted = {"input_audio_format": before, "output_audio_format": before}
            await client.send("session.update", session=wanted)
            session = (await client.next("session.updated"))[0]["session"]
            await client.say(coded({"type": kind}))
            return session, (await client.next("response.done"))[1]

    session, passed = asyncio.run(talk())
    assert session["input_audio_format"] == session["output_audio_format"] == before
    assert text_of(passed, "response.audio_transcript.delta") == ANSWER
    assert heard_in(server, {"type": kind}, sound_of(passed, "response.audio.delta")) == ANSWER


@pytest.mark.parametrize("form", [SoundFormat(rate=rate) for rate in PCM_RATES] + [FORMATS["audio/pcmu"]])
def test_sound_is_the_same_in_chunks_of_any_length(form):
    """Odd ones as well: half a sample waits for its other half."""
    pcm = np.random.default_rng(0).integers(0, 256, 4 * form.rate // 5, np.uint8).tobytes()

    def taken(length):
        sound = SoundIn(form)
        pieces = [sound(pcm[start : start + length]) for start in range(0, len(pcm), length)]
        return np.concatenate([*pieces, sound.rest()])

    for length in (1 + len(pcm) // 7, 997, 641):
        np.testing.assert_allclose(taken(length), taken(len(pcm)), atol=1e-6)


def test_an_answer_in_pieces_is_whole():
    answer = np.sin(np.arange(24_000) / 20).astype(np.float32) / 2
    out = SoundOut(SoundFormat(rate=16_000), 24_000)
    sent = b"".join(out(answer[start : start + 1920]) for start in range(0, len(answer), 1920)) + out.rest()
    assert len(sent) == 2 * 16_000
    ideal = np.sin(np.arange(16_000) / 20 * 1.5) / 2
    assert np.abs(np.frombuffer(sent, "<i2")[200:-200] / 32767 - ideal[200:-200]).max() < 0.01


@pytest.mark.parametrize("rate", [24_000, 48_000])
@pytest.mark.parametrize("by_hand", [False, True], ids=["server", "by hand"])
def test_half_a_minute_in_one_append(server, rate, by_hand):
    """The longest turn that there is, as one message: nothing of it is lost."""
    silence = bytes(2 * 27 * rate)

    async def talk():
        async with plain(server) as client:
            heard = {"format": {"type": "audio/pcm", "rate": rate}, "transcription": {}}
            await client.update(audio={"input": heard | ({"turn_detection": None} if by_hand else {})})
            sound = (silence + spoken(rate=rate, before=0, after=1.2))[: 2 * 30 * rate]
            await client.send("input_audio_buffer.append", audio=in_base64(sound))
            if by_hand:
                await client.send("input_audio_buffer.commit")
            return (await client.next(COMPLETED))[0]["transcript"]

    assert asyncio.run(talk()) == HEARD


def test_more_than_a_turn_at_once_is_refused_in_words(server):
    async def talk():
        async with plain(server) as client:
            await client.update(audio={"input": {"turn_detection": None}})
            await client.send("input_audio_buffer.append", audio=in_base64(bytes(2 * 31 * 24_000)))
            return (await client.next("error"))[0]["error"]

    error = asyncio.run(talk())
    assert error["code"] == "audio_too_long" and "30 seconds" in error["message"]


# Turns that the client ends while the server listens


@pytest.mark.parametrize("kind", ["server_vad", "semantic_vad"])
def test_a_commit_ends_the_turn_while_the_server_listens(server, kind):
    """No silence follows the words, so that the server would wait for ever."""

    async def talk():
        async with connected(server) as client:
            await client.update(audio={"input": {"transcription": {}, "turn_detection": {"type": kind}}})
            said = []
            for _ in range(2):
                await client.say(spoken(after=0))
                await client.send("input_audio_buffer.commit")
                said.append((await client.next("response.done"))[1])
            return said

    for passed in asyncio.run(talk()):
        kinds = [event["type"] for event in passed]
        order = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            COMPLETED,
            "response.output_audio.delta",
        ]
        assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
        assert [event["transcript"] for event in passed if event["type"] == COMPLETED] == [HEARD]
        assert text_of(passed) == ANSWER


def test_a_commit_and_then_response_create_is_one_answer(server):
    """As clients do that end turns themselves: the turn is being answered already."""

    async def talk():
        async with connected(server) as client:
            await client.say(spoken(after=0))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            passed = (await client.next("response.done"))[1]
            await client.write(HEARD)
            return passed, (await client.next("response.done"))[1]

    for passed in asyncio.run(talk()):
        assert text_of(passed) == ANSWER and not [event for event in passed if event["type"] == "error"]


def test_a_commit_of_nothing_is_refused_and_the_session_goes_on(server):
    async def talk():
        async with connected(server) as client:
            await client.say(bytes(24_000))
            await client.send("input_audio_buffer.commit")
            error = (await client.next("error"))[0]["error"]
            await client.say(spoken())
            return error, text_of((await client.next("response.done"))[1])

    error, answer = asyncio.run(talk())
    assert error["code"] == "input_audio_buffer_commit_empty" and answer == ANSWER


def test_a_commit_in_a_session_that_answers_only_when_asked(server):
    async def talk():
        async with connected(server) as client:
            detection = {"type": "server_vad", "create_response": False}
            await client.update(audio={"input": {"turn_detection": detection}})
            await client.say(spoken(after=0))
            await client.send("input_audio_buffer.commit")
            await client.next("input_audio_buffer.committed")
            await client.send("response.create")
            return text_of((await client.next("response.done"))[1])

    assert asyncio.run(talk()) == ANSWER
