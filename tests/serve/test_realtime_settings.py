"""session.update over the realtime WebSocket: it merges, it refuses field by field, and its modes do what they say."""

import asyncio

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from openai.types.realtime import SessionCreatedEvent, SessionUpdatedEvent

import voxrill
from tests.serve.test_serve_realtime import connected, plain, sound_of, text_of
from tests.serve.test_serve_tools import lights
from tests.serving import ANSWER, HEARD, serving, spoken
from voxrill.runtime.apps.own_end import pause_judge
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.realtime.settings import EAGERNESS

COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.fixture(scope="module")
def server():
    with serving(Limits(sessions=10)) as started:
        yield started


async def updated(client, **session):
    """The session after an update, and the errors on the way."""
    await client.send("session.update", session={"type": "realtime", **session})
    event, passed = await client.next("session.updated")
    return event["session"], [event["error"] for event in passed if event["type"] == "error"]


def test_an_update_keeps_what_it_does_not_name(server):
    async def talk():
        async with plain(server) as client:  # the SDK knows no rate but 24 kHz
            detection = {"type": "server_vad", "silence_duration_ms": 700, "interrupt_response": False}
            await updated(client, audio={"input": {"turn_detection": detection, "transcription": {"language": "en"}}})
            part = {"type": "server_vad", "threshold": 0.4}
            kept, errors = await updated(client, audio={"input": {"turn_detection": part}}, output_modalities=["text"])
            manual, _ = await updated(client, audio={"input": {"turn_detection": None, "format": {"rate": 16_000}}})
            return kept, errors, manual

    kept, errors, manual = asyncio.run(talk())
    assert not errors
    assert kept["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.4,
        "silence_duration_ms": 700,
        "prefix_padding_ms": 300,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": False,
    }
    assert kept["output_modalities"] == manual["output_modalities"] == ["text"]
    assert kept["audio"]["input"]["transcription"] == {"model": "pebble", "language": "en"}
    assert manual["audio"]["input"]["turn_detection"] is None
    assert manual["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 16_000}
    assert manual["audio"]["input"]["transcription"] == kept["audio"]["input"]["transcription"]


def test_null_is_the_default(server):
    everything = {
        "instructions": None,
        "output_modalities": None,
        "max_output_tokens": None,
        "tools": None,
        "tool_choice": None,
        "tracing": None,
        "truncation": None,
        "prompt": None,
        "include": None,
        "reasoning": None,
        "parallel_tool_calls": None,
        "model": None,
    }
    heard = {"format": None, "noise_reduction": None, "transcription": None}
    said = {"format": None, "voice": None, "speed": None}

    async def talk():
        async with connected(server) as client:
            begun, _ = await updated(client)
            await updated(client, output_modalities=["text"], max_output_tokens=9, tools=[lights()], tool_choice="none")
            return begun, await updated(client, **everything, audio={"input": heard, "output": said})

    begun, (session, errors) = asyncio.run(talk())
    assert not errors and session == begun


def test_what_other_servers_know_and_changes_nothing_here_is_taken(server):
    """All that the SDKs send by default, and every object that the server shows, sent back."""

    async def talk():
        async with connected(server) as client:
            shown, _ = await updated(client)
            fields = {
                "model": "gpt-realtime",
                "tracing": {"workflow_name": "mine"},
                "truncation": "auto",
                "parallel_tool_calls": False,
                "max_output_tokens": "inf",
                "include": [],
                "reasoning": {"effort": "low"},
            }
            heard = {"noise_reduction": {"type": "near_field"}}
            said = {"voice": {"id": "marin"}, "speed": 1.0}
            return await updated(client, **fields, audio={"input": heard, "output": said}), await updated(
                client, **shown
            )

    for session, errors in asyncio.run(talk()):
        assert not errors and session["audio"]["input"]["noise_reduction"] is None


@pytest.mark.parametrize(
    ("fields", "param", "works"),
    [
        ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "audio.input.format.type", "audio/pcmu"),
        ({"audio": {"input": {"format": {"rate": 11_025}}}}, "audio.input.format.rate", "48000"),
        ({"audio": {"output": {"voice": "nobody"}}}, "audio.output.voice", "default"),
        ({"audio": {"output": {"speed": 1.5}}}, "audio.output.speed", "1"),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}}},
            "audio.input.turn_detection.idle_timeout_ms",
            "null",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "wild"}}}},
            "audio.input.turn_detection.eagerness",
            "medium",
        ),
        ({"audio": {"input": {"transcription": {"prompt": "a hint"}}}}, "audio.input.transcription.prompt", "null"),
        ({"truncation": "disabled"}, "truncation", "auto"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "null"),
        ({"include": ["item.input_audio_transcription.logprobs"]}, "include", "null"),
        ({"output_modalities": ["video"]}, "output_modalities", '["text"]'),
        ({"max_output_tokens": 0}, "max_output_tokens", "inf"),
        ({"tools": [{"type": "mcp"}]}, "tools[0].type", "function"),
        ({"tool_choice": "always"}, "tool_choice", "required"),
        ({"instructions": 7}, "instructions", "string"),
        ({"model": "llama-3"}, "model", "pebble"),
        ({"colour": "red"}, "colour", "instructions"),
    ],
)
def test_one_field_is_refused_by_name_and_the_others_hold(server, fields, param, works):
    async def talk():
        async with connected(server) as client:
            audio = fields.get("audio", {})
            heard = {"transcription": {"model": "whisper-1"}} | audio.get("input", {})
            both = fields | {
                "audio": audio | {"input": heard},
                "max_output_tokens": fields.get("max_output_tokens", 77),
            }
            session, errors = await updated(client, **both)
            await client.write(HEARD)
            return session, errors, text_of((await client.next("response.done"))[1])

    session, (error,), answer = asyncio.run(talk())
    assert error["param"].endswith(param) and works in error["message"]
    assert param in error["message"] or "voice" in param  # as every endpoint refuses a voice
    assert error["type"] == "invalid_request_error"
    assert session["audio"]["input"]["transcription"] == {"model": "pebble"}
    assert session["max_output_tokens"] == ("inf" if "max_output_tokens" in fields else 77)
    assert answer == ANSWER


def test_many_mistakes_are_not_an_answer_each(server):
    async def talk():
        async with plain(server) as client:
            return await updated(client, **{f"field_{number}": 1 for number in range(2000)})

    _, errors = asyncio.run(talk())
    assert 0 < len(errors) < 20


def test_a_session_of_128_kb_of_settings_is_read_and_of_a_megabyte_is_not(server):
    async def talk():
        async with plain(server) as client:
            await client.send("session.update", session={"tracing": {"x": ["a"] * 32_000}})
            await client.next("session.updated")
            await client.send("session.update", session={"tracing": {"x": ["a"] * 320_000}})
            return (await client.next("error"))[0]["error"]

    error = asyncio.run(talk())
    assert error["param"] is None or error["param"] == "session"
    assert error["code"] == "too_long"


@pytest.mark.parametrize("eagerness", EAGERNESS)
def test_semantic_turns_end_after_the_wait_of_their_eagerness(server, eagerness):
    async def talk():
        async with connected(server) as client:
            wanted = {"type": "semantic_vad", "eagerness": eagerness}
            session, errors = await updated(client, audio={"input": {"turn_detection": wanted}})
            assert not errors
            await client.say(spoken(after=1.5))
            stopped, passed = await client.next("input_audio_buffer.speech_stopped")
            started = next(event for event in passed if event["type"] == "input_audio_buffer.speech_started")
            answer = text_of((await client.next("response.done"))[1])
            return session["audio"]["input"]["turn_detection"], started, stopped, answer

    detection, started, stopped, answer = asyncio.run(talk())
    assert detection == {
        "type": "semantic_vad",
        "eagerness": eagerness,
        "create_response": True,
        "interrupt_response": True,
    }
    assert started["item_id"] == stopped["item_id"] and answer == ANSWER


@pytest.mark.parametrize(("eagerness", "turns"), [("high", 2), ("low", 1)])
def test_eagerness_is_patience(server, eagerness, turns):
    """Two sentences less than a second apart are two turns for an eager listener, and one for a patient one."""

    async def talk():
        async with connected(server) as client:
            detection = {"type": "semantic_vad", "eagerness": eagerness, "create_response": False}
            await updated(client, audio={"input": {"turn_detection": detection}})
            await client.say(spoken(after=0.1) + spoken(before=0.1, after=2))
            await client.send("input_audio_buffer.clear")
            passed = (await client.next("input_audio_buffer.cleared"))[1]
            return sum(event["type"] == "input_audio_buffer.committed" for event in passed)

    assert asyncio.run(talk()) == turns


@pytest.mark.parametrize(
    ("kind", "probability", "turns"),
    [("semantic_vad", 1.0, 2), ("semantic_vad", 0.0, 1), ("server_vad", 1.0, 1)],
)
def test_a_model_ends_semantic_turns_by_meaning(kind, probability, turns):
    """Two sentences 0.4 s apart: two turns where the first seems finished, however patient the client is."""
    asked = []

    def judge(sound, options):
        asked.append(len(sound))
        return options.patience.silence(probability)

    async def talk(server):
        async with connected(server) as client:
            detection = {"type": kind, "create_response": False}
            detection |= {"eagerness": "low"} if kind == "semantic_vad" else {"silence_duration_ms": 1000}
            await updated(client, audio={"input": {"turn_detection": detection}})
            await client.say(spoken(after=0.2) + spoken(before=0.2, after=2.5))
            await client.send("input_audio_buffer.clear")
            passed = (await client.next("input_audio_buffer.cleared"))[1]
            return sum(event["type"] == "input_audio_buffer.committed" for event in passed)

    with serving(Limits(sessions=10), judge=judge) as server:
        assert asyncio.run(talk(server)) == turns
    assert bool(asked) == (kind == "semantic_vad")


@pytest.fixture(scope="module")
def own_word():
    """A server as `voxrill serve` makes it where no end-of-turn model is installed."""
    model = voxrill.load(threads=1)
    with serving(Limits(sessions=10), model=model, judge=pause_judge(model, None, None, print)) as started:
        yield started


async def turns_of(client, sound, **detection):
    """How many turns end in a sound."""
    await updated(client, audio={"input": {"turn_detection": {"create_response": False, **detection}}})
    await client.say(sound)
    await client.send("input_audio_buffer.clear")
    passed = (await client.next("input_audio_buffer.cleared"))[1]
    return sum(event["type"] == "input_audio_buffer.committed" for event in passed)


def test_the_built_in_models_own_word_ends_semantic_turns(server, own_word):
    """A command ends at its first pause, however patient the client is; a part of it does not."""

    async def ended(of, sound, kind):
        async with connected(of) as client:
            patient = {"eagerness": "low"} if kind == "semantic_vad" else {"silence_duration_ms": 1000}
            return await turns_of(client, sound, type=kind, **patient)

    command, part = spoken(after=0.4), spoken(after=0)[: round(1.2 * 24_000) * 2] + bytes(round(0.4 * 24_000) * 2)
    assert asyncio.run(ended(own_word, command, "semantic_vad")) == 1
    assert asyncio.run(ended(own_word, part, "semantic_vad")) == 0
    assert asyncio.run(ended(own_word, command, "server_vad")) == 0
    assert asyncio.run(ended(server, command, "semantic_vad")) == 0


def test_sessions_share_the_built_in_models_own_word(own_word):
    """They ask it at once, from two threads: each turn ends at its first pause, and its answer is right."""

    async def ask():
        async with connected(own_word) as client:
            await updated(client, audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}})
            await client.say(spoken(after=0.4))
            return text_of((await client.next("response.done"))[1])

    async def all_ask():
        return await asyncio.gather(*(ask() for _ in range(4)))

    assert asyncio.run(all_ask()) == [ANSWER] * 4


def test_instructions_and_modalities_change_in_the_middle(server):
    """As agents do that hand over to another: the conversation goes on."""

    async def talk():
        async with connected(server) as client:
            await client.write(HEARD)
            first = (await client.next("response.done"))[1]
            session, errors = await updated(client, instructions="You are another agent.", output_modalities=["text"])
            await client.write(HEARD)
            return first, session, errors, (await client.next("response.done"))[1]

    first, session, errors, second = asyncio.run(talk())
    assert not errors and session["instructions"] == "You are another agent."
    assert text_of(first) == ANSWER and sound_of(first)
    assert text_of(second, "response.output_text.delta") == ANSWER and not sound_of(second)


def test_the_limit_of_an_answer_holds_from_the_next_one_on(server):
    async def talk():
        async with connected(server) as client:
            await client.write(HEARD)
            whole = (await client.next("response.done"))[1]
            await updated(client, max_output_tokens=1)
            await client.write(HEARD)
            return whole, (await client.next("response.done"))[1]

    whole, short = asyncio.run(talk())
    assert text_of(whole) == ANSWER and len(text_of(short)) < len(ANSWER)


# Sessions of transcription


@pytest.mark.parametrize("how", ["intent", "update"])
def test_a_session_of_transcription_writes_down_and_answers_nothing(server, how):
    async def talk():
        query = {"intent": "transcription"} if how == "intent" else {}
        async with connected(server, extra_query=query) as client:
            heard = {"transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"}}
            if how == "update":
                await client.send("session.update", session={"type": "transcription", "audio": {"input": heard}})
                session = (await client.next("session.updated"))[0]["session"]
            await client.say(spoken() + spoken())
            passed = [*(await client.next(COMPLETED))[1], *(await client.next(COMPLETED))[1]]
            await client.send("response.create")
            error, rest = await client.next("error")
            await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
            session = (await client.next("session.updated"))[0]["session"]
            await client.say(spoken(before=0, after=0))
            await client.send("input_audio_buffer.commit")
            return session, passed + rest, error["error"], (await client.next(COMPLETED))[0]["transcript"]

    session, passed, error, by_hand = asyncio.run(talk())
    assert session["type"] == "transcription" and session["object"] == "realtime.transcription_session"
    assert [event["transcript"] for event in passed if event["type"] == COMPLETED] == [HEARD, HEARD]
    assert not [event for event in passed if event["type"].startswith("response.")]
    assert error["code"] == "transcription_session" and by_hand == HEARD


@pytest.mark.parametrize(
    ("kind", "model", "detection", "shown"),
    [
        ("transcription", "gpt-realtime-whisper", {}, None),
        ("transcription", "gpt-4o-transcribe", {}, "server_vad"),
        ("transcription", "gpt-realtime-whisper", {"turn_detection": {"type": "semantic_vad"}}, "semantic_vad"),
        ("realtime", "gpt-realtime-whisper", {}, "server_vad"),
    ],
)
def test_a_client_of_a_model_that_finds_no_ends_of_turns_commits_them(server, kind, model, detection, shown):
    """LiveKit leaves turn_detection out for these models, and commits. The server must not be there before it."""

    async def talk():
        async with connected(server, extra_query={"intent": kind}) as client:
            heard = detection | {"transcription": {"model": model}}
            await client.send("session.update", session={"type": kind, "audio": {"input": heard}})
            return (await client.next("session.updated"))[0]["session"]["audio"]["input"]["turn_detection"]

    found = asyncio.run(talk())
    assert (found and found["type"]) == shown


def test_a_transcript_comes_piece_by_piece(server):
    async def talk():
        async with connected(server, extra_query={"intent": "transcription"}) as client:
            await client.say(spoken())
            return (await client.next(COMPLETED))[1]

    passed = asyncio.run(talk())
    pieces = [event for event in passed if event["type"].endswith("input_audio_transcription.delta")]
    assert "".join(piece["delta"] for piece in pieces) == HEARD
    committed = next(event for event in passed if event["type"] == "input_audio_buffer.committed")
    assert {piece["item_id"] for piece in [*pieces, passed[-1]]} == {committed["item_id"]}


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_the_sdk_reads_the_session(server, kind):
    """The official client parses what it is shown without a field that it does not expect there."""

    async def talk():
        client = server.async_client()
        async with client.realtime.connect(model="gpt-realtime", extra_query={"intent": kind}) as connection:
            created = await connection.recv()
            await connection.session.update(session={"type": kind, "audio": {"input": {"turn_detection": None}}})
            return created, await connection.recv()

    created, changed = asyncio.run(talk())
    assert isinstance(created, SessionCreatedEvent) and isinstance(changed, SessionUpdatedEvent)
    for event in (created, changed):
        assert type(event).model_validate(event.to_dict()).session.type == kind
