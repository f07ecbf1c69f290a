"""POST /v1/responses, with OpenAI's own client."""

import json

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import openai

from tests.serving import ANSWER, HEARD, QUESTION, in_base64, serving

SOUND = {"type": "input_audio", "input_audio": {"data": in_base64(QUESTION.read_bytes()), "format": "wav"}}
SWITCH = {
    "type": "function",
    "name": "lights",
    "parameters": {
        "type": "object",
        "properties": {"state": {"enum": ["on", "off"]}, "room": {"enum": ["kitchen", "bedroom"]}},
        "required": ["state", "room"],
    },
    "phrases": ["turn {state} the {room} lights"],
}


@pytest.fixture(scope="module")
def client():
    with serving() as started:
        yield started.client()


def test_a_text(client):
    made = client.responses.create(model="gpt-5.5", instructions="You are a friendly assistant.", input=HEARD)
    assert made.output_text == ANSWER and made.status == "completed" and made.model == "pebble"
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens > 3


def test_items(client):
    first = client.responses.create(input=[{"role": "user", "content": [SOUND]}])
    assert first.output_text == ANSWER
    again = [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "close the window"},
        *first.output,
        {"role": "user", "content": [{"type": "input_text", "text": HEARD}]},
    ]
    assert client.responses.create(input=again).output_text == ANSWER


def test_a_stream(client):
    with client.responses.stream(model="gpt-5.5", input=HEARD) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == ANSWER


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_and_its_output(client, stream):
    made = client.responses.create(input=HEARD, tools=[SWITCH], stream=stream)
    if stream:
        events = list(made)
        made = events[-1].response
        assert "response.function_call_arguments.done" in [event.type for event in events]
    (call,) = made.output
    assert (call.type, call.name) == ("function_call", "lights")
    assert json.loads(call.arguments) == {"state": "on", "room": "kitchen"}
    told = [
        {"role": "user", "content": HEARD},
        call,
        {"type": "function_call_output", "call_id": call.call_id, "output": "the kitchen lights are on"},
    ]
    assert client.responses.create(input=told, tools=[SWITCH]).output_text == "the kitchen lights are on"


def test_an_answer_that_is_cut_is_incomplete(client):
    made = client.responses.create(input=HEARD, max_output_tokens=1)
    assert made.status == "incomplete" and made.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"previous_response_id": "resp_1"}, "earlier messages"),
        ({"input": [{"role": "user"}]}, "no content"),
        ({"input": [{"type": "reasoning", "arguments": "", "call_id": ""}]}, "only reasoning"),
        ({"input": [{"role": "system", "content": [SOUND]}]}, "role user"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "any", "schema": {}}}}, "can write no JSON"),
        ({"model": "llama"}, "no model 'llama'"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, fields, part):
    with pytest.raises(openai.APIStatusError, match=part):
        client.responses.create(**{"input": HEARD, **fields})
