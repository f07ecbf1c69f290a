"""response.create over the realtime WebSocket: greetings, options of one response, and responses outside the talk."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serve.test_serve_realtime import connected, plain, slowly, sound_of, text_of
from tests.serve.test_serve_tools import called, lights
from tests.serving import ANSWER, HEARD, in_base64, serving, spoken
from voxrill.runtime.audio import g711
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.out_of_band import OutOfBand

GREETING = "hello how can i help"
"""What the built-in model answers to "hello"."""

WRITTEN = "response.output_text.delta"


@pytest.fixture(scope="module")
def server():
    with serving(Limits(sessions=10)) as started:
        yield started


def user(text, **fields):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **fields}


async def respond(client, **response):
    """A response with these options; all events until it is done."""
    await client.send("response.create", response=response)
    return (await client.next("response.done"))[1]


async def add(client, text):
    await client.send("conversation.item.create", item=user(text))


# Greetings


@pytest.mark.parametrize(
    "response", [{}, {"instructions": "Greet the user warmly and offer your help."}], ids=["bare", "instructions"]
)
def test_a_greeting_needs_no_item(server, response):
    async def talk():
        async with connected(server) as client:
            await client.update(instructions="You are a friendly assistant.")
            greeting = await respond(client, **response)
            await client.write(HEARD)
            return greeting, (await client.next("response.done"))[1]

    greeting, after = asyncio.run(talk())
    assert text_of(greeting) == GREETING and sound_of(greeting) and greeting[-1]["response"]["status"] == "completed"
    assert text_of(after) == ANSWER


def test_a_model_that_can_follow_instructions_is_asked_them(server, monkeypatch):
    """The built-in one has a closed vocabulary, and greets; it stands for another here."""
    asked = []
    tokenizer = type(server.service.model.parts.tokenizer)
    monkeypatch.setattr(tokenizer, "closed", property(lambda _tokenizer: False))
    reading = server.service.model.parts.reading
    question = reading.question
    monkeypatch.setattr(reading, "question", lambda text, spoken: (asked.append(text), question(text, spoken))[1])

    async def talk():
        async with connected(server) as client:
            return await respond(client, instructions="turn on the kitchen lights")

    asyncio.run(talk())
    assert asked == ["turn on the kitchen lights"]


# Options of one response


def test_modalities_of_one_response(server):
    async def talk():
        async with connected(server) as client:
            await add(client, HEARD)
            written = await respond(client, output_modalities=["text"])
            await client.write(HEARD)
            aloud = (await client.next("response.done"))[1]
            await client.update(output_modalities=["text"])
            await add(client, HEARD)
            once_aloud = await respond(client, output_modalities=["audio"])
            await client.write(HEARD)
            return written, aloud, once_aloud, (await client.next("response.done"))[1]

    written, aloud, once_aloud, again_written = asyncio.run(talk())
    for passed in (written, again_written):
        assert text_of(passed, WRITTEN) == ANSWER and not sound_of(passed)
        assert passed[-1]["response"]["output_modalities"] == ["text"]
        assert passed[-1]["response"]["output"][0]["content"] == [{"type": "output_text", "text": ANSWER}]
    for passed in (aloud, once_aloud):
        assert text_of(passed) == ANSWER and sound_of(passed)
        assert passed[-1]["response"]["output_modalities"] == ["audio"]


def test_a_spoken_turn_with_a_response_of_its_own(server):
    async def talk():
        async with connected(server) as client:
            await client.update(audio={"input": {"turn_detection": None}})
            await client.say(spoken(before=0, after=0))
            await client.send("input_audio_buffer.commit")
            return await respond(client, output_modalities=["text"], max_output_tokens=100, metadata={"a": "b"})

    passed = asyncio.run(talk())
    assert text_of(passed, WRITTEN) == ANSWER
    created = next(event for event in passed if event["type"] == "response.created")
    for response in (created["response"], passed[-1]["response"]):
        assert response["metadata"] == {"a": "b"} and response["max_output_tokens"] == 100


def test_the_limit_of_one_response(server):
    async def talk():
        async with connected(server) as client:
            await add(client, HEARD)
            short = await respond(client, max_output_tokens=1)
            await client.write(HEARD)
            return short, (await client.next("response.done"))[1]

    short, whole = asyncio.run(talk())
    assert len(text_of(short)) < len(ANSWER) and text_of(whole) == ANSWER


def test_the_user_interrupts_a_response_with_options_of_its_own(server, monkeypatch):
    slowly(monkeypatch, server, 0.1)

    async def talk():
        async with connected(server) as client:
            await add(client, HEARD)
            await client.send("response.create", response={"max_output_tokens": 100})
            await client.next("response.output_audio.delta")
            await client.say(spoken(before=0))
            cut = (await client.next("response.done"))[0]["response"]
            return cut, (await client.next("response.done"))[1]

    cut, after = asyncio.run(talk())
    assert cut["status"] == "cancelled" and cut["status_details"]["reason"] == "turn_detected"
    assert cut["output"][0]["status"] == "incomplete" and text_of(after) == ANSWER


def test_a_response_in_another_format(server):
    async def talk():
        async with connected(server) as client:
            await add(client, HEARD)
            return await respond(client, audio={"output": {"format": {"type": "audio/pcmu"}, "voice": "marin"}})

    passed = asyncio.run(talk())
    assert passed[-1]["response"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert 8000 < len(sound_of(passed)) < 24_000


def test_tools_of_one_response(server):
    async def talk():
        async with connected(server) as client:
            await add(client, HEARD)
            calls = await respond(client, tools=[lights()])
            await client.write(HEARD)
            return calls, (await client.next("response.done"))[1]

    calls, after = asyncio.run(talk())
    assert called(calls) == ("set_lights", {"room": "kitchen", "state": True}) and text_of(after) == ANSWER


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"metadata": {"a": 1}}, "response.metadata"),
        ({"metadata": {"a": "x" * 513}}, "response.metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, "response.metadata"),
        ({"conversation": "mine"}, "response.conversation"),
        ({"input": [user(HEARD)]}, "response.input"),
        ({"input": [{"type": "web"}], "conversation": "none"}, "response.input[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}], "conversation": "none"}, "response.input"),
        ({"output_modalities": []}, "response.output_modalities"),
        ({"temperature": 0.8}, "response.temperature"),
        ({"prompt": {"id": "x"}}, "response.prompt"),
        ({"colour": "red"}, "response.colour"),
        ({"instructions": "x" * 5000}, "response.instructions"),
    ],
)
def test_a_response_that_cannot_be(server, response, param):
    """It is refused by name, and not made without what was asked."""

    async def talk():
        async with connected(server) as client:
            await client.send("response.create", event_id="mine", response=response)
            error = (await client.next("error"))[0]["error"]
            await client.write(HEARD)
            return error, (await client.next("response.done"))[1]

    error, passed = asyncio.run(talk())
    assert error["param"] == param and error["event_id"] == "mine" and text_of(passed) == ANSWER


# Outside the conversation


def test_a_response_outside_the_conversation(server):
    """Its items are its own, its metadata come back, and the conversation does not know of it."""

    async def talk():
        async with connected(server) as client:
            wanted = {"conversation": "none", "output_modalities": ["text"], "metadata": {"topic": "rooms"}}
            outside = await respond(client, **wanted, input=[user("turn on the bedroom lights")])
            await client.write(HEARD)
            return outside, (await client.next("response.done"))[1]

    outside, after = asyncio.run(talk())
    response = outside[-1]["response"]
    assert text_of(outside, WRITTEN) == "bedroom lights on" and response["metadata"] == {"topic": "rooms"}
    assert response["conversation_id"] is None and response["output"][0]["role"] == "assistant"
    assert not [event for event in outside if event["type"].startswith("conversation.item")]
    assert text_of(after) == ANSWER and after[-1]["response"]["conversation_id"]


def test_what_an_outside_response_may_be_asked(server):
    """Sound, items of the conversation, and messages before the question."""

    async def talk():
        async with connected(server) as client:
            await client.update(audio={"input": {"turn_detection": None}})
            sound = {"type": "input_audio", "audio": in_base64(spoken(before=0, after=0))}
            heard = {"type": "message", "role": "user", "content": [sound]}
            before = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
            await client.send("conversation.item.create", item=user("turn on the garage lights", id="mine"))
            await client.next("conversation.item.added")
            outside = {"conversation": "none", "output_modalities": ["text"]}
            asked = [
                [heard],
                [user("hello"), before, user("turn on the hall lights")],
                [{"type": "item_reference", "id": "mine"}],
                [],
            ]
            said = [await respond(client, **outside, input=items) for items in asked]
            return [text_of(passed, WRITTEN) for passed in said], await respond(client)

    said, after = asyncio.run(talk())
    assert said == [ANSWER, "hall lights on", "garage lights on", GREETING]
    assert text_of(after) == "garage lights on"  # it still waited


def test_an_outside_response_is_made_beside_one_that_sounds(server, monkeypatch):
    slowly(monkeypatch, server, 0.05)

    async def talk():
        async with connected(server) as client:
            await client.write(HEARD)
            await client.next("response.output_audio.delta")
            outside = {"conversation": "none", "output_modalities": ["text"], "metadata": {"outside": "yes"}}
            await client.send("response.create", response={**outside, "input": [user("turn on the hall lights")]})
            return [(await client.next("response.done"))[0]["response"] for _ in range(2)]

    done = {bool(response["metadata"]): response for response in asyncio.run(talk())}
    assert done[True]["output"][0]["content"][0]["text"] == "hall lights on"
    assert done[False]["status"] == "completed"
    assert done[False]["output"][0]["content"][0]["transcript"] == ANSWER


def test_outside_responses_are_bounded(server, monkeypatch):
    monkeypatch.setattr(OutOfBand, "over", property(lambda _outside: False))

    async def talk():
        async with plain(server) as client:
            for _ in range(5):
                await client.send("response.create", response={"conversation": "none", "input": [user(HEARD)]})
            return (await client.next("error"))[0]["error"]

    assert asyncio.run(talk())["code"] == "conversation_already_has_active_response"


def test_the_sound_that_an_outside_response_brings_is_bounded(server):
    question = g711.encode(np.frombuffer(spoken(rate=8000, before=0, after=0), "<i2"), "ulaw")
    sound = {"type": "input_audio", "audio": in_base64(5 * question)}  # 9 seconds; of silence nothing would be kept
    items = [{"type": "message", "role": "user", "content": [sound]}] * 4

    async def talk():
        async with plain(server) as client:
            heard = {"format": {"type": "audio/pcmu"}}
            await client.update(audio={"input": heard, "output": heard})
            await client.send("response.create", response={"conversation": "none", "input": items})
            return (await client.next("error"))[0]["error"]

    assert "30 seconds of sound" in asyncio.run(talk())["message"]


def test_an_outside_response_is_cancelled_by_its_id(server, monkeypatch):
    slowly(monkeypatch, server, 0.1)

    async def talk():
        async with connected(server) as client:
            await client.send("response.create", response={"conversation": "none", "input": [user(HEARD)]})
            created, _ = await client.next("response.created")
            await client.send("response.cancel", response_id=created["response"]["id"])
            done, _ = await client.next("response.done")
            await client.send("response.cancel", response_id="resp_x")
            return created["response"]["id"], done["response"], (await client.next("error"))[0]["error"]

    name, response, error = asyncio.run(talk())
    assert response["id"] == name and response["status"] == "cancelled"
    assert error["code"] == "response_cancel_not_active"


# What the model remembers


def test_a_response_with_instructions_of_its_own_is_remembered(server, monkeypatch):
    """The next turn knows it, though it was made with another prompt."""
    remembered = remembering(server, monkeypatch)

    async def talk():
        async with connected(server) as client:
            await add(client, HEARD)
            await respond(client, output_modalities=["text"])
            await client.write("thank you")
            await client.next("response.done")
            return remembered()

    told = asyncio.run(talk())[0]
    assert told.index(HEARD) < told.index(ANSWER) < told.index("thank you")


def remembering(server, monkeypatch):
    """Let the built-in model remember all turns. Returns what every conversation was told so far, as text."""
    monkeypatch.setattr(server.service, "turns", None)
    conversations = []
    make = server.service.model.conversation

    def made(**given):
        conversations.append(make(**given))
        return conversations[-1]

    monkeypatch.setattr(server.service.model, "conversation", made)
    tokenizer = server.service.model.parts.tokenizer

    def told():
        pieces = [[ids for piece in one.context.pieces for ids in getattr(piece, "ids", ())] for one in conversations]
        return [tokenizer.decode(list(ids)) for ids in pieces]

    return told
