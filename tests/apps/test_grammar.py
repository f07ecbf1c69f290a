"""Files of commands: every sentence they mean, and what cannot be meant."""

import random
import tracemalloc
from pathlib import Path

import pytest

from voxrill.runtime.apps.grammar import MOST_SENTENCES, Call, parse_grammar, read_grammar, spoken
from voxrill.runtime.apps.numbers import LARGEST, number_words
from voxrill.runtime.errors import DataError, UsageError, VoxrillError

LIGHTS = """
threshold = 0.7
ask_back = "what was that"
[slots]
room = ["kitchen", "living room"]
state = { on = ["on"], off = ["off", "out"] }
[commands.lights]
say = ["turn {state} the {room} lights", "{room} lights {state}"]
confirm = "{room} {state}"
[commands.all]
say = ["all lights"]
"""


def sentences(text, folder):
    return {sentence.words: sentence.call for sentence in parse_grammar(text, folder).sentences}


def test_every_sentence_has_its_call(tmp_path):
    found = sentences(LIGHTS, tmp_path)
    assert len(found) == 2 * 2 * 3 + 1
    assert found["turn out the living room lights"] == Call("lights", {"state": "off", "room": "living room"})
    assert found["kitchen lights on"] == Call("lights", {"room": "kitchen", "state": "on"})
    assert found["all lights"] == Call("all", {})
    grammar = parse_grammar(LIGHTS, tmp_path)
    assert (grammar.threshold, grammar.ask_back) == (0.7, "what was that")
    assert grammar.commands["lights"].confirm == "{room} {state}"


def test_numbers_are_said_in_words_and_in_digits_and_called_as_numbers(tmp_path):
    found = sentences(
        "[slots]\nn = { from = 20, to = 30, step = 5 }\nm = [3, 4]\n"
        '[commands.timer]\nsay = ["{n} minutes {m}"]\n[commands.x]\nsay = ["x"]',
        tmp_path,
    )
    assert (
        found["twenty five minutes three"]
        == found["25 minutes 4".replace("4", "3")]
        == Call("timer", {"n": 25, "m": 3})
    )
    assert len(found) == 3 * 2 * 2 * 2 + 1
    assert spoken("{n} minutes", {"n": 25}) == "twenty five minutes"


def test_calls_are_shown_so_that_they_can_be_read():
    assert str(Call("lights", {"room": "living room", "level": 3})) == 'lights room="living room" level=3'


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (305, "three hundred five"),
        (21_012, "twenty one thousand twelve"),
        (LARGEST, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ],
)
def test_number_words(value, words):
    assert number_words(value) == words


def test_no_two_numbers_are_said_alike():
    assert len({number_words(value) for value in range(20_000)}) == 20_000


ONE = '[commands.one]\nsay = ["{a}"]\n'


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("", "commands"),
        ("[commands]", "there are no commands"),
        ("[commands.a]\nsay = []", "the command a has no phrase"),
        ('[commands.a]\nsay = [" "]', "the command a has no phrase"),
        ('[commands.a]\nsay = ["b"]\n[commands.a]\nsay = ["c"]', "Cannot declare"),
        ('[commands.a]\nsay = ["b"]\nsays = ["c"]', "says"),
        (f"{ONE}[slots]\na = []", "the slot a has nothing"),
        (f'{ONE}[slots]\na = {{ on = [] }}', "the slot a has nothing"),
        (f'{ONE}[slots]\na = ["b", " "]', "the slot a has ' '"),
        (f'{ONE}[slots]\na = ["b", "b"]', "the slot a has the value 'b' twice"),
        (f"{ONE}[slots]\na = {{ from = 5, to = 4 }}", "no numbers from 5 to 4"),
        (f"{ONE}[slots]\na = {{ from = 1, to = 4, step = 0 }}", "by 0"),
        (f"{ONE}[slots]\na = {{ from = 1 }}", "not a range of numbers"),
        (f"{ONE}[slots]\na = {{ from = 0, to = 900000 }}", "more than"),
        (f"{ONE}[slots]\na = [-1]", "-1 has no words"),
        (ONE, "says the slot 'a', which is not declared"),
        ('[slots]\na = ["b"]\n[commands.c]\nsay = ["d"]', "the slot a is unreachable"),
        ('[slots]\na = ["b"]\n[commands.c]\nsay = ["{a} or {a}"]', "says a slot twice"),
        ('[commands.c]\nsay = ["turn } on"]', "has a single brace"),
        ('[commands.a]\nsay = ["b"]\nconfirm = "{c}"', "uses {c}"),
        ('[slots]\na = ["b"]\n[commands.c]\nsay = ["{a}", "d"]\nconfirm = "{a}"', "not every phrase"),
        ('[commands.a]\nsay = ["b"]\nrun = ["x"]\ncall = "y:z"', "both run and call"),
        (f'{ONE}run = ["echo", "on {{a}}"]\n[slots]\na = ["b"]', "in which a slot is only a part"),
        (f'{ONE}run = ["{{a}}"]\n[slots]\na = ["b"]', "Name a program"),
        ('[commands.a]\nsay = ["go on"]\n[commands.b]\nsay = ["go  on"]', "'go on' is ambiguous"),
        ('[slots]\na = ["x", "x y"]\nb = ["z", "y z"]\n[commands.c]\nsay = ["{a} {b}"]', "'x y z' is ambiguous"),
        ('[slots]\na = { one = ["x"], two = ["X"] }\n[commands.c]\nsay = ["{a}"]', "is ambiguous"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(text, saying, tmp_path):
    with pytest.raises(VoxrillError) as refused:
        parse_grammar(text, tmp_path)
    assert saying in str(refused.value) and refused.value.remedy


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[commands]")
    with pytest.raises(DataError, match=r"mine\.toml: there are no commands"):
        read_grammar(path)
    with pytest.raises(DataError, match=r"none\.toml cannot be read"):
        read_grammar(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"mine\.toml is not text in UTF-8"):
        read_grammar(path)


def test_too_many_sentences_are_counted_and_not_made(tmp_path):
    slots = "\n".join(f"s{n} = {{ from = 1, to = 999 }}" for n in range(4))
    with pytest.raises(UsageError, match=f"more than {MOST_SENTENCES} sentences.*big alone makes 15936095936016"):
        parse_grammar(f'[slots]\n{slots}\n[commands.big]\nsay = ["{{s0}} {{s1}} {{s2}} {{s3}}"]', tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_random_grammars_are_unambiguous_or_refused(seed, tmp_path):
    """Words from a small stock make many clashes: none gets through, and none is refused without a reason."""
    chance = random.Random(seed)

    def words():
        return " ".join(chance.choice("ab") for _ in range(chance.randint(1, 3)))

    slots = {name: sorted({words() for _ in range(2)}) for name in ("p", "q")}
    phrases = [f"{words()} {{p}}", f"{{q}} {words()}", "{p} {q}"]
    text = "[slots]\n" + "".join(f"{name} = {values}\n" for name, values in slots.items())
    text += "".join(f"[commands.c{n}]\nsay = ['{phrase}']\n" for n, phrase in enumerate(phrases))
    meanings = {}
    for number, phrase in enumerate(phrases):
        for p in slots["p"]:
            for q in slots["q"]:
                said = {name: value for name, value in (("p", p), ("q", q)) if f"{{{name}}}" in phrase}
                meanings.setdefault(phrase.format(p=p, q=q), set()).add((number, *said.items()))
    clash = any(len(found) > 1 for found in meanings.values())
    try:
        assert set(sentences(text, tmp_path)) == set(meanings) and not clash
    except UsageError as refused:
        assert clash and "ambiguous" in str(refused)


# Files made to do harm


def harmful(text):
    """A grammar of `text` in the place of a command's words, with two slots."""
    return f'[slots]\nn = {{ from = 0, to = 9999 }}\na = ["b"]\n[commands.c]\nsay = [{text}]\n'


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "{a=" * 100_000, "nested too deeply"),
        ("a = " + "9" * 100_000, "cannot be read"),
        ("threshold = " + "9" * 100_000, "cannot be read"),
        ("a." * 100_000 + "a = 1", "line 1 has more than 200 dots"),
        ("\n[" + "a." * 100_000 + "a]", "line 2 has more than 200 dots"),
        ("a." * 199 + "a = 1", "the text cannot be read"),
        ("\0", "cannot be read"),
        (ONE + "\n".join(f"[slots.s{n}]\nfrom = 0\nto = 9999" for n in range(1000)), "more than 50000 words"),
        (harmful(f'"{"long " * 1000}{{n}} {{a}}"'), "more than 300 characters"),
        (harmful('"' + "{n}" * 99 + '"'), "says a slot twice"),
        (harmful('"{a} {' + "x" * 100_000 + '}"'), "which is not declared"),
        (harmful('"{n} {a}", "{n} {a} {n2}"') + '[slots.n2]\nfrom = 0\nto = 9999', "more than 50000 sentences"),
        ("[slots]\n" + "".join(f's{n} = ["{"x" * 290}"]\n' for n in range(2)) + '[commands.c]\nsay = ["{s0} {s1}"]',
         "more than 300 characters"),
        ("[slots]\n" + "".join(f's{n} = ["a", "b"]\n' for n in range(40)) + "[commands.c]\nsay = ['"
         + "".join(f"{{s{n}}}" for n in range(40)) + "']", f"makes {2**40}"),
    ],
)  # fmt: skip
def test_a_file_made_to_do_harm_is_refused_before_it_does(text, saying, tmp_path):
    tracemalloc.start()
    with pytest.raises(VoxrillError) as refused:
        parse_grammar(text, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    assert saying in str(refused.value) and refused.value.remedy


def test_a_file_without_end_is_not_read_to_it(tmp_path):
    with pytest.raises(DataError, match="/dev/zero is larger than 4 MB"):
        read_grammar(Path("/dev/zero"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_grammar(tmp_path)


def test_a_value_cannot_speak_to_the_terminal():
    assert str(Call("c", {"a": "\x1b[2J\n"})) == r"c a=\x1b[2J\x0a"


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    (tmp_path / "bom.toml").write_text(ONE.replace("{a}", "b"), encoding="utf-8-sig")
    assert read_grammar(tmp_path / "bom.toml").sentences[0].words == "b"


# Courtesy


def test_courtesy_is_known_by_its_words(tmp_path):
    grammar = parse_grammar('[commands.a]\nsay = ["go"]', tmp_path)
    assert grammar.is_courtesy("Could you, please") and not grammar.is_courtesy("could you go")
    assert grammar.without_courtesy("Turn it on, please!") == "turn it on"
    own = parse_grammar('before = ["computer"]\nafter = []\n[commands.a]\nsay = ["go"]', tmp_path)
    assert own.is_courtesy("Computer,") and not own.is_courtesy("please")
    assert own.without_courtesy("Go, please.") == "go please"


@pytest.mark.parametrize("key", ["before", "after"])
def test_courtesy_has_words(key, tmp_path):
    with pytest.raises(UsageError, match="a phrase without words"):
        parse_grammar(f'{key} = ["please", "!"]\n[commands.a]\nsay = ["go"]', tmp_path)
