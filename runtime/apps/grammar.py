"""What can be commanded: a TOML file of commands with slots becomes a list of all sentences that call one.

In: a file like this one. Out: a `Grammar`. Only its sentences can be heard, and each means exactly one call.

    threshold = 0.5                          # optional: below this confidence the user is asked to say it again
    ask_back = "please say that again"       # optional: with these words
    before = ["please", "could you"]         # optional: said before any command and without meaning; [] for nothing.
    after = ["please"]                       # The same after it. Without these keys: English courtesy
    environment = ["MQTT_HOST"]              # optional: variables that the programs need, besides PATH, HOME and so on

    [slots]
    room = ["kitchen", "living room"]        # values that are said as they are written
    state = { on = ["on"], off = ["off", "out"] }   # values with the words for each
    minutes = { from = 1, to = 60 }          # whole numbers, said in words or digits; step = 5 skips some

    [commands.lights]
    say = ["turn {state} the {room} lights", "{room} lights {state}"]
    run = ["./lights.sh", "{room}", "{state}"]      # a program and its arguments; or call = "module:function"
    confirm = "{room} lights {state}"        # optional: what is said when the command is done

All sentences are made when the file is read. So its mistakes are found then: a slot in no sentence, or a sentence that
calls two things. Their number and their length are checked before they are made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import msgspec

from voxrill.runtime.apps.slots import Declared, Forms, Value, said, slot_forms
from voxrill.runtime.errors import DataError, UsageError, VoxrillError
from voxrill.runtime.input_file import LARGEST_TOML, decoded_toml, read_text
from voxrill.runtime.printable import printable

MOST_SENTENCES = 50_000
"""Sentences of a grammar at most. For the built-in model 45,000 were ready after 1.6 s and took 54 MB; a command was
understood in 18 ms of processor time, and in 8 ms with 355 sentences."""

LONGEST_SENTENCE = 300
"""Characters of a sentence at most. The tree of sentences takes as much memory for each as for the longest."""

BEFORE = (
    "please", "could you", "could you please", "can you", "can you please", "would you", "would you please",
)  # fmt: skip
AFTER = ("please", "now", "for me")
"""Courtesy that a file of commands need not spell out."""

_LISTED = 20
"""Names that an error lists at most."""

_SLOT = re.compile(r"\{([^{}]*)\}")
_MARKS = re.compile(r"[.,!?;:]+(?=\s|$)")
"""Punctuation, but not that within a number or a time."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command: its phrases, the program to run or the Python function to call, and the words of the answer."""

    say: list[str]
    run: list[str] = []
    call: str = ""
    confirm: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    commands: dict[str, Command]
    slots: dict[str, Declared] = {}
    threshold: float | None = None
    ask_back: str = ""
    before: tuple[str, ...] = BEFORE
    after: tuple[str, ...] = AFTER
    environment: list[str] = []


@dataclass(frozen=True)
class Call:
    """A command, and the values of its slots."""

    command: str
    slots: Mapping[str, Value]

    def __str__(self) -> str:
        return " ".join([self.command, *(f"{name}={_quoted(value)}" for name, value in self.slots.items())])


def _quoted(value: Value) -> str:
    shown = printable(str(value))
    return f'"{shown}"' if " " in shown else shown


@dataclass(frozen=True)
class CommandSentence:
    """A sentence that may be said, the call that it means, and the phrase of the file that it comes from."""

    words: str
    call: Call
    phrase: str


@dataclass(frozen=True)
class Grammar:
    """All that can be commanded.

    sentences: no two have the same words; folder: the file's, where its programs run; environment: variables that the
    programs get, besides those of `programs.PASSED`; before and after: courtesy around any sentence.
    """

    sentences: tuple[CommandSentence, ...]
    commands: Mapping[str, Command]
    folder: Path
    threshold: float | None = None
    ask_back: str = ""
    environment: tuple[str, ...] = ()
    before: tuple[str, ...] = BEFORE
    after: tuple[str, ...] = AFTER

    def is_courtesy(self, words: str) -> bool:
        """Whether `words` may stand before any sentence."""
        return plain(words) in map(plain, self.before)

    def without_courtesy(self, words: str) -> str:
        """`words` as `plain`, without the courtesy at their end."""
        found = plain(words)
        for phrase in self.after:
            found = found.removesuffix(f" {plain(phrase)}")
        return found


def plain(words: str) -> str:
    """`words` in small letters and without punctuation."""
    return " ".join(_MARKS.sub(" ", words.casefold()).split())


def read_grammar(path: Path) -> Grammar:
    """Read a file of commands.

    Raises:
        DataError: it cannot be read, or has a mistake; the message says what and where.
    """
    text = read_text(path, LARGEST_TOML)
    try:
        return parse_grammar(text, path.resolve().parent)
    except VoxrillError as error:
        raise DataError(f"{path}: {error.message}", error.remedy) from None


def parse_grammar(text: str, folder: Path) -> Grammar:
    """The grammar that `text`, TOML, describes; `folder` is where the programs and modules it names are looked for.

    Raises:
        DataError: it is not TOML, or has a key that a grammar does not have.
        UsageError: it has another mistake.
    """
    file = decoded_toml(text, _File, "the text", "Mend it; examples/commands.toml shows what it may hold")
    if not file.commands:
        raise UsageError("there are no commands", 'Add one: [commands.NAME] with say = ["..."]')
    slots = _slots(file.slots)
    _check_slots(file.commands, slots)
    if not all(map(plain, (*file.before, *file.after))):
        raise UsageError("before or after holds a phrase without words", "Take it out; [] is for no phrases at all")
    for variable in file.environment:
        if variable.startswith("VOXRILL_"):
            raise UsageError(
                f"the variable {variable} is Voxrill's own and may be a key", "Leave it out of environment"
            )
    return Grammar(
        tuple(distinct(sentences(file.commands, slots))),
        file.commands,
        folder,
        file.threshold,
        file.ask_back,
        tuple(file.environment),
        file.before,
        file.after,
    )


def _slots(declared: Mapping[str, Declared]) -> dict[str, Forms]:
    """The forms of every slot. Each form is in a sentence of its own, so they are not more than sentences may be."""
    slots: dict[str, Forms] = {}
    left = MOST_SENTENCES
    for name, slot in declared.items():
        slots[name] = slot_forms(name, slot)
        left -= _count(slots[name])
        if left < 0:
            raise UsageError(f"the slots have more than {MOST_SENTENCES} words for their values", "Give fewer values")
    return slots


def _count(forms: Forms) -> int:
    return sum(map(len, forms.values()))


def slots_in(text: str) -> list[str]:
    """The names of the slots in `text`."""
    return _SLOT.findall(text)


def filled(text: str, values: Mapping[str, Value]) -> str:
    """`text` with the values of its slots."""
    return _SLOT.sub(lambda place: str(values[place[1]]), text)


def spoken(text: str, values: Mapping[str, Value]) -> str:
    """`text` as it is said: with the values of its slots, and numbers in words."""
    return filled(text, {name: said(value)[0] for name, value in values.items()})


def _check_slots(commands: Mapping[str, Command], slots: Mapping[str, Forms]) -> None:
    """Refuse a slot that is not declared, that no phrase says, or that is used although some phrases do not say it."""
    for name, command in commands.items():
        if not command.say or not all(phrase.strip() for phrase in command.say):
            raise UsageError(f"the command {name} has no phrase", 'Give it words: say = ["..."]')
        if command.run and command.call:
            raise UsageError(f"the command {name} has both run and call", "Give one of them")
        for phrase in command.say:
            check_phrase(name, phrase, slots)
        _check_run(name, command.run)
        # A program gets all its arguments whichever phrase was said, so its slots must be in every phrase.
        always = set.intersection(*(set(slots_in(phrase)) for phrase in command.say))
        for text in (command.confirm, *command.run):
            for slot in slots_in(text):
                if slot not in always:
                    raise UsageError(
                        f"the command {name} uses {{{slot}}} in {text!r}, but not every phrase of the command says it",
                        "Say the slot in every phrase, or make two commands",
                    )
    spoken_slots = {slot for command in commands.values() for phrase in command.say for slot in slots_in(phrase)}
    for slot in slots:
        if slot not in spoken_slots:
            raise UsageError(
                f"the slot {slot} is unreachable: no command says it", f"Say {{{slot}}} in a phrase, or remove the slot"
            )


def _check_run(name: str, arguments: list[str]) -> None:
    """Refuse a slot that is not a whole argument: inside another text, a value could be read as something else."""
    if arguments and slots_in(arguments[0]):
        raise UsageError(
            f"the command {name} runs {arguments[0]!r}, which has a slot in it", "Name a program; slots are arguments"
        )
    for argument in arguments:
        if slots_in(argument) and not _SLOT.fullmatch(argument):
            raise UsageError(
                f"the command {name} runs a program with the argument {argument!r}, in which a slot is only a part",
                "Give the slot as an argument by itself, and join the texts in the program",
            )


def check_phrase(name: str, phrase: str, slots: Mapping[str, Forms]) -> None:
    """Refuse a phrase that says a slot twice, or a slot that is not declared, or that has a single brace.

    Args:
        name: the command of the phrase.
        phrase: the phrase.
        slots: the slots that are declared.

    Raises:
        UsageError: it is such a phrase.
    """
    found = slots_in(phrase)
    if len(set(found)) < len(found):
        raise UsageError(f"the command {name} says a slot twice: {phrase!r}", "Declare a second slot, and say that")
    if "{" in _SLOT.sub("", phrase) or "}" in _SLOT.sub("", phrase):
        raise UsageError(f"the command {name} has a single brace in {phrase!r}", "Write slots as {name}")
    for slot in found:
        if slot not in slots:
            raise UsageError(
                f"the command {name} says the slot {slot!r}, which is not declared",
                f"Declare it under [slots]; there are: {_listed(slots)}",
            )


def sentences(
    commands: Mapping[str, Command], slots: Mapping[str, Forms], most: int = MOST_SENTENCES
) -> Iterator[CommandSentence]:
    """Every sentence, in the file's order.

    Raises:
        UsageError: there are more than `most`, or one is too long.
    """
    _check_count(commands, slots, most)
    for name, command in commands.items():
        for phrase in command.say:
            names = slots_in(phrase)
            choices = [[(value, form) for value, forms in slots[slot].items() for form in forms] for slot in names]
            for chosen in product(*choices):
                words = filled(phrase, {slot: form for slot, (_, form) in zip(names, chosen, strict=True)})
                call = Call(name, {slot: value for slot, (value, _) in zip(names, chosen, strict=True)})
                yield CommandSentence(" ".join(words.split()), call, phrase)


def _check_count(commands: Mapping[str, Command], slots: Mapping[str, Forms], limit: int) -> None:
    """Refuse a grammar of too many sentences, or too long ones, before any is made."""
    longest = {name: max(len(form) for forms in slot.values() for form in forms) for name, slot in slots.items()}
    counts = {name: _count(forms) for name, forms in slots.items()}
    whole = 0
    for name, command in commands.items():
        for phrase in command.say:
            if len(phrase) + sum(longest[slot] for slot in slots_in(phrase)) > LONGEST_SENTENCE:
                raise UsageError(
                    f"the command {name} makes a sentence of more than {LONGEST_SENTENCE} characters: {phrase[:60]!r}",
                    "Say it in fewer words",
                )
            made = math.prod(counts[slot] for slot in slots_in(phrase))  # 1 without slots
            whole += made
            if whole > limit:
                raise UsageError(
                    f"there are more than {limit} sentences, which is the limit; "
                    f"{phrase!r} of the command {name} alone makes {made}",
                    "Give its slots fewer values",
                )


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    return ", ".join(found[:_LISTED] + more) or "none"


def distinct(made: Iterable[CommandSentence]) -> Iterator[CommandSentence]:
    """Each sentence once.

    Raises:
        UsageError: one means two things.
    """
    seen: dict[str, CommandSentence] = {}
    for sentence in made:
        known = seen.setdefault(sentence.words.casefold(), sentence)  # speech has no capital letters
        if known is sentence:
            yield sentence
        elif known.call != sentence.call:
            raise ambiguous(sentence.words, known, sentence)


def ambiguous(words: str, one: CommandSentence, other: CommandSentence) -> UsageError:
    """The error for words that mean two things."""
    return UsageError(
        f"{words!r} is ambiguous: it means {one.call} (by {one.phrase!r}) and {other.call} (by {other.phrase!r})",
        "Change one of the phrases, or the words of a slot",
    )
