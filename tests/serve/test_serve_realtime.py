"""The realtime WebSocket, with OpenAI's own client in both of its dialects, and with anything else that may come."""

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import openai
import websockets

from tests.serving import ANSWER, HEARD, in_base64, serving, spoken
from voxrill.runtime.serve.access import KEY_PROTOCOL, Admission
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.playback import ClientPlayer

KEY = "a-key-of-24-characters-x"
PIECE = 4800
"""Bytes of sound that are sent at once: a tenth of a second."""


@pytest.fixture(scope="module")
def server():
    with serving(Limits(sessions=10)) as started:
        yield started


class Client:
    """A session as a test drives it."""

    def __init__(self, connection):
        self.connection = connection

    async def next(self, kind):
        """The next event of that type; every event on the way."""
        passed = []
        while not passed or passed[-1]["type"] != kind:
            event = await asyncio.wait_for(self.connection.recv(), 30)
            passed.append(event.to_dict() if hasattr(event, "to_dict") else json.loads(event))
        return passed[-1], passed

    async def send(self, kind, **fields):
        event = {"type": kind, **fields}
        if isinstance(self.connection, websockets.ClientConnection):
            await self.connection.send(json.dumps(event))
        else:
            await self.connection.send(event)

    async def say(self, pcm):
        for start in range(0, len(pcm), PIECE):
            await self.send("input_audio_buffer.append", audio=in_base64(pcm[start : start + PIECE]))

    async def write(self, text):
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send("conversation.item.create", item=item)
        await self.send("response.create")

    async def update(self, **session):
        await self.send("session.update", session={"type": "realtime", **session})
        return (await self.next("session.updated"))[0]["session"]


@asynccontextmanager
async def connected(server, beta=False, **options):
    """The official client, connected; `session.created` has come."""
    client = server.async_client()
    realtime = client.beta.realtime if beta else client.realtime
    async with realtime.connect(model="pebble", **options) as connection:
        made = Client(connection)
        await made.next("session.created")
        yield made


@asynccontextmanager
async def plain(server, **options):
    """Any client, connected."""
    url = server.url.replace("http:", "ws:") + "/realtime"
    async with websockets.connect(url, **options) as connection:
        made = Client(connection)
        await made.next("session.created")
        yield made


def text_of(passed, kind="response.output_audio_transcript.delta"):
    return "".join(event["delta"] for event in passed if event["type"] == kind)


def sound_of(passed, kind="response.output_audio.delta"):
    return b"".join(base64.b64decode(event["delta"]) for event in passed if event["type"] == kind)


@pytest.mark.parametrize("beta", [False, True], ids=["present", "before"])
def test_a_spoken_turn(server, beta):
    """The server finds out when the user is done, writes down the question, and answers aloud."""

    async def talk():
        async with connected(server, beta) as client:
            wanted = {"model": "pebble"}
            if beta:
                await client.send("session.update", session={"input_audio_transcription": wanted})
            else:
                await client.update(audio={"input": {"transcription": wanted}})
            await client.say(spoken())
            return (await client.next("response.done"))[1]

    passed = asyncio.run(talk())
    kinds = [event["type"] for event in passed]
    audio = "response.audio" if beta else "response.output_audio"
    order = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.created" if beta else "conversation.item.added",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        f"{audio}_transcript.delta",
        f"{audio}.delta",
        f"{audio}.done",
        f"{audio}_transcript.done",
        "response.done",
    ]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    written = passed[kinds.index("conversation.item.input_audio_transcription.completed")]
    assert written["transcript"] == HEARD
    assert text_of(passed, "conversation.item.input_audio_transcription.delta") == HEARD
    assert text_of(passed, f"{audio}_transcript.delta") == ANSWER
    assert len(sound_of(passed, f"{audio}.delta")) > 48_000
    started, stopped, committed = (
        passed[kinds.index(order[0])],
        passed[kinds.index(order[1])],
        passed[kinds.index(order[2])],
    )
    assert started["item_id"] == stopped["item_id"] == committed["item_id"] == written["item_id"]
    assert 600 < started["audio_start_ms"] < 900 and 2000 < stopped["audio_end_ms"] < 2500
    assert passed[kinds.index("response.done")]["response"]["status"] == "completed"


@pytest.mark.parametrize("by_hand", [False, True], ids=["server", "by hand"])
def test_sound_may_be_cut_within_a_sample(server, by_hand):
    """Chunks of an odd number of bytes are joined; what is left over at the end of a turn does not shift the next."""

    async def talk():
        async with connected(server) as client:
            await client.update(audio={"input": {"transcription": {}, **({"turn_detection": None} if by_hand else {})}})
            written = []
            for _ in range(2):
                sent = (spoken(before=0, after=0) + b"\x7f") if by_hand else spoken()
                for start in range(0, len(sent), PIECE + 1):
                    await client.send("input_audio_buffer.append", audio=in_base64(sent[start : start + PIECE + 1]))
                if by_hand:
                    await client.send("input_audio_buffer.commit")
                written.append((await client.next("conversation.item.input_audio_transcription.completed"))[0])
            return [event["transcript"] for event in written]

    assert asyncio.run(talk()) == [HEARD, HEARD]


def test_turns_by_hand_and_in_writing(server):
    async def talk():
        async with connected(server) as client:
            session = await client.update(audio={"input": {"turn_detection": None}})
            assert session["audio"]["input"]["turn_detection"] is None
            await client.say(spoken(before=0, after=0))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            aloud = await client.next("response.done")
            await client.write("turn on the kitchen lights")
            return aloud[1], (await client.next("response.done"))[1]

    for passed in asyncio.run(talk()):
        assert text_of(passed) == ANSWER and sound_of(passed)


def test_answers_in_writing_only(server):
    async def talk():
        async with connected(server) as client:
            await client.update(output_modalities=["text"])
            await client.say(spoken())
            return (await client.next("response.done"))[1]

    passed = asyncio.run(talk())
    assert text_of(passed, "response.output_text.delta") == ANSWER and not sound_of(passed)


def test_an_answer_only_when_it_is_asked_for(server):
    async def talk():
        async with connected(server) as client:
            detection = {"type": "server_vad", "create_response": False}
            await client.update(audio={"input": {"turn_detection": detection}})
            await client.say(spoken())
            await client.next("input_audio_buffer.committed")
            await client.send("response.create")
            return (await client.next("response.done"))[1]

    assert text_of(asyncio.run(talk())) == ANSWER


def test_the_user_interrupts_what_still_sounds(server, monkeypatch):
    """The answer is all sent, but not all heard, as the clock has it: what was not heard is forgotten."""
    monkeypatch.setattr(ClientPlayer, "busy", lambda _player: True)
    monkeypatch.setattr(ClientPlayer, "played", lambda _player: 12_000)

    async def talk():
        async with connected(server) as client:
            await client.say(spoken())
            answer = (await client.next("response.done"))[0]["response"]["output"][0]["id"]
            await client.say(spoken(before=0))
            _, started = await client.next("input_audio_buffer.speech_started")
            await client.send("conversation.item.truncate", item_id=answer, content_index=0, audio_end_ms=60_000)
            passed = [*started, *(await client.next("response.done"))[1]]
            if not any(event["type"] == "conversation.item.truncated" for event in passed):
                passed += (await client.next("conversation.item.truncated"))[1]
            return answer, passed

    answer, passed = asyncio.run(talk())
    (truncated,) = [event for event in passed if event["type"] == "conversation.item.truncated"]
    assert truncated["item_id"] == answer and truncated["audio_end_ms"] == 500
    assert text_of(passed) == ANSWER


def test_an_answer_of_which_less_was_heard_than_the_clock_says(server, monkeypatch):
    """A client that was late to play: its session goes on."""
    monkeypatch.setattr(ClientPlayer, "busy", lambda _player: True)
    monkeypatch.setattr(ClientPlayer, "played", lambda _player: 12_000)

    async def talk():
        async with connected(server) as client:
            await client.write("turn on the kitchen lights")
            answer = (await client.next("response.done"))[0]["response"]["output"][0]["id"]
            await client.send("conversation.item.truncate", item_id=answer, content_index=0, audio_end_ms=0)
            truncated, _ = await client.next("conversation.item.truncated")
            await client.write("turn on the kitchen lights")
            return truncated["audio_end_ms"], text_of((await client.next("response.done"))[1])

    assert asyncio.run(talk()) == (0, ANSWER)


def slowly(monkeypatch, server, seconds):
    """Let every frame of speech take this many seconds."""
    depthformer = server.service.model.parts.depthformer
    frame = depthformer.frame
    monkeypatch.setattr(depthformer, "frame", lambda *given: (time.sleep(seconds), frame(*given))[1])


@pytest.mark.parametrize("how", ["cancel", "truncate", "speech"])
def test_an_answer_that_is_cut_short(server, monkeypatch, how):
    slowly(monkeypatch, server, 0.1)

    async def talk():
        async with connected(server) as client:
            await client.write("turn on the kitchen lights")
            delta, _ = await client.next("response.output_audio.delta")
            if how == "cancel":
                await client.send("response.cancel")
            elif how == "truncate":
                await client.send(
                    "conversation.item.truncate", item_id=delta["item_id"], content_index=0, audio_end_ms=0
                )
            else:
                await client.say(spoken(before=0))
            done, passed = await client.next("response.done")
            if how == "speech":
                assert text_of((await client.next("response.done"))[1]) == ANSWER
            else:
                await client.write("turn on the kitchen lights")
                assert text_of((await client.next("response.done"))[1]) == ANSWER
            return done["response"], passed

    response, passed = asyncio.run(talk())
    assert response["status"] == "cancelled" and len(sound_of(passed)) < 70_000
    assert response["status_details"]["reason"] == ("turn_detected" if how == "speech" else "client_cancelled")


def test_eight_at_once_lose_and_mix_nothing(server):
    """Each session asks for something of its own, spoken or written, several times; each answer is its own."""
    rooms = ("kitchen", "bedroom", "bathroom", "garage", "hall", "office", "garden", "kitchen")

    async def session(room):
        async with connected(server) as client:
            answers = []
            for turn in range(4):
                if room == "kitchen" and turn % 2:
                    await client.say(spoken())
                else:
                    await client.write(f"turn on the {room} lights")
                answers.append(text_of((await client.next("response.done"))[1]))
            return answers

    async def everyone():
        return await asyncio.gather(*map(session, rooms))

    assert asyncio.run(everyone()) == [[f"{room} lights on"] * 4 for room in rooms]


def test_states_beyond_the_memory_go_to_disk_and_come_back():
    with serving(Limits(memory=1)) as small:

        async def everyone():
            async with connected(small) as one, connected(small) as other:
                said = []
                for client in (one, other, one, other):
                    await client.write("turn on the kitchen lights")
                    said.append(text_of((await client.next("response.done"))[1]))
                return said

        assert asyncio.run(everyone()) == [ANSWER] * 4
        assert small.metric("voxrill_evictions_total") > 0
        while small.metric("voxrill_realtime_sessions") or small.metric("voxrill_state_bytes"):
            asyncio.run(asyncio.sleep(0.01))
        assert small.metric("voxrill_parked_states") == 0


# What cannot be


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("hello", "not an event"),
        (b"\0\1\2\3", "Events are JSON text"),
        ("[" * 10_000, "not an event"),
        ({"type": "nonsense"}, "not an event"),
        ({"type": "input_audio_buffer.append", "audio": "hello, there!"}, "not base64"),
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.commit"}, "Nobody has spoken"),
        ({"type": "response.cancel"}, "No answer"),
        ({"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 1}, "no item 'x'"),
        ({"type": "session.update", "session": {"tools": [{}]}}, "tools"),
        ({"type": "session.update", "session": {"turn_detection": {"type": "clever"}}}, "semantic_vad"),
        ({"type": "session.update", "session": {"voice": "nobody"}}, "no voice 'nobody'"),
        ({"type": "session.update", "session": {"input_audio_format": "mp3"}}, "g711_ulaw"),
    ],
)
def test_an_event_that_cannot_be(server, event, message):
    """It is told, and the session goes on."""

    async def talk():
        async with plain(server) as client:
            await client.connection.send(json.dumps(event) if isinstance(event, dict) else event)
            error, _ = await client.next("error")
            await client.write("turn on the kitchen lights")
            return error["error"]["message"], text_of((await client.next("response.done"))[1])

    told, answer = asyncio.run(talk())
    assert message in told and answer == ANSWER


def test_what_waits_to_be_answered_is_bounded(server):
    async def talk():
        async with plain(server) as client:
            await client.update(audio={"input": {"turn_detection": None}})
            for _ in range(4):
                await client.say(5 * spoken(before=0, after=0))  # 9 seconds; of silence nothing would be kept
                await client.send("input_audio_buffer.commit")
            return (await client.next("error"))[0]["error"]["message"]

    assert "Send response.create" in asyncio.run(talk())


def test_an_error_names_its_event(server):
    async def talk():
        async with plain(server) as client:
            await client.send("response.cancel", event_id="mine")
            return (await client.next("error"))[0]["error"]

    error = asyncio.run(talk())
    assert error["event_id"] == "mine" and error["code"] == "response_cancel_not_active"


def refusal(server, **options):
    async def knock():
        async with plain(server, **options):
            pass

    with pytest.raises(websockets.InvalidStatus) as refused:
        asyncio.run(knock())
    response = refused.value.response
    return response.status_code, json.loads(response.body)["error"]


def test_other_sites_pages_may_not_connect(server):
    assert refusal(server, origin="https://example.org")[0] == 403


def test_a_key_is_asked_for_and_browsers_have_a_way_to_send_it():
    with serving(admission=Admission(KEY, ())) as locked:
        assert refusal(locked)[0] == 401
        assert refusal(locked, additional_headers={"Authorization": "Bearer wrong"})[0] == 401

        async def talk(**options):
            async with plain(locked, **options) as client:
                return client.connection.subprotocol

        assert asyncio.run(talk(additional_headers={"Authorization": f"Bearer {KEY}"})) is None
        assert asyncio.run(talk(subprotocols=["realtime", f"{KEY_PROTOCOL}{KEY}"])) == "realtime"


def test_no_more_sessions_than_allowed():
    with serving(Limits(sessions=1)) as small:

        async def both():
            async with plain(small):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    async with plain(small):
                        pass
                return refused.value.response

        response = asyncio.run(both())
        assert response.status_code == 429 and int(response.headers["Retry-After"]) > 0

        async def after():
            while small.metric("voxrill_realtime_sessions"):
                await asyncio.sleep(0.01)
            async with plain(small):
                return True

        assert asyncio.run(after())


def test_another_model(server):
    async def knock():
        async with server.async_client().realtime.connect(model="llama-3"):
            pass

    with pytest.raises((openai.OpenAIError, websockets.InvalidStatus), match="404"):
        asyncio.run(knock())


def test_a_session_that_is_silent_ends():
    with serving(Limits(idle=0.2)) as impatient:

        async def wait():
            async with plain(impatient) as client:
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await client.next("nothing")
                return closed.value.rcvd.reason

        assert asyncio.run(wait()) == "idle"


def test_a_message_that_is_too_large(server):
    async def send():
        async with plain(server) as client:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.connection.send("x" * (Limits.websocket_message + 1))
                await client.next("nothing")
            return closed.value.rcvd.code

    assert asyncio.run(send()) == 1009


# What was played, by the clock


def test_playback_is_known_by_the_clock():
    now, sent = 10.0, []
    player = ClientPlayer(1000, sent.append, lambda: None, lambda: now)
    player.begin(None, 1.0)
    assert not player.busy() and player.played() == 0
    player.push(np.zeros(500, np.float32))
    now += 0.2
    assert player.played() == 200 and player.busy()
    player.push(np.zeros(500, np.float32))
    now += 0.7
    assert player.played() == 900
    now += 0.6  # it ran dry for half a second
    assert player.played() == 1000 and not player.busy()
    player.push(np.zeros(500, np.float32))
    now += 0.1
    assert player.stop() == 1100 and not player.busy()
    assert len(sent) == 3
