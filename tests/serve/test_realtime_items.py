"""The conversation's items over the realtime WebSocket: every role and kind, their order, and what becomes of them."""

import asyncio

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serve.test_realtime_responses import add, remembering, respond, user
from tests.serve.test_serve_realtime import connected, plain, sound_of, text_of
from tests.serve.test_serve_tools import called, lights
from tests.serving import ANSWER, HEARD, in_base64, serving, spoken
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.playback import ClientPlayer

COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.fixture(scope="module")
def server():
    with serving(Limits(sessions=10)) as started:
        yield started


@pytest.fixture
def told(server, monkeypatch):
    """What the conversations of the next session were told, as text."""
    return remembering(server, monkeypatch)


def said(role, text):
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


async def create(client, item, **fields):
    """An item that is created; the event that says so."""
    await client.send("conversation.item.create", item=item, **fields)
    added, _ = await client.next("conversation.item.added")
    await client.next("conversation.item.done")
    return added


async def refused(client, kind, **fields):
    await client.send(kind, **fields)
    return (await client.next("error"))[0]["error"]


def test_a_history_of_every_role_is_told_and_answered(server, told):
    """As frameworks do that bring a conversation with them."""

    async def talk():
        async with connected(server) as client:
            for item in (said("system", "you are pebble"), user("hello"), said("assistant", "good morning")):
                await create(client, item)
            await client.write(HEARD)
            return (await client.next("response.done"))[1], told()

    passed, conversations = asyncio.run(talk())
    assert text_of(passed)
    order = [conversations[0].index(text) for text in ("you are pebble", "hello", "good morning", HEARD)]
    assert order == sorted(order)


def test_the_item_before_is_named(server):
    """Each event names the item before it, also those of the server's own items."""

    async def talk():
        async with connected(server) as client:
            first = await create(client, user("hello", id="first"))
            root = await create(client, said("system", "you are pebble"), previous_item_id="root")
            between = await create(client, said("assistant", "good morning"), previous_item_id="first")
            answer = await respond(client)
            await client.say(spoken())
            return first, root, between, answer, (await client.next("response.done"))[1]

    first, root, between, answer, spoken_turn = asyncio.run(talk())
    assert first["previous_item_id"] is None and root["previous_item_id"] is None
    assert between["previous_item_id"] == "first"
    (added,) = [event for event in answer if event["type"] == "conversation.item.added"]
    assert added["previous_item_id"] == between["item"]["id"]
    committed = next(event for event in spoken_turn if event["type"] == "input_audio_buffer.committed")
    own = [event for event in spoken_turn if event["type"] == "conversation.item.added"]
    assert committed["previous_item_id"] == own[0]["previous_item_id"] == added["item"]["id"]
    assert own[1]["previous_item_id"] == own[0]["item"]["id"] == committed["item_id"]


def test_an_item_goes_where_it_is_put(server, told):
    async def talk():
        async with connected(server) as client:
            await create(client, user("hello", id="first"))
            await create(client, said("assistant", "good night"))
            await create(client, said("assistant", "good morning"), previous_item_id="first")
            await client.write(HEARD)
            await client.next("response.done")
            return told()

    (conversation,) = asyncio.run(talk())
    order = [conversation.index(text) for text in ("hello", "good morning", "good night", HEARD)]
    assert order == sorted(order)


def test_an_item_is_retrieved_as_it_became(server):
    async def talk():
        async with connected(server) as client:
            await client.update(audio={"input": {"transcription": {}}})
            await client.say(spoken())
            passed = (await client.next("response.done"))[1]
            names = [event["item"]["id"] for event in passed if event["type"] == "conversation.item.added"]
            found = []
            for name in names:
                await client.send("conversation.item.retrieve", item_id=name)
                found.append((await client.next("conversation.item.retrieved"))[0]["item"])
            return found, await refused(client, "conversation.item.retrieve", item_id="x", event_id="rci_x")

    (question, answer), error = asyncio.run(talk())
    assert question["role"] == "user" and question["content"] == [{"type": "input_audio", "transcript": HEARD}]
    assert answer["role"] == "assistant" and answer["status"] == "completed"
    assert answer["content"] == [{"type": "output_audio", "transcript": ANSWER}]
    assert error["code"] == "item_retrieve_invalid_item_id" and error["event_id"] == "rci_x"


def test_a_deleted_item_is_forgotten(server, told):
    """One that waits is not answered, and one that was answered is not remembered."""

    async def talk():
        async with connected(server) as client:
            await create(client, user("turn on the garage lights", id="waits"))
            await client.send("conversation.item.delete", item_id="waits")
            deleted, _ = await client.next("conversation.item.deleted")
            await add(client, HEARD)
            item, _ = await client.next("conversation.item.added")
            passed = await respond(client)
            await client.send("conversation.item.delete", item_id=item["item"]["id"])
            await client.next("conversation.item.deleted")
            await client.write("thank you")
            await client.next("response.done")
            return deleted, passed, await refused(client, "conversation.item.delete", item_id="waits"), told()

    deleted, passed, error, conversations = asyncio.run(talk())
    assert deleted["item_id"] == "waits" and text_of(passed) == ANSWER
    assert error["code"] == "item_delete_invalid_item_id"
    assert "garage" not in conversations[0] and HEARD not in conversations[0]
    assert conversations[0].index(ANSWER) < conversations[0].index("thank you")


def test_an_answer_that_is_over_is_cut_to_what_was_heard(server, told, monkeypatch):
    """A client may find out late how much its user heard."""
    monkeypatch.setattr(ClientPlayer, "busy", lambda _player: False)

    async def talk():
        async with connected(server) as client:
            await client.write(HEARD)
            item = (await client.next("response.done"))[0]["response"]["output"][0]["id"]
            await client.write("thank you")
            await client.next("response.done")
            await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0)
            truncated, _ = await client.next("conversation.item.truncated")
            await client.write("hello")
            await client.next("response.done")
            await client.send("conversation.item.retrieve", item_id=item)
            return item, truncated, (await client.next("conversation.item.retrieved"))[0]["item"], told()

    item, truncated, found, conversations = asyncio.run(talk())
    assert truncated["item_id"] == item and truncated["audio_end_ms"] == 0
    assert len(found["content"][0]["transcript"]) < len(ANSWER)
    cut, after = conversations[0].split(HEARD)[1].split("thank you", 1)
    assert ANSWER not in cut and "hello" in after


def test_only_answers_are_cut(server):
    async def talk():
        async with connected(server) as client:
            await create(client, user("hello", id="mine"))
            return await refused(client, "conversation.item.truncate", item_id="mine", audio_end_ms=1, content_index=0)

    assert asyncio.run(talk())["code"] == "item_truncate_invalid_item_id"


def test_several_parts_and_several_messages_are_one_question(server, told):
    """Sound with a written addition, text in two parts, and messages in a row."""
    sound = {"type": "input_audio", "audio": in_base64(spoken(before=0, after=0))}
    parts = [{"type": "input_text", "text": text} for text in ("turn on the", "bedroom lights")]

    async def talk():
        async with connected(server) as client:
            await client.update(audio={"input": {"transcription": {}}})
            both = [sound, {"type": "input_text", "text": "in the bedroom"}]
            added = await create(client, {"type": "message", "role": "user", "content": both})
            written, _ = await client.next(COMPLETED)
            spoken_and_written = await respond(client)
            await create(client, {"type": "message", "role": "user", "content": parts})
            in_parts = await respond(client)
            for text in ("turn on the", "garage lights"):
                await create(client, user(text))
            return added, written, spoken_and_written, in_parts, await respond(client), told()[0]

    added, written, spoken_and_written, in_parts, in_a_row, conversation = asyncio.run(talk())
    assert [part["type"] for part in added["item"]["content"]] == ["input_audio", "input_text"]
    assert written["transcript"] == HEARD and written["content_index"] == 0
    assert written["item_id"] == added["item"]["id"]
    assert text_of(spoken_and_written).endswith("lights on") and sound_of(spoken_and_written)
    assert text_of(in_parts).endswith("lights on") and text_of(in_a_row).endswith("lights on")
    assert all(f"turn on the \n {room} lights" in conversation for room in ("bedroom", "garage"))


def test_a_written_addition_is_read_with_the_sound(server, told):
    async def talk():
        async with connected(server) as client:
            sound = {"type": "input_audio", "audio": in_base64(spoken(before=0, after=0))}
            content = [sound, {"type": "input_text", "text": "in the bedroom"}]
            await create(client, {"type": "message", "role": "user", "content": content})
            return await respond(client), told()[0]

    passed, conversation = asyncio.run(talk())
    assert "in the bedroom" in conversation and text_of(passed).endswith("lights on")


# Function calls


def test_calls_of_an_earlier_talk(server):
    """A client brings a call with it, and its output; the output is told when it comes last."""

    async def talk():
        async with connected(server) as client:
            await create(client, user(HEARD))
            call = {"type": "function_call", "name": "set_lights", "arguments": "{}", "call_id": "mine"}
            added = await create(client, call)
            output = {"type": "function_call_output", "call_id": "mine", "output": "kitchen lights on"}
            await create(client, output)
            aloud = await respond(client)
            error = await refused(client, "conversation.item.create", item=output)
            return added, aloud, error

    added, aloud, error = asyncio.run(talk())
    assert added["item"]["name"] == "set_lights" and added["item"]["call_id"] == "mine"
    assert text_of(aloud) == "kitchen lights on" and error["code"] == "call_not_found"


def test_an_output_and_then_a_question(server, told):
    """Both are told, and the question is answered."""

    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights()])
            await client.write(HEARD)
            call = (await client.next("response.done"))[1]
            output = {"type": "function_call_output", "call_id": call[-1]["response"]["output"][0]["call_id"]}
            await create(client, output | {"output": "all lights on"})
            await client.write("thank you")
            return call, (await client.next("response.done"))[1], told()

    call, passed, conversations = asyncio.run(talk())
    assert called(call)[0] == "set_lights" and text_of(passed)
    own = conversations[0]
    assert own.index(HEARD) < own.index("all lights on") < own.index("thank you")


# What cannot be


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"item": user("hello"), "previous_item_id": "x"}, "previous_item_id"),
        ({"item": {"type": "message", "role": "user", "content": []}}, "item.content"),
        ({"item": user("  ")}, "item.content"),
        ({"item": {"type": "message", "role": "user", "content": [{"type": "input_image"}]}}, "item.content[0].type"),
        ({"item": {"type": "message", "role": "user", "content": [{"type": "input_text"}]}}, "item.content[0].text"),
        ({"item": {"type": "message", "role": "judge", "content": []}}, "item.role"),
        ({"item": {"type": "mcp_call"}}, "item.type"),
        ({"item": user("x" * 5000)}, "item.content"),
        ({"item": {"type": "function_call", "name": "a", "arguments": "x" * 5000}}, "item.arguments"),
    ],
)
def test_an_item_that_cannot_be(server, event, param):
    async def talk():
        async with plain(server) as client:
            error = await refused(client, "conversation.item.create", event_id="mine", **event)
            await client.write(HEARD)
            return error, text_of((await client.next("response.done"))[1])

    error, answer = asyncio.run(talk())
    assert error["param"] == param and error["event_id"] == "mine" and answer == ANSWER


def test_an_id_is_given_once(server):
    async def talk():
        async with connected(server) as client:
            await create(client, user("hello", id="mine"))
            return await refused(client, "conversation.item.create", item=user("hello", id="mine"))

    assert asyncio.run(talk())["code"] == "item_exists"


def test_old_items_are_let_go(server):
    """The list of items is bounded: the conversation goes on without the oldest."""

    async def talk():
        async with plain(server) as client:
            for number in range(300):
                await create(client, said("assistant", "good morning") | {"id": f"item_{number}"})
            old = await refused(client, "conversation.item.retrieve", item_id="item_0")
            await client.send("conversation.item.retrieve", item_id="item_299")
            return old, (await client.next("conversation.item.retrieved"))[0]["item"]["id"]

    old, newest = asyncio.run(talk())
    assert old["code"] == "item_retrieve_invalid_item_id" and newest == "item_299"
