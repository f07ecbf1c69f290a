"""What a realtime client may not do to the server: fill its memory with unread events, long ids, or for ever."""

import asyncio
import gc
import json
import socket
import weakref
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import websockets

from tests.serve.test_serve_realtime import plain, sound_of, text_of
from tests.serving import ANSWER, HEARD, in_base64, serving, spoken
from voxrill.runtime.errors import ContextFull
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.outbox import FAILED, SLOW, Outbox
from voxrill.runtime.serve.realtime.session import RealtimeSession
from voxrill.runtime.serve.realtime.session_state import SessionState
from voxrill.runtime.talk.answer import TalkAnswer

UNREAD = 64 << 10
"""Bytes that may wait for a client of these tests."""

PATIENCE = 60
"""Seconds after which a test that waits for what must happen fails."""


# The queue of events


def test_what_waits_is_bounded_and_a_slow_client_is_let_go():
    async def fill():
        outbox = Outbox(100)
        for number in range(30):
            outbox.put(b"%010d" % number)
        return outbox, await outbox.get()

    outbox, event = asyncio.run(fill())
    assert event is None and outbox.closed is SLOW
    assert not outbox._events and outbox._bytes == 0


def test_events_of_several_threads_come_out_whole_and_in_order():
    async def pass_through():
        outbox, came = Outbox(1 << 20), []
        threads = [Thread(target=lambda k=k: [outbox.put(b"%d %d" % (k, n)) for n in range(500)]) for k in range(4)]
        for thread in threads:
            thread.start()
        while len(came) < 2000:
            came.append(await asyncio.wait_for(outbox.get(), PATIENCE))
        outbox.put(b"last")
        outbox.close(FAILED)
        outbox.put(b"too late")
        return came, [await outbox.get(), await outbox.get()]

    came, rest = asyncio.run(pass_through())
    for k in range(4):
        assert [event for event in came if event.startswith(b"%d " % k)] == [b"%d %d" % (k, n) for n in range(500)]
    assert rest == [b"last", None]


def test_half_of_what_may_wait_is_enough_to_stop_the_work():
    async def fill():
        outbox = Outbox(100)
        outbox.put(b"x" * 50)
        before = outbox.full
        outbox.put(b"x")
        return before, outbox.full

    assert asyncio.run(fill()) == (False, True)


# A client that does not read


@pytest.fixture
def most(monkeypatch):
    """The most bytes that waited for any client."""
    seen = [0]
    put = Outbox.put

    def watched(outbox, event):
        put(outbox, event)
        seen[0] = max(seen[0], outbox._bytes)

    monkeypatch.setattr(Outbox, "put", watched)
    return seen


def unreading(server):
    """A socket to the server that takes in little before it is read."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    address = urlsplit(server.url)
    opened.connect((address.hostname, address.port))
    opened.settimeout(PATIENCE)
    return opened


def test_a_flood_of_events_whose_answers_are_not_read_ends_the_session(most, monkeypatch):
    """Every event has an answer. The client is let go, is told why, and the others go on."""
    text, slow, end = "kitchen " * 500, [], Outbox._close

    def watched(outbox, why):
        slow.append(why)
        end(outbox, why)

    monkeypatch.setattr(Outbox, "_close", watched)

    async def flood(server):
        url = server.url.replace("http:", "ws:") + "/realtime"
        async with websockets.connect(url, max_queue=1) as connection:
            event = {"type": "conversation.item.create", "item": {"type": "message", "role": "user"}}
            event["item"]["content"] = [{"type": "input_text", "text": text}]
            sending = asyncio.ensure_future(send(connection, event))
            while not slow:
                await asyncio.sleep(0.01)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    await asyncio.wait_for(connection.recv(), PATIENCE)
            await asyncio.gather(sending, return_exceptions=True)
            return closed.value.rcvd

    async def send(connection, event):
        while not slow:
            await connection.send(json.dumps(event))
            event = {"type": "session.update", "session": {"instructions": text}}

    async def after(server):
        async with plain(server) as client:
            await client.write(HEARD)
            return text_of((await client.next("response.done"))[1])

    with serving(Limits(unread=UNREAD, stall=PATIENCE)) as server:
        told = asyncio.run(flood(server))
        assert (told.code, told.reason) == (SLOW.code, SLOW.reason)
        assert 0 < most[0] <= UNREAD
        assert asyncio.run(after(server)) == ANSWER


def test_an_answer_waits_for_a_client_that_reads_slowly(most, monkeypatch):
    """The model makes no more sound than may wait, and all of the answer comes in the end."""
    full, get = [], Outbox.get

    async def held(outbox):
        if not full:
            while not outbox.full:
                await asyncio.sleep(0.01)
            full.append(outbox._bytes)
        return await get(outbox)

    async def talk(server):
        async with plain(server) as client:
            await client.update(output_modalities=["audio"])
            monkeypatch.setattr(Outbox, "get", held)
            await client.write(HEARD)
            return (await client.next("response.done"))[1]

    with serving(Limits(unread=16 << 10)) as server:
        passed = asyncio.run(talk(server))
    assert full and text_of(passed) == ANSWER and len(sound_of(passed)) > 16 << 10
    assert most[0] <= 16 << 10


def test_a_client_that_reads_nothing_is_cut_off():
    """Its connection would stay for ever: to close it waits until the client has read what was sent."""
    request = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    ping = bytes([0x89, 0x80 | 125]) + bytes(4) + b"x" * 125
    with serving(Limits(stall=0.5)) as server, unreading(server) as opened:
        opened.sendall(request)
        with pytest.raises(ConnectionError):
            for _ in range(1 << 20):  # until nothing fits between the two, and the server cuts the connection
                opened.sendall(ping * 64)


# Ids and other text that is sent back


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.cancel", "event_id": "x" * 100_000},
        {"type": "x" * 100_000},
        {"type": "conversation.item.truncate", "item_id": "x" * 100_000, "audio_end_ms": 0},
        {"type": "session.update", "session": {"voice": "x" * 100_000}},
        {"type": "session.update", "session": {"tool_choice": {"type": "function", "name": "x" * 100_000}}},
        {
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": "x" * 100_000, "output": ""},
        },
        {
            "type": "conversation.item.create",
            "item": {
                "type": "message",
                "role": "user",
                "id": "x" * 100_000,
                "content": [{"type": "input_text", "text": HEARD}],
            },
        },
        {
            "type": "session.update",
            "session": {
                "tools": [{"type": "function", "name": "a", "phrases": ["kitchen"], "description": "x" * 100_000}]
            },
        },
    ],
    ids=["event", "type", "item", "voice", "choice", "call", "own item", "tools"],
)
def test_what_is_sent_back_is_short(event):
    async def talk(server):
        async with plain(server) as client:
            await client.connection.send(json.dumps(event))
            raw = await asyncio.wait_for(client.connection.recv(), PATIENCE)
            return json.loads(raw)["type"], len(raw)

    with serving() as server:
        kind, length = asyncio.run(talk(server))
    assert kind == "error" and length < 3000


# What is waited for


def test_messages_wait_while_the_worker_has_much_to_do(monkeypatch):
    """Changes are not piled up: the client's next message stays unread until the worker has made those before."""
    asked, waited = [], []
    step = RealtimeSession.step

    def watched(session):
        waited.append(session._state.inbox.qsize())
        return len(asked) >= 40 and step(session)

    async def talk(server):
        async with plain(server) as client:
            monkeypatch.setattr(RealtimeSession, "step", watched)
            for number in range(40):
                await client.send("session.update", session={"max_output_tokens": 100 + number})
                if number == 30:
                    while not waited or waited[-1] < 16:
                        await asyncio.sleep(0.01)
                asked.append(number)
            shown = [(await client.next("session.updated"))[0]["session"]["max_output_tokens"] for _ in asked]
            return shown

    with serving() as server:
        shown = asyncio.run(talk(server))
    assert max(waited) == 16 and shown[-1] == 139 and len(shown) == 40


def test_a_message_of_many_pauses_does_not_fill_the_memory(monkeypatch):
    """Each pause holds all that was said in its turn. They only save time: while much waits, none is handed over."""
    waited, held = [], []
    step, post = RealtimeSession.step, SessionState.post

    def held_back(session):
        return bool(held) and step(session)

    def watched(state, change):
        post(state, change)
        waited.append(state.inbox.qsize())

    async def talk(server):
        async with plain(server) as client:
            await client.update(audio={"input": {"transcription": {}}})
            monkeypatch.setattr(RealtimeSession, "step", held_back)
            monkeypatch.setattr(SessionState, "post", watched)
            burst = spoken(before=0.2, after=0)[: 2 * 24_000]  # less than a second of words, and a pause before
            await client.send("input_audio_buffer.append", audio=in_base64(burst * 24 + bytes(2 * 24_000)))
            await client.next("input_audio_buffer.speech_stopped")
            held.append(True)
            return (await client.next("response.done"))[0]["response"]["status"]

    with serving() as server:
        status = asyncio.run(talk(server))
    assert status == "completed" and 8 < max(waited) < 24


# What stays


@pytest.mark.parametrize("when", ["silent", "answered", "answering", "failed", "beside", "outside"])
def test_a_session_s_memory_goes_with_it(monkeypatch, when):
    """Python's cycle collector is not needed for it: it may run long after gigabytes have piled up."""
    made, contexts, outboxes = [], [], []
    init = RealtimeSession.__init__

    def watched(session, *given):
        init(session, *given)
        made.append(weakref.ref(session))
        contexts.append(weakref.ref(session._state.answers.own.conversation.context))
        outboxes.append(weakref.ref(session._outbox))

    monkeypatch.setattr(RealtimeSession, "__init__", watched)

    async def talk(server):
        async with plain(server) as client:
            if when == "silent":
                await client.say(np.zeros(24_000, "<i2").tobytes())
            elif when == "failed":
                monkeypatch.setattr(TalkAnswer, "step", fail)
                await client.write(HEARD)
                assert (await client.next("response.done"))[0]["response"]["status"] == "failed"
            elif when in ("beside", "outside"):
                item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": HEARD}]}
                await client.send("conversation.item.create", item=item)
                own = {"max_output_tokens": 100} if when == "beside" else {"conversation": "none"}
                await client.send("response.create", response=own)
                await client.next("response.output_audio.delta")
            else:
                await client.update(audio={"input": {"transcription": {}}}, tools=[TOOL])
                await client.write(HEARD)
                await client.next("response.done" if when == "answered" else "response.output_audio.delta")

    def fail(_answer):
        raise ContextFull("the context is full")

    gc.collect()
    gc.disable()
    try:
        with serving() as server:
            asyncio.run(talk(server))
            asyncio.run(gone(server, [*made, *contexts, *outboxes]))
    finally:
        gc.enable()


TOOL = {
    "type": "function",
    "name": "lights_off",
    "phrases": ["turn off the kitchen lights"],
    "parameters": {"type": "object", "properties": {}},
}


async def gone(server, references):
    """Wait until nothing is left of what is referred to."""
    async with asyncio.timeout(PATIENCE):
        while server.metric("voxrill_realtime_sessions") or any(reference() is not None for reference in references):
            await asyncio.sleep(0.02)
    assert len(references) == 3 and not server.metric("voxrill_state_bytes")
