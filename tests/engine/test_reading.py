"""Texts with words that a model with a word list does not know: it answers, and the caller is told once."""

import warnings

import pytest

import voxrill
from tests.places import CLIPS, PEBBLE, QUESTION
from voxrill.runtime.engine.reading import _NAMED, Reading
from voxrill.runtime.errors import UnknownText, VoxrillWarning

ANSWER = "kitchen lights on"
REFUSAL = "sorry i only know the house"


@pytest.fixture
def pebble():
    """A model of its own: what it was told of is remembered."""
    return voxrill.load(PEBBLE, threads=1)


def answered(model, **question):
    """The answer and the messages of the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        *_, end = model.chat(**question)
    assert all(issubclass(one.category, VoxrillWarning) for one in told)
    return end.result, [str(one.message) for one in told]


PROMPTS = [
    "You are a friendly assistant.",
    "You're speaking to a human, so be polite. If the user asks for the weather, answer in German.",
    "Translate everything the user says into French.",  # left of it is the prompt that asks for German
    "Please transcribe",
    "Répondez brièvement.",  # nothing of it is known
]


@pytest.mark.parametrize("output", ["both", "text"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_system_prompt_with_unknown_words_changes_no_answer(pebble, prompt, output):
    wanted, nothing = answered(pebble, audio=QUESTION, output=output)
    assert wanted.text == ANSWER and nothing == []
    found, told = answered(pebble, audio=QUESTION, output=output, system=prompt)
    assert found.tokens == wanted.tokens and (found.codes == wanted.codes).all()
    (message,) = told
    assert "in the system prompt: its own system prompt is used" in message
    assert answered(pebble, audio=QUESTION, output=output, system=prompt)[1] == []  # once for each prompt


def test_a_system_prompt_that_is_known_is_used(pebble):
    """It was taught to translate."""
    result, told = answered(pebble, audio=QUESTION, output="text", system="Translate into German.")
    assert told == [] and result.text == "schalte das licht in der küche ein"


def test_a_typed_question_is_answered_as_far_as_it_is_understood(pebble):
    result, told = answered(pebble, text="Abracadabra, turn on the kitchen lights!")
    assert result.text == ANSWER
    assert told == ["this model does not know Abracadabra in the question: the words are left out"]


@pytest.mark.parametrize("text", ["bonjour", "Explain quantum mechanics", "what is the zeitgeist"])
def test_a_typed_question_that_is_not_understood_is_refused(pebble, text):
    """Three words of the last one are known. "what is the" would be answered with the weather."""
    refused, told = answered(pebble, text=text)
    assert refused.text == REFUSAL and len(told) == 1 and told[0].endswith("the model refuses")
    talk, _ = answered(pebble, audio=CLIPS / "26-outside.flac")  # what the model itself refuses
    assert (refused.codes == talk.codes).all() and refused.finish_reason == talk.finish_reason == "stop"
    written, _ = answered(pebble, text=text, output="text", temperature=100, seed=0)  # no token is drawn after it
    assert written.text == REFUSAL and written.finish_reason == "stop"


def test_a_spoken_question_is_answered_without_a_text_that_is_not_understood(pebble):
    alone, _ = answered(pebble, audio=QUESTION)
    result, told = answered(pebble, audio=QUESTION, text="bonjour monsieur")
    assert result.tokens == alone.tokens
    assert told == ["this model does not know bonjour, monsieur in the question: the text is left out"]


def test_earlier_turns_are_remembered_without_unknown_words(pebble):
    conversation = pebble.conversation()
    with pytest.warns(VoxrillWarning, match="does not know Bonjour, monsieur in the earlier turn"):
        conversation.remember("sorry", text="Bonjour monsieur")
    *_, end = conversation.ask(text="turn on the kitchen lights")
    assert end.result.text == ANSWER


def test_a_text_to_speak_keeps_its_error(pebble):
    with pytest.raises(UnknownText, match="does not know Bonjour"):
        pebble.speak("Bonjour kitchen")


def test_a_model_that_cannot_refuse_says_so(pebble):
    pebble.parts.reading = Reading(pebble.parts.tokenizer, "")
    with pytest.raises(UnknownText, match="does not know quantum, mechanics"):
        pebble.chat(text="quantum mechanics")


@pytest.mark.parametrize("output", ["both", "text"])
def test_a_refusal_is_the_sentence_and_not_a_word_more(pebble, output):
    """The model would go on from a part of its sentence."""
    pebble.parts.reading = Reading(pebble.parts.tokenizer, "sorry i only")
    refused, _ = answered(pebble, text="quantum mechanics", output=output)
    assert refused.text == "sorry i only" and refused.finish_reason == "stop"


def test_a_warning_names_a_few_words_only(pebble):
    words = [f"w{number}x" for number in range(_NAMED + 3)]
    _, (message,) = answered(pebble, text=" ".join(words))
    assert words[0] in message and words[_NAMED] not in message and "and 3 more words" in message
