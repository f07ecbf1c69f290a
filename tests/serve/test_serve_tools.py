"""Tools over the realtime WebSocket, with OpenAI's own client: calls always fit, and their output is spoken."""

import asyncio
import json

import jsonschema_rs
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serve.test_serve_realtime import connected, plain, slowly, sound_of, text_of
from tests.serving import ANSWER, HEARD, serving, spoken
from voxrill.runtime.apps.calling import Caller
from voxrill.runtime.audio.sound_writer import wav_header
from voxrill.runtime.errors import ContextFull
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.call_decider import CallDecider

ROOMS = ["kitchen", "bedroom", "bathroom", "garage", "hall", "office", "garden", "living room"]


def lights(rooms=ROOMS, name="set_lights"):
    state = {"type": "boolean", "words": {"true": ["on"], "false": ["off"]}}
    return {
        "type": "function",
        "name": name,
        "description": "Turns the lights of a room on or off.",
        "phrases": ["turn {state} the {room} lights", "{room} lights {state}"],
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string", "enum": rooms}, "state": state},
            "required": ["room", "state"],
            "additionalProperties": False,
        },
    }


TIMER = {
    "type": "function",
    "name": "set_timer",
    "phrases": ["set a timer for {minutes} minutes"],
    "parameters": {
        "type": "object",
        "properties": {"minutes": {"type": "integer", "minimum": 2, "maximum": 10}},
        "required": ["minutes"],
    },
}


@pytest.fixture(scope="module")
def server():
    with serving(Limits(sessions=10)) as started:
        yield started


def called(passed):
    """The function call among a response's events, as its name and arguments."""
    (item,) = passed[-1]["response"]["output"]
    assert item["type"] == "function_call", item
    return item["name"], json.loads(item["arguments"])


async def ask(client, text):
    await client.write(text)
    return (await client.next("response.done"))[1]


async def tell(client, call_id, output):
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    await client.send("conversation.item.create", item=item)
    await client.send("response.create")
    return (await client.next("response.done"))[1]


@pytest.mark.parametrize("beta", [False, True], ids=["present", "before"])
def test_a_spoken_question_calls_and_what_came_of_it_is_spoken(server, beta):
    async def talk():
        async with connected(server, beta) as client:
            await client.send("session.update", session={"type": "realtime", "tools": [lights(), TIMER]})
            session = (await client.next("session.updated"))[0]["session"]
            await client.say(spoken())
            done, passed = await client.next("response.done")
            return session, passed, await tell(client, done["response"]["output"][0]["call_id"], ANSWER)

    session, passed, told = asyncio.run(talk())
    assert [tool["name"] for tool in session["tools"]] == ["set_lights", "set_timer"]
    assert session["tool_choice"] == "auto"
    assert called(passed) == ("set_lights", {"room": "kitchen", "state": True})
    kinds = [event["type"] for event in passed]
    order = [
        "input_audio_buffer.committed",
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.done",
    ]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    added, delta, done, whole = (passed[kinds.index(kind)] for kind in order[2:6])
    assert added["item"]["arguments"] == "" and added["item"]["name"] == "set_lights"
    assert delta["delta"] == done["arguments"] == whole["item"]["arguments"] and done["name"] == "set_lights"
    assert len({delta["item_id"], done["item_id"], added["item"]["id"], whole["item"]["id"]}) == 1
    assert len({delta["call_id"], done["call_id"], added["item"]["call_id"]}) == 1
    prefix = "response.audio" if beta else "response.output_audio"
    assert text_of(told, f"{prefix}_transcript.delta") == ANSWER and len(sound_of(told, f"{prefix}.delta")) > 24_000
    assert told[-1]["response"]["status"] == "completed"


def test_the_output_is_spoken_in_words_that_can_be_understood(server):
    """The output is spoken as the client wrote it: the server itself transcribes it."""

    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights()])
            passed = await ask(client, HEARD)
            return await tell(client, passed[-1]["response"]["output"][0]["call_id"], "kitchen lights on")

    sound = sound_of(asyncio.run(talk()))
    heard = server.client().audio.transcriptions.create(model="pebble", file=("a.wav", as_wav(sound)))
    assert heard.text == "kitchen lights on"


def as_wav(pcm):
    return wav_header(24_000, len(pcm)) + pcm


def test_output_in_writing(server):
    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights()], output_modalities=["text"])
            passed = await ask(client, HEARD)
            return await tell(client, passed[-1]["response"]["output"][0]["call_id"], ANSWER)

    told = asyncio.run(talk())
    assert text_of(told, "response.output_text.delta") == ANSWER and not sound_of(told)


def test_an_output_of_blanks_is_limited_as_any_other(server):
    """It is kept until response.create, and sent back."""

    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights()])
            passed = await ask(client, HEARD)
            call = passed[-1]["response"]["output"][0]["call_id"]
            item = {"type": "function_call_output", "call_id": call, "output": " " * 100_000}
            await client.send("conversation.item.create", item=item)
            return (await client.next("error"))[0]["error"], await tell(client, call, ANSWER)

    error, told = asyncio.run(talk())
    assert error["code"] == "text_too_long" and sound_of(told)


def test_what_calls_nothing_is_answered(server):
    async def talk():
        async with connected(server) as client:
            await client.update(tools=[TIMER])
            await client.say(spoken())
            aloud = (await client.next("response.done"))[1]
            return aloud, await ask(client, HEARD)

    for passed in asyncio.run(talk()):
        assert text_of(passed) == ANSWER and passed[-1]["response"]["output"][0]["type"] == "message"


def test_the_choice_is_the_client_s(server):
    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights(), TIMER], tool_choice="none")
            none = await ask(client, HEARD)
            await client.update(tool_choice="required")
            required = [await ask(client, text) for text in (HEARD, "make it warmer")]
            await client.update(tool_choice={"type": "function", "name": "set_timer"})
            await client.say(spoken())
            forced = (await client.next("response.done"))[1]
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": HEARD}]}
            await client.send("conversation.item.create", item=item)
            await client.send("response.create", response={"tool_choice": "none"})
            once = (await client.next("response.done"))[1]
            return none, required, forced, once

    none, required, forced, once = asyncio.run(talk())
    assert text_of(none) == ANSWER and text_of(once) == ANSWER
    assert called(required[0]) == ("set_lights", {"room": "kitchen", "state": True})
    schemas = {tool["name"]: tool["parameters"] for tool in (lights(), TIMER)}
    name, arguments = called(required[1])
    jsonschema_rs.validate(schemas[name], arguments)
    name, arguments = called(forced)
    assert name == "set_timer"
    jsonschema_rs.validate(TIMER["parameters"], arguments)


def test_tools_change_in_the_middle_of_a_session(server):
    async def talk():
        async with connected(server) as client:
            said = []
            for tools in ([lights()], [TIMER], [], [lights(name="other")]):
                await client.update(tools=tools)
                said.append(await ask(client, HEARD))
                await client.say(spoken())
                said.append((await client.next("response.done"))[1])
            return said

    found = [event[-1]["response"]["output"][0].get("name", "message") for event in asyncio.run(talk())]
    assert found == ["set_lights"] * 2 + ["message"] * 4 + ["other"] * 2


def test_eight_with_tools_of_their_own_mix_nothing(server):
    """Each session calls only what it declared, spoken or written, and hears only the output of its own call."""

    async def session(number, room):
        async with connected(server) as client:
            await client.update(tools=[lights([room], f"lights_{number}")])
            found = []
            for turn in range(3):
                if room == "kitchen" and turn % 2:
                    await client.say(spoken())
                else:
                    await client.write(f"turn on the {room} lights")
                passed = (await client.next("response.done"))[1]
                call = passed[-1]["response"]["output"][0]
                found.append((*called(passed), text_of(await tell(client, call["call_id"], f"{room} lights on"))))
            return found

    async def everyone():
        return await asyncio.gather(*(session(number, room) for number, room in enumerate(mixed)))

    mixed = ["kitchen", "bedroom", "bathroom", "garage", "hall", "office", "garden", "kitchen"]
    wanted = [
        [(f"lights_{number}", {"room": room, "state": True}, f"{room} lights on")] * 3
        for number, room in enumerate(mixed)
    ]
    assert asyncio.run(everyone()) == wanted


def test_states_of_tools_go_to_disk_and_come_back():
    with serving(Limits(memory=1)) as small:

        async def everyone():
            async with connected(small) as one, connected(small) as other:
                found = []
                for client in (one, other):
                    await client.update(tools=[lights()])
                for client in (one, other, one, other):
                    await client.say(spoken())
                    passed = (await client.next("response.done"))[1]
                    found.append(called(passed))
                    await tell(client, passed[-1]["response"]["output"][0]["call_id"], ANSWER)
                return found

        assert asyncio.run(everyone()) == [("set_lights", {"room": "kitchen", "state": True})] * 4
        assert small.metric("voxrill_evictions_total") > 0
        while small.metric("voxrill_realtime_sessions") or small.metric("voxrill_state_bytes"):
            asyncio.run(asyncio.sleep(0.01))
        assert small.metric("voxrill_parked_states") == 0


@pytest.mark.parametrize("typed", [True, False])
def test_the_user_does_not_wait_for_the_decision(server, monkeypatch, typed):
    """Speech while it is decided what a turn calls ends its response; the next turn calls as ever."""
    decide = CallDecider.step
    waiting = []

    def never(deciding):
        if waiting and deciding._steps is not None:
            return False
        return decide(deciding)

    monkeypatch.setattr(CallDecider, "step", never)

    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights()])
            waiting.append(True)
            if typed:
                await client.write(HEARD)
            else:
                await client.say(spoken())
                await client.next("input_audio_buffer.committed")
            await client.say(spoken(before=0.2, after=0))
            cut = (await client.next("response.done"))[1]
            waiting.clear()
            await client.say(bytes(48_000))
            return cut, (await client.next("response.done"))[1]

    cut, after = asyncio.run(talk())
    assert cut[-1]["response"]["status"] == "cancelled"
    assert called(after) == ("set_lights", {"room": "kitchen", "state": True})


def test_the_user_interrupts_what_came_of_a_call(server, monkeypatch):
    slowly(monkeypatch, server, 0.1)

    async def talk():
        async with connected(server) as client:
            await client.update(tools=[lights()])
            call = (await ask(client, HEARD))[-1]["response"]["output"][0]
            item = {"type": "function_call_output", "call_id": call["call_id"], "output": ANSWER}
            await client.send("conversation.item.create", item=item)
            await client.send("response.create")
            await client.next("response.output_audio.delta")
            await client.say(spoken(before=0))
            cut = (await client.next("response.done"))[1]
            return cut, (await client.next("response.done"))[1]

    cut, after = asyncio.run(talk())
    assert cut[-1]["response"]["status"] == "cancelled"
    assert called(after) == ("set_lights", {"room": "kitchen", "state": True})


# What cannot be


def broken(**properties):
    return lights() | {"parameters": {"type": "object", "properties": properties}, "phrases": ["kitchen lights on"]}


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([broken(city={"type": "string"})], "the parameter city of the function set_lights may be any text"),
        (
            [broken(n={"type": "integer", "minimum": 1})],
            "the parameter n of the function set_lights may be any int",
        ),
        ([broken(n={"type": "integer", "minimum": 1, "maximum": 10**9})], "more than 5000 values"),
        ([broken(where={"type": "object"})], "the parameter where of the function set_lights cannot be"),
        ([broken(n={"enum": ["a"], "pattern": "b"})], "There is no field 'pattern'"),
        ([broken(n={"enum": ["a", "a"]})], "the parameter n of the function set_lights has a value twice"),
        ([broken(n={"enum": []})], "the parameter n of the function set_lights"),
        ([lights() | {"phrases": ["turn on the {room} lights"]}], "does not say 'state'"),
        ([lights() | {"phrases": ["{place} lights on"]}], "says 'place', which is not a parameter"),
        (
            [lights([*ROOMS, "the moon"])],
            "the value 'the moon' of the parameter room of the function set_lights is",
        ),
        ([lights() | {"phrases": []}], "the function set_lights has no phrases"),
        ([lights(), lights()], "two functions have the same name"),
        ([lights(), lights(name="other")], "is ambiguous"),
        ([lights(name=f"f{number}") for number in range(33)], "there are 33 functions"),
        ([lights() | {"name": "no name"}], "name"),
        ([{"type": "web_search"}], "web_search"),
    ],
)
def test_tools_that_cannot_be_called(server, tools, message):
    """They are refused, by tool and parameter; those of before go on."""

    async def talk():
        async with plain(server) as client:
            await client.update(tools=[lights()])
            await client.send("session.update", session={"type": "realtime", "tools": tools})
            error, _ = await client.next("error")
            return error["error"]["message"], await ask(client, HEARD)

    told, passed = asyncio.run(talk())
    assert message in told
    assert called(passed)[0] == "set_lights"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "session.update", "session": {"tool_choice": {"type": "function", "name": "x"}}}, "no function 'x'"),
        ({"type": "response.create", "response": {"tools": [{"type": "web_search"}]}}, "response.tools[0].type"),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "call_1", "output": "done"},
            },
            "No call 'call_1' waits",
        ),
    ],
)
def test_an_event_about_tools_that_cannot_be(server, event, message):
    async def talk():
        async with plain(server) as client:
            await client.update(tools=[lights()])
            await client.connection.send(json.dumps(event))
            error, _ = await client.next("error")
            return error["error"]["message"], await ask(client, HEARD)

    told, passed = asyncio.run(talk())
    assert message in told and called(passed)[0] == "set_lights"


def test_an_output_in_words_that_the_model_lacks(server):
    """Text is told as it is. Aloud, the model says the words that it knows, or that it knows none."""

    async def talk():
        async with plain(server) as client:
            await client.update(tools=[lights()])
            told = []
            for output in ('{"ok": true}', "the kitchen lights are fabulously on"):
                call = (await ask(client, HEARD))[-1]["response"]["output"][0]
                told.append(await tell(client, call["call_id"], output))
            await client.update(output_modalities=["text"])
            call = (await ask(client, HEARD))[-1]["response"]["output"][0]
            return *told, await tell(client, call["call_id"], '{"ok": true}')

    none, some, written = asyncio.run(talk())
    assert text_of(none) == server.service.model.manifest.taught.refusal and sound_of(none)
    assert text_of(some).startswith("the kitchen lights") and "fabulously" not in text_of(some) and sound_of(some)
    assert text_of(written, "response.output_text.delta") == '{"ok": true}'


def test_a_choice_that_does_not_fit_is_refused_alone(server):
    async def talk():
        async with plain(server) as client:
            await client.update(tools=[lights()])
            await client.send("session.update", session={"tool_choice": "required", "tools": []})
            error, _ = await client.next("error")
            return error["error"], (await client.next("session.updated"))[0]["session"], await ask(client, HEARD)

    error, session, passed = asyncio.run(talk())
    assert "a call is required" in error["message"] and error["param"] == "session.tool_choice"
    assert session["tools"] == [] and session["tool_choice"] == "auto" and text_of(passed) == ANSWER


def test_tools_that_do_not_fit_are_refused_with_their_choice(server):
    async def talk():
        async with plain(server) as client:
            await client.update(tools=[lights()])
            await client.send("session.update", session={"tool_choice": "required", "tools": [lights(), lights()]})
            error, _ = await client.next("error")
            return error["error"], (await client.next("session.updated"))[0]["session"], await ask(client, HEARD)

    error, session, passed = asyncio.run(talk())
    assert "the same name" in error["message"] and error["param"] == "session.tools"
    assert len(session["tools"]) == 1 and session["tool_choice"] == "auto" and called(passed)[0] == "set_lights"


def test_a_turn_that_cannot_be_decided_is_answered(server, monkeypatch):
    def full(*_given):
        raise ContextFull("it is full", "Say less")
        yield

    monkeypatch.setattr(Caller, "steps", full)

    async def talk():
        async with plain(server) as client:
            await client.update(tools=[lights()])
            await client.write(HEARD)
            error, _ = await client.next("error")
            return error["error"]["code"], (await client.next("response.done"))[1]

    code, passed = asyncio.run(talk())
    assert code == "context_length_exceeded" and text_of(passed) == ANSWER
