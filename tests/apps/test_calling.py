"""Functions as grammars: which calls there are, and that nothing else is ever called, whatever the weights."""

import json
import tracemalloc

import jsonschema_rs
import numpy as np
import pytest

import voxrill
from tests.signals import SAMPLE_RATE, speech_like
from tests.talking import HELD_OUT, spoken
from voxrill.runtime.apps.calling import LISTING, Caller, Functions
from voxrill.runtime.apps.functions import Function, parameters_of, spoken_calls, written_calls
from voxrill.runtime.errors import UsageError
from voxrill.runtime.progress import result_of

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"const": "lamp"},
        "room": {"enum": ["kitchen", "hall"]},
        "on": {"type": "boolean"},
        "level": {"type": "integer", "minimum": -3, "maximum": 10, "multipleOf": 5},
    },
    "required": ["kind", "room", "on"],
}
LAMP = Function("set_lamp", "Sets a lamp.", SCHEMA)
SPOKEN = Function(
    "set_lights",
    parameters={
        "properties": {
            "room": {"enum": ["kitchen", "bathroom"]},
            "state": {"type": "boolean", "words": {"true": ["on"], "false": ["off"]}},
            "kind": {"const": "lamp"},
            "never": {"enum": ["said"]},
        },
        "required": ["room", "kind"],
    },
    phrases=["{room} lights {state}", "dim the {room} lights"],
)


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def test_every_call_there_is():
    written = {sentence.words: dict(sentence.call.slots) for sentence in written_calls(LAMP, 100)}
    assert len(written) == 2 * 2 * (3 + 1)
    assert written['set_lamp(kind="lamp", room="hall", on=false, level=10)'] == {
        "kind": "lamp",
        "room": "hall",
        "on": False,
        "level": 10,
    }
    assert {arguments.get("level") for arguments in written.values()} == {None, 0, 5, 10}
    for arguments in written.values():
        jsonschema_rs.validate(SCHEMA, arguments)


def test_every_way_to_say_a_call():
    """What is not said is left out; a constant that is required is there all the same."""
    said = {sentence.words: dict(sentence.call.slots) for sentence in spoken_calls(SPOKEN, 100)}
    assert said["kitchen lights off"] == {"room": "kitchen", "state": False, "kind": "lamp"}
    assert said["dim the bathroom lights"] == {"room": "bathroom", "kind": "lamp"}
    assert len(said) == 6


def test_a_function_without_parameters_has_one_call(model):
    functions = Functions(model, [Function("stop")])
    assert [[sentence.words for sentence in prompt.written.sentences] for prompt in functions.prompts] == [["stop()"]]


@pytest.mark.parametrize("seed", range(4))
def test_random_weights_still_make_valid_calls(model, seed):
    """Whatever a model would like to write: by construction nothing but calls that fit the schema."""
    functions = Functions(model, [LAMP, Function("stop"), SPOKEN])
    caller = Caller(model, threshold=[0.0, 0.5][seed % 2])
    schemas = {function.name: function.parameters or {} for function in (LAMP, SPOKEN)}
    for only in (None, "set_lamp", "set_lights"):
        allowed = functions if only is None else functions.only(only)
        for sound in (speech_like(SAMPLE_RATE, seed), np.zeros(400, np.float32) + seed / 10):
            call = result_of(caller.steps(allowed, sound, None, must=True))
            assert call is not None and (only is None or call.name == only) and 0 <= call.confidence <= 1
            jsonschema_rs.validate(schemas.get(call.name, {}), json.loads(call.arguments))
            unsure = result_of(caller.steps(allowed, sound, None, must=False))
            assert (unsure is None) == (call.confidence < [0.0, 0.5][seed % 2])


def test_a_written_call_is_a_call(model):
    found = result_of(Caller(model).steps(Functions(model, [LAMP, Function("stop")]), None, "stop()", must=False))
    assert (found.name, found.arguments, found.confidence) == ("stop", "{}", 1.0)


def test_the_prompt_lists_what_has_no_phrases(model):
    listing = Functions(model, [LAMP, SPOKEN]).listing.splitlines()
    assert listing[0] == LISTING and [json.loads(line)["name"] for line in listing[1:]] == ["set_lamp"]


def test_what_is_not_needed_any_more_is_forgotten(model):
    functions, caller = Functions(model, [LAMP, SPOKEN]), Caller(model)
    result_of(caller.steps(functions, speech_like(SAMPLE_RATE), None, must=True))
    held = caller.contexts
    assert len(held) == 2 and caller.forget(functions) == []
    assert caller.forget(Functions(model, [SPOKEN])) == held[1:]
    assert caller.forget(None) == held[:1] and caller.contexts == []


def test_held_out_commands_call_and_all_else_does_not(pebble):
    """By voices that the built-in model never heard; an answer, where no call is likely enough."""
    rooms = ["kitchen", "bedroom", "bathroom", "hall", "garage", "garden", "office", "living room"]
    schema = {"properties": SPOKEN.parameters["properties"] | {"room": {"enum": rooms}}, "required": ["room"]}
    phrases = ["{room} lights {state}", "turn {state} the {room} lights", "switch the {room} lights {state}"]
    lights = Function("set_lights", parameters=schema, phrases=phrases)
    functions, caller = Functions(pebble, [lights]), Caller(pebble)
    meant = {sentence.words: dict(sentence.call.slots) for sentence in spoken_calls(lights, 100)}
    asked = [clip for clip in HELD_OUT if clip["words"] in meant]
    assert len(asked) >= 5
    for clip in HELD_OUT:
        found = result_of(caller.steps(functions, spoken(clip), None, must=False))
        assert (None if found is None else found.values) == meant.get(clip["words"]), clip


@pytest.mark.parametrize(
    ("properties", "saying"),
    [
        ({"a": {"type": "string"}}, "the parameter a of the function f may be any text"),
        ({"a": {}}, "may be any text"),
        ({"a": {"type": "number"}}, "'number'"),
        ({"a": {"type": "array", "items": {"enum": ["b"]}}}, "the parameter a of the function f cannot be"),
        ({"a": {"type": "object", "properties": {}}}, "the parameter a of the function f cannot be"),
        ({"a": {"anyOf": [{"const": "b"}]}}, "There is no field 'anyOf'"),
        ({"a": {"$ref": "#/$defs/missing"}}, "There is no field '$ref'"),
        ({"a": {"type": ["string", "null"], "enum": ["b"]}}, "the parameter a of the function f cannot be"),
        ({"a": {"enum": [None]}}, "the parameter a of the function f cannot be"),
        ({"a": {"enum": ["b"], "type": "integer"}}, "has a value that is not of the type integer"),
        ({"a": {"enum": [True], "type": "integer"}}, "has a value that is not of the type integer"),
        ({"a": {"enum": [1, True]}}, "has a value twice"),
        ({"a": {"enum": [1, 2], "minimum": 2}}, "and bounds"),
        ({"a": {"type": "integer", "minimum": 2, "maximum": 1}}, "has no values"),
        ({"a": {"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 4}}, "has no values"),
        ({"a": {"type": "integer", "minimum": 0, "maximum": 10**12}}, "more than 5000 values"),
        ({"a": {"enum": ["b"], "words": {"c": ["d"]}}}, "words for 'c', which is not a value of it"),
        ({"a": {"enum": ["b"], "words": {"b": [" "]}}}, "no words for 'b'"),
        ([], "the parameters of the function f cannot be"),
    ],
)
def test_schemas_that_cannot_be_counted_out(properties, saying):
    with pytest.raises(UsageError) as refused:
        parameters_of(Function("f", parameters={"type": "object", "properties": properties}))
    assert saying in str(refused.value)


def test_more_calls_than_can_be_held(pebble, model):
    ten = {name: {"type": "integer", "minimum": 0, "maximum": 9} for name in "abcd"}
    with pytest.raises(UsageError, match="more than 5000 ways to call the functions; f alone has 14641"):
        Functions(model, [Function("f", parameters={"properties": ten})])
    phrase = " ".join(f"{{{name}}}" for name in ten)
    with pytest.raises(UsageError, match="more than 5000 sentences"):
        Functions(pebble, [Function("f", parameters={"properties": ten}, phrases=[phrase])])


@pytest.mark.parametrize(
    ("phrase", "saying"),
    [
        ("{nothing}", "says 'nothing', which is not a parameter"),
        ("{a", "does not say 'a'"),
        ("{a} {b}}", "has a single brace"),
        ("{a} {a}", "says a slot twice"),
        (" ", "is empty"),
    ],
)
def test_phrases_that_cannot_be_said(phrase, saying):
    schema = {"properties": {"a": {"enum": ["c"]}, "b": {"enum": ["c"]}}, "required": ["a"]}
    with pytest.raises(UsageError) as refused:
        list(spoken_calls(Function("f", parameters=schema, phrases=[phrase]), 100))
    assert saying in str(refused.value)


def test_a_definition_that_a_parameter_refers_to():
    """As pydantic writes enums."""
    schema = {
        "$defs": {"Color": {"enum": ["red", "blue"], "title": "Color", "type": "string"}},
        "properties": {"color": {"$ref": "#/$defs/Color", "description": "Its color."}},
        "required": ["color"],
    }
    found = parameters_of(Function("f", parameters=schema))
    assert found["color"].values == ["red", "blue"] and found["color"].required


LONG = "long " * 1000


@pytest.mark.parametrize(
    ("declared", "saying"),
    [
        ({f"a{n}": {"type": "integer", "minimum": 0, "maximum": 4999} for n in range(60)}, "more than 5000 values"),
        ({f"a{n}": {"const": "b"} for n in range(65)}, "Give 64 at most"),
        ({"a": {"enum": [LONG, *map(str, range(4000))]}}, "a call of the function f has more than 1000 characters"),
        ({LONG: {"enum": ["b"]}}, "more than 1000 characters"),
        ({f"a{n}": {"type": "boolean"} for n in range(64)}, f"f alone has {3**64}"),
        ({"a": {"type": "integer", "minimum": 10**300, "maximum": 10**300}}, None),
        ({"a": {"type": "integer", "minimum": -(10**300), "maximum": 10**300}}, "more than 5000 values"),
    ],
)
def test_functions_made_to_do_harm_are_refused_before_they_do(model, declared, saying):
    """A client sends them over the network."""
    tracemalloc.start()
    try:
        Functions(model, [Function("f", parameters={"properties": declared})])
        assert saying is None
    except UsageError as refused:
        assert saying in str(refused)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("phrases", "saying"),
    [
        (["say {a}"] * 5001, "more than 5000 phrases"),
        ([LONG + "{a}"], "a phrase of more than 300 characters"),
        (["{a} " + "{b} " * 70], "says a slot twice"),
    ],
)
def test_phrases_made_to_do_harm(phrases, saying):
    schema = {"properties": {"a": {"enum": [*map(str, range(4000))]}, "b": {"enum": ["c"]}}}
    with pytest.raises(UsageError) as refused:
        list(spoken_calls(Function("f", parameters=schema, phrases=phrases), 5000))
    assert saying in str(refused.value)
    with pytest.raises(UsageError, match="more than 300 characters"):
        long = {"properties": {"a": {"enum": ["x" * 300]}}}
        list(spoken_calls(Function("f", parameters=long, phrases=["say {a}"]), 5000))
