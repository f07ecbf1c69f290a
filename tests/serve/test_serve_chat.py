"""Chat completions as frameworks ask, by OpenAI's client: tools, JSON schemas, stop texts, messages in any order."""

import enum
import json
from typing import Literal
from urllib.parse import unquote

import jsonschema_rs
import openai
import pydantic
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serving import ANSWER, HEARD, QUESTION, in_base64, serving
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.serve.stop_text import StopText

SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}

ROOMS = ["kitchen", "bedroom", "office"]
PARAMETERS = {
    "type": "object",
    "properties": {
        "room": {"type": "string", "enum": ROOMS},
        "state": {"type": "boolean", "words": {"true": ["on"], "false": ["off"]}},
    },
    "required": ["room", "state"],
    "additionalProperties": False,
}


def tool(name, phrases=(), parameters=PARAMETERS):
    function = {"name": name, "description": "Does it.", "parameters": parameters, "strict": True}
    return {"type": "function", "function": function | ({"phrases": list(phrases)} if phrases else {})}


LIGHTS = tool("set_lights", ["turn {state} the {room} lights", "{room} lights {state}"])
SEARCH = tool("search", parameters={"type": "object", "properties": {"query": {"type": "string"}}})
CALL = ("set_lights", {"room": "kitchen", "state": True})


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def ask(server):
    """Asks the built-in model. Its answer's only choice."""
    client = server.client()

    def asked(*messages, **options):
        said = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
        (choice,) = client.chat.completions.create(model="gpt-4o", messages=said, **options).choices
        return choice

    return asked


def spoken_question():
    sound = {"type": "input_audio", "input_audio": {"data": in_base64(QUESTION.read_bytes()), "format": "wav"}}
    return {"role": "user", "content": [sound]}


def called(choice):
    """The call that a choice is."""
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_")
    return call.function.name, json.loads(call.function.arguments)


def refused(ask, *messages, **options):
    with pytest.raises(openai.BadRequestError) as error:
        ask(*messages, **options)
    return error.value.body["message"]


# Tools


@pytest.mark.parametrize("question", [spoken_question(), HEARD], ids=["spoken", "typed"])
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "set_lights"}}])
def test_a_question_calls_a_function(ask, question, choice):
    assert called(ask(question, tools=[LIGHTS], tool_choice=choice)) == CALL


def test_a_streamed_call(server):
    stream = server.client().chat.completions.create(
        model="pebble",
        messages=[spoken_question()],
        tools=[LIGHTS],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    calls = [call for chunk in chunks for one in chunk.choices for call in one.delta.tool_calls or []]
    assert [call.index for call in calls] == [0]
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == CALL
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage.prompt_tokens > 10 and chunks[-1].usage.completion_tokens > 1


@pytest.mark.parametrize("options", [{"tool_choice": "none"}, {}, SPOKEN], ids=["none", "no match", "spoken"])
def test_a_question_that_calls_nothing_is_answered(ask, options):
    question, answer = (HEARD, ANSWER) if options == {"tool_choice": "none"} else ("hello", "hello how can i help")
    choice = ask(question, tools=[LIGHTS], **options)
    assert choice.finish_reason == "stop" and choice.message.tool_calls is None
    said = choice.message.audio.transcript if choice.message.audio else choice.message.content
    assert said == answer


def test_a_subset_of_the_tools(ask):
    subset = {"mode": "required", "tools": [{"type": "function", "function": {"name": "darken"}}]}
    darken = tool("darken", ["turn {state} the {room} lights"])
    choice = {"type": "allowed_tools", "allowed_tools": subset}
    assert called(ask(spoken_question(), tools=[LIGHTS, darken], tool_choice=choice))[0] == "darken"
    subset["tools"][0]["function"]["name"] = "unknown"
    assert "no tool 'unknown'" in refused(ask, HEARD, tools=[LIGHTS], tool_choice=choice)


@pytest.mark.parametrize("useless", [SEARCH, tool("plain"), tool("paint", ["paint the {room} {state}"])])
def test_a_tool_that_the_model_cannot_call(server, ask, useless):
    """It is left out, and a header says why. Where a call is required, that is the error."""
    assert called(ask(spoken_question(), tools=[LIGHTS, useless])) == CALL
    raw = server.client().chat.completions.with_raw_response.create(
        model="pebble", messages=[{"role": "user", "content": "play some jazz"}], tools=[useless]
    )
    assert raw.parse().choices[0].message.content == "playing jazz"
    warning = unquote(raw.headers["x-voxrill-warning"])
    assert f"{useless['function']['name']} is never called: " in warning
    assert refused(ask, HEARD, tools=[useless], tool_choice="required").rstrip(".") in warning
    assert ask(HEARD, tools=[useless], tool_choice="none").message.content == ANSWER


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tool_choice": "required"}, "there are no functions"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [LIGHTS]}, "no function 'x'"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type is 'custom'. Give function"),
        ({"tools": [tool("a b")]}, "tools[0].function.name has characters that it may not have. Give 1 to 64"),
        ({"tools": [tool("a", parameters={"x": "y" * (64 << 10)})]}, "more than 65536 bytes"),
        ({"tools": [tool(f"f{n}", ["{room}"]) for n in range(33)], "tool_choice": "required"}, "32 at most"),
    ],
)
def test_tools_that_cannot_be(ask, options, message):
    assert message in refused(ask, HEARD, **options)


def test_an_output_is_told(server, ask):
    """As in realtime sessions: word for word, in writing or aloud."""
    before = ask(spoken_question(), tools=[LIGHTS]).message.model_dump(exclude_none=True)
    output = {"role": "tool", "tool_call_id": before["tool_calls"][0]["id"], "content": "kitchen lights on"}
    messages = [{"role": "system", "content": "Be brief."}, spoken_question(), before, output]
    assert ask(*messages, tools=[LIGHTS]).message.content == "kitchen lights on"
    told = ask(*messages, tools=[LIGHTS], **SPOKEN).message
    assert told.audio.transcript == "kitchen lights on" and len(told.audio.data) > 20_000
    said = {"role": "assistant", "audio": {"id": told.audio.id}}
    assert ask(*messages, said, "play some jazz", tools=[LIGHTS]).message.content == "playing jazz"
    assert ask(*messages, "play some jazz", tools=[LIGHTS]).message.content == "playing jazz"
    assert "answers no call" in refused(ask, HEARD, output)
    output["content"] = '{"ok": true}'
    assert ask(*messages, tools=[LIGHTS]).message.content == '{"ok": true}'
    assert "does not know" in refused(ask, *messages, **SPOKEN)  # it cannot be spoken


# JSON


SCHEMA = {
    "type": "object",
    "properties": {"room": {"enum": ROOMS}, "level": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["room", "level"],
}


class Color(enum.Enum):
    """A color."""

    RED = "red"
    BLUE = "blue"


class Lamp(pydantic.BaseModel):
    """What `parse` of OpenAI's client makes a schema of."""

    color: Color
    level: Literal[1, 2, 3]
    on: bool


def json_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "lamp", "schema": schema, "strict": True}}


def test_json_that_pebble_cannot_write(ask):
    assert "can write no JSON" in refused(ask, HEARD, response_format=json_format(SCHEMA))
    assert "json_object does not say which JSON" in refused(ask, HEARD, response_format={"type": "json_object"})
    assert "not spoken" in refused(ask, HEARD, response_format=json_format(SCHEMA), **SPOKEN)
    assert ask(HEARD, response_format={"type": "text"}).message.content == ANSWER


def test_an_open_model_writes_json_and_calls_without_phrases(models):
    """Random weights: what it says is chance, and fits the schema."""
    with serving(model=models["lfm2"]) as started:
        client = started.client()

        def ask(**options):
            messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Light, please."}]
            (choice,) = client.chat.completions.create(model="gpt-4o", messages=messages, **options).choices
            return choice

        choice = ask(response_format=json_format(SCHEMA))
        assert choice.finish_reason == "stop"
        jsonschema_rs.validate(SCHEMA, json.loads(choice.message.content))
        assert ask(response_format=json_format(SCHEMA)).message.content == choice.message.content
        messages = [{"role": "user", "content": "Light, please."}]
        parsed = client.chat.completions.parse(model="gpt-4o", messages=messages, response_format=Lamp)
        assert isinstance(parsed.choices[0].message.parsed, Lamp)
        name, arguments = called(ask(tools=[tool("plain")], tool_choice="required"))
        assert name == "plain"
        jsonschema_rs.validate(PARAMETERS, arguments)
        free = {"type": "object", "properties": {"name": {"type": "string"}}}
        assert "the property name of the schema lamp may be any text" in refused(
            lambda **options: ask(**options), response_format=json_format(free)
        )


def test_top_p(ask):
    """The likeliest words alone are what the model says anyway, however hot the rest is."""
    hot = [ask(HEARD, temperature=2, top_p=top_p, seed=1).message.content for top_p in (1e-6, 1)]
    assert hot[0] == ANSWER != hot[1]


# Stop texts


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ("lights", "kitchen "),
        ([" on", "lights"], "kitchen "),
        (["kitchen"], ""),
        (["xyz", "onx", "on kitchen"], ANSWER),  # its last word could begin two of them, and does not
        ([], ANSWER),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_at_a_stop_text(server, stop, said, stream):
    create = server.client().chat.completions.create
    answer = create(model="pebble", messages=[{"role": "user", "content": HEARD}], stop=stop, stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer]
        text, finish = "".join(one.delta.content or "" for one in chunks), chunks[-1].finish_reason
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert answer.usage.prompt_tokens > 10
    assert (text, finish) == (said, "stop")


def test_a_stop_text_is_found_across_tokens(server):
    """However the text is cut into pieces, what is told ends before it."""
    model = server.service.model
    conversation = Conversation(model.parts, model.manifest.tasks.write, output="text")
    for stop in ("chen li", "n", "hts on"):
        steps = StopText(conversation.steps(text=HEARD), [stop], conversation.context)
        pieces = [event.text for event in steps if hasattr(event, "token")]
        assert "".join(pieces) == ANSWER.partition(stop)[0] and steps.found


def test_stop_texts_that_cannot_be(ask):
    assert "at most 4 entries" in refused(ask, HEARD, stop=["a"] * 5)
    assert "Only written answers" in refused(ask, HEARD, stop="on", **SPOKEN)


# Messages in any order


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "hello"}, HEARD],
        [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Be kind."}, HEARD],
        ["turn on the", "kitchen lights"],
        [HEARD, {"role": "system", "content": "Be brief."}],
        ["hello", {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, HEARD],
        ["hello", {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, HEARD],
        [{"role": "user", "name": "anna", "content": [{"type": "text", "text": HEARD}]}],
    ],
    ids=["greeting", "prompts", "two messages", "prompt last", "two answers", "refusal", "named"],
)
def test_messages_as_frameworks_send_them(ask, messages):
    assert ask(*messages).message.content == ANSWER


def test_a_prompt_alone_is_answered(ask):
    """Frameworks ask for a greeting like this."""
    choice = ask({"role": "system", "content": "Greet the user."})
    assert choice.finish_reason == "stop" and choice.message.content


def test_an_answer_last_leaves_nothing_to_answer(ask):
    assert "End with a user message" in refused(ask, HEARD, {"role": "assistant", "content": "on"})
    assert "more than one sound" in refused(ask, spoken_question(), spoken_question())
