"""The world that Pebble knows: what people can say, and what Pebble answers.

In: `world.toml`. Out: `SENTENCES`, each a command with its reply, its intent, its German and its split; `drawn`, a
sentence at random as people say it; `FOLLOW_UPS`; `WORDS`, all words that are heard and said; `WRITTEN_WORDS`, words
that are only written. A sentence has lower-case words and spaces. Held-out sentences are new combinations of known
words in known patterns: users say them, and no training clip does.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REFUSAL = "sorry i only know the house"
HELD_OUT_PERCENT = 10

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = dict(zip(range(20, 100, 10), "twenty thirty forty fifty sixty seventy eighty ninety".split(), strict=True))
GERMAN_ONES = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
).split()
GERMAN_TENS = dict(
    zip(range(20, 100, 10), "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split(), strict=True)
)
ALIKE = (2, 3, 12, 13, 14, 15, 16, 17, 18, 19, 20, 30, 40, 50, 60, 70, 80, 90)
"""Numbers that sound like others. They are drawn more often."""
NUMBER_SHARES = (0.35, 0.3, 0.35)
"""Shares of numbers that sound alike, of multiples of five, and of any."""

MILES = {
    "work": 6, "school": 2, "the station": 3, "the airport": 20, "the beach": 30, "the hospital": 5, "the market": 4,
    "the store": 13, "the gym": 7, "the park": 8, "the pharmacy": 9, "the restaurant": 10, "the hotel": 11,
    "the library": 12, "the city": 14,
}  # fmt: skip

BEFORE = ("please", "could you", "could you please", "can you", "would you", "would you please", "can you please")
AFTER = ("please", "now", "for me")
COURTESY_SHARE = 0.2
"""Share of the drawn commands that are asked for politely."""
ASKED = ("turn switch dim make set open close shut raise lower lock unlock play put start stop pause cancel add remove "
         "call take drive tell wake vacuum clean send brighten change").split()  # fmt: skip
"""First words of sentences that can be asked for politely."""

OWN_COMMANDS = "PEBBLE_COMMANDS"
"""The environment variable that names a file of commands to teach besides."""

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Sentence:
    """One command of the world, its answer and its German. `held_out` sentences are never trained on."""

    command: str
    reply: str
    intent: str
    german: str
    held_out: bool


@dataclass(frozen=True)
class Value:
    """A value of a slot: how it is said, how the reply names it, its German, and its number if it is one."""

    said: str
    shown: str
    german: str
    number: int | None = None


Values = Mapping[str, Value]
SpokenWord = tuple[str, str]
"""A word that is said, and what it is part of."""


@dataclass(frozen=True)
class Pattern:
    """A command of world.toml. whole: nothing of it is held out."""

    intent: str
    say: tuple[str, ...]
    confirm: str
    german: str
    weight: float = 1.0
    whole: bool = False


def number(value: int) -> str:
    """A number up to a hundred in words."""
    if value == 100:
        return "one hundred"
    if value < len(ONES):
        return ONES[value]
    tens, ones = value // 10 * 10, value % 10
    return TENS[tens] + (f" {ONES[ones]}" if ones else "")


def german_number(value: int) -> str:
    """A number up to a hundred in German words."""
    if value == 100:
        return "hundert"
    if value < len(GERMAN_ONES):
        return GERMAN_ONES[value]
    tens, ones = value // 10 * 10, value % 10
    return ("einund" if ones == 1 else f"{GERMAN_ONES[ones]}und" if ones else "") + GERMAN_TENS[tens]


class World:
    """What a file of the form of world.toml describes."""

    def __init__(self, file: Mapping[str, Any]) -> None:
        self._declared: dict[str, Any] = file["slots"]
        self._german: dict[str, dict[str, str]] = file.get("german", {})
        self.patterns = {name: Pattern(**{**one, "say": tuple(one["say"])}) for name, one in file["commands"].items()}
        self.slots = tuple(self._declared)
        self._weights = [pattern.weight for pattern in self.patterns.values()]
        self._known: dict[str, tuple[Value, ...]] = {}

    def values(self, slot: str) -> tuple[Value, ...]:
        """All values of a slot. A number after its name tells two slots of one kind apart."""
        kind = slot.rstrip("0123456789")
        if kind not in self._known:
            self._known[kind] = tuple(value for form in self._forms(kind) for value in self._expanded(form))
        return self._known[kind]

    def _forms(self, slot: str) -> Iterator[Value]:
        """The values of a slot as they are declared. They may hold slots."""
        declared = self._declared[slot]
        if isinstance(declared, dict) and "from" in declared:
            declared = list(range(declared["from"], declared["to"] + 1, declared.get("step", 1)))
        german = self._german.get(slot, {})
        for shown in dict.fromkeys(declared):
            if isinstance(shown, int):
                yield Value(number(shown), number(shown), german_number(shown), shown)
                continue
            for said in declared[shown] if isinstance(declared, dict) else [shown]:
                yield Value(said, shown, german.get(shown, shown))

    def _expanded(self, form: Value) -> Iterator[Value]:
        """A value with its slots filled in every way."""
        for values in self._choices(form.said):
            yield _filled_value(form, values)

    def _choices(self, template: str) -> Iterator[Values]:
        """Every way to fill the slots of a template."""
        names = slots_of(template)
        for values in product(*map(self.values, names)):
            yield dict(zip(names, values, strict=True))

    def sentences(self) -> Iterator[Sentence]:
        """Every sentence. Two patterns may have the same one."""
        for pattern in self.patterns.values():
            for phrase in pattern.say:
                for values in self._choices(phrase):
                    yield _sentence(pattern, phrase, values)

    def spoken_replies(self) -> dict[str, tuple[SpokenWord, ...]]:
        """Each reply as words with what they are part of: a phrase of the pattern, or a value in its place."""
        found: dict[str, tuple[SpokenWord, ...]] = {}
        for pattern in self.patterns.values():
            for phrase in pattern.say:
                for values in self._choices(phrase):
                    words = tuple(_spoken_reply(pattern, values))
                    found.setdefault(" ".join(word for word, _ in words), words)
        return found

    def examples(self) -> Iterator[Sentence]:
        """One sentence of each phrase, with values that differ from phrase to phrase."""
        chance = random.Random(3)
        for pattern in self.patterns.values():
            for phrase in pattern.say:
                yield _sentence(pattern, phrase, self._drawn_values(phrase, chance))

    def drawn(self, chance: random.Random) -> Sentence:
        """A sentence at random, by the weights of the commands. Numbers that sound alike come more often."""
        pattern = chance.choices(list(self.patterns.values()), self._weights)[0]
        phrase = chance.choice(pattern.say)
        return _sentence(pattern, phrase, self._drawn_values(phrase, chance))

    def _drawn_values(self, template: str, chance: random.Random) -> Values:
        return {name: self._drawn_value(name, chance) for name in slots_of(template)}

    def _drawn_value(self, slot: str, chance: random.Random) -> Value:
        forms = list(self._forms(slot.rstrip("0123456789")))
        alike = [form for form in forms if form.number in ALIKE]
        rounded = [form for form in forms if form.number is not None and form.number % 5 == 0]
        some = chance.choices((alike, rounded, forms), NUMBER_SHARES)[0] or forms
        form = chance.choice(some)
        return _filled_value(form, self._drawn_values(form.said, chance))


def read_world() -> dict[str, Any]:
    """world.toml, with the commands and slots of the file for `voxrill control` that PEBBLE_COMMANDS names.

    Its commands may have the keys of world.toml too. Without them their intent is "own", their answer "all right", and
    they have no German. Values are added to slots of the same name.
    """
    file = tomllib.loads((HERE / "world.toml").read_text(encoding="utf-8"))
    if OWN_COMMANDS not in os.environ:
        return file
    own = tomllib.loads(Path(os.environ[OWN_COMMANDS]).read_text(encoding="utf-8"))
    for name, declared in own.get("slots", {}).items():
        ours = file["slots"].get(name)
        joined = isinstance(ours, list) and isinstance(declared, list)
        file["slots"][name] = [*ours, *declared] if joined else declared
    keys = ("say", "confirm", "intent", "german", "weight", "whole")
    for name, command in own["commands"].items():
        known = {key: command[key] for key in keys if key in command}
        file["commands"][f"own_{name}"] = {"intent": "own", "confirm": "all right", "german": "", "weight": 3.0} | known
    return file


def slots_of(template: str) -> list[str]:
    """The names of the slots of a template, each once."""
    return list(dict.fromkeys(_SLOT.findall(template)))


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: values[slot[1]], template)


def _filled_value(form: Value, values: Values) -> Value:
    if not values:
        return form
    said, shown, german = ({name: getattr(v, key) for name, v in values.items()} for key in ("said", "shown", "german"))
    return Value(_filled(form.said, said), _filled(form.shown, shown), _filled(form.german, german))


def _sentence(pattern: Pattern, phrase: str, values: Values) -> Sentence:
    command = _filled(phrase, {name: value.said for name, value in values.items()})
    shown = {name: value.shown for name, value in values.items()}
    reply = _filled(pattern.confirm, shown | _worked_out(values))
    german = _filled(pattern.german, {name: value.german for name, value in values.items()})
    return Sentence(command, reply, pattern.intent, german, _held_out(command, pattern))


def _spoken_reply(pattern: Pattern, values: Values) -> Iterator[SpokenWord]:
    shown = {name: value.shown for name, value in values.items()} | _worked_out(values)
    parts = pattern.confirm.split()
    for number, part in enumerate(parts):
        slot = _SLOT.fullmatch(part)
        if not slot:
            yield part, f"{number} of {pattern.confirm}"
            continue
        kind = "number" if slot[1] not in values or values[slot[1]].number is not None else slot[1].rstrip("0123456789")
        place = "last" if number == len(parts) - 1 else "middle" if number else "first"
        for word in shown[slot[1]].split():
            yield word, f"{kind} {place}"


def _worked_out(values: Values) -> dict[str, str]:
    """What a reply names and the question does not: a sum, and the miles to a place."""
    found = {}
    if "place" in values:
        found["miles"] = number(MILES[values["place"].said])
    if "left" in values:
        found["sum"] = number((values["left"].number or 0) + (values["right"].number or 0))
    return found


def _held_out(command: str, pattern: Pattern) -> bool:
    """Whether a combination is held out: a fixed tenth, and what the first Pebble held out."""
    if command in _FIRST:
        return _FIRST[command]
    picked = int(hashlib.md5(command.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT
    return picked and not pattern.whole and len(command.split()) >= 4


def _distinct(sentences: Iterator[Sentence]) -> dict[str, Sentence]:
    found: dict[str, Sentence] = {}
    for sentence in sentences:
        same = found.setdefault(sentence.command, sentence)
        assert same.reply == sentence.reply, f"{sentence.command!r} is answered {same.reply!r} and {sentence.reply!r}"
    return found


_FIRST = {
    line.removeprefix("+ "): line.startswith("+ ")
    for line in (HERE / "first_world.txt").read_text(encoding="utf-8").splitlines()
}
WORLD = World(read_world())
COMMANDS = _distinct(WORLD.sentences())
SENTENCES = tuple(COMMANDS.values())
FIRST = tuple(COMMANDS[command] for command in _FIRST)
"""The sentences of the first Pebble. Its evaluation goes on with them."""
LISTED = tuple({s.command: s for s in (*FIRST, *WORLD.examples())}.values())
"""What a user is shown: the first world, and an example of every phrase."""
ROOMS = tuple(value.said for value in WORLD.values("room"))
TIMER_ROOMS = tuple(value.said for value in WORLD.values("timer_room"))
REPLIES = tuple(sorted({s.reply for s in SENTENCES} | {REFUSAL}))
SPOKEN_REPLIES = WORLD.spoken_replies() | {REFUSAL: tuple((word, REFUSAL) for word in REFUSAL.split())}
COURTESY = tuple(sorted({word for phrase in (*BEFORE, *AFTER) for word in phrase.split()}))
WORDS = tuple(
    sorted({word for s in SENTENCES for word in f"{s.command} {s.reply}".split()} | {*REFUSAL.split(), *COURTESY})
)

FOLLOW_UPS = {f"and in the {room}": room for room in ROOMS}
"""Follow-ups to a command that names a room, and the room that each names."""

STYLES = ("calm", "excited")
OUTSIDE = "outside"
INTENTS = tuple(sorted({s.intent for s in SENTENCES} | {OUTSIDE}))
WRITTEN_WORDS = tuple(
    sorted(({word for s in SENTENCES for word in s.german.split()} | {*INTENTS, *STYLES}) - set(WORDS))
)
"""Labels and German. Pebble writes them, and can neither hear nor say them."""

VOICES = ("US male", "US female", "UK male", "UK female")
"""The four voices of the LFM2.5 prompts. US and UK sound alike here: there are two speakers, one of each sex."""

OUTSIDE_WORDS = (
    "river mountain banana elephant yesterday purple doctor guitar window shopping captain orange dragon village "
    "library science winter summer monkey paper pencil teacher planet rocket coffee butter cheese dinner lunch "
    "breakfast street bicycle football computer keyboard picture camera ocean island forest desert castle king queen "
    "soldier engine train ticket money bank river boat ship flower tree grass horse tiger lion rabbit chicken sheep "
    "write read walk run jump swim dance sing think dream believe remember forget buy sell build break carry throw "
    "catch happy angry tired hungry thirsty beautiful strange quick heavy empty narrow ancient modern golden silver "
    "because although together never always sometimes before after under between across against without because many "
    "people children brother sister uncle farmer artist lawyer history language number letter story question answer "
    "problem reason country city bridge hotel restaurant museum theatre garden weather storm thunder lightning cloud"
).split()
"""Words for sentences outside the world. Some words of the world are among them, as in real speech."""


def drawn(chance: random.Random) -> tuple[str, Sentence]:
    """A trained sentence as somebody says it, politely now and then; and the sentence itself."""
    while True:
        sentence = WORLD.drawn(chance)
        said = sentence.command
        if said.split()[0] in ASKED and chance.random() < COURTESY_SHARE:
            said = f"{said} {chance.choice(AFTER)}" if chance.random() < 0.3 else f"{chance.choice(BEFORE)} {said}"
        if not (sentence.held_out or COMMANDS.get(said, sentence).held_out):
            return said, sentence


@cache
def _replies_by_part() -> tuple[tuple[str, ...], ...]:
    """For each spoken part, the trained replies that hold it."""
    holding: defaultdict[SpokenWord, list[str]] = defaultdict(list)
    for reply in sorted({s.reply for s in SENTENCES if not s.held_out} | {REFUSAL}):
        for part in SPOKEN_REPLIES[reply]:
            holding[part].append(reply)
    return tuple(map(tuple, holding.values()))


def reply_with_any_part(chance: random.Random) -> str:
    """A trained reply that holds a part drawn evenly. So a reply without values is said as often as one with many."""
    return chance.choice(chance.choice(_replies_by_part()))


def meant(said: str) -> Sentence | None:
    """The sentence that is said, politely or not; None if it is none of the world."""
    bare = said
    for phrase in sorted(BEFORE, key=len, reverse=True):
        bare = bare.removeprefix(f"{phrase} ")
    for phrase in AFTER:
        bare = bare.removesuffix(f" {phrase}")
    return COMMANDS.get(said) or COMMANDS.get(bare)


def neighbour(sentence: Sentence, chance: random.Random) -> Sentence | None:
    """A trained sentence that differs from this one in one word, such as its number, room, name or state."""
    words = sentence.command.split()
    places = chance.sample(range(len(words)), len(words))
    for place in places:
        others = [new for new in ALTERNATIVES.get(words[place], ()) if new != words[place]]
        for new in chance.sample(others, len(others)):
            found = COMMANDS.get(" ".join([*words[:place], new, *words[place + 1 :]]))
            if found and not found.held_out:
                return found
    return None


def _alternatives() -> dict[str, set[str]]:
    """The words that may stand where a word stands, because they are values of one slot."""
    found: dict[str, set[str]] = {}
    for slot in WORLD.slots:
        single = {value.said for value in WORLD.values(slot) if " " not in value.said}
        for word in single:
            found.setdefault(word, set()).update(single)
    return found


ALTERNATIVES = _alternatives()


def followed_up(command: str, room: str) -> str | None:
    """The command that "and in the ROOM" makes of `command`; None if that is no other command of the world."""
    for other in ROOMS:
        changed = command.replace(other, room)
        if changed != command and changed in COMMANDS:
            return changed
    return None


def outside_sentence(pick: int) -> str:
    """The `pick`-th sentence outside the world: three to eight words, reproducible."""
    digest = hashlib.md5(f"outside {pick}".encode()).digest()
    count = 3 + digest[0] % 6
    return " ".join(OUTSIDE_WORDS[(digest[i + 1] * 256 + digest[i + 2]) % len(OUTSIDE_WORDS)] for i in range(count))


TALK = (
    "i think so", "that is right", "oh really", "of course", "i do not know", "just a moment", "excuse me",
    "come here", "sit down", "look at this", "where is it", "why not", "not at all", "maybe later", "let us go",
    "hurry up", "so what happened then", "did you see the {noun}", "i have never been to {town}",
    "she said that the {noun} was {kind}", "we should buy a new {noun}", "the {noun} is {kind}",
    "my {noun} is broken", "he told me about his {noun}", "they are moving to {town} next year",
    "can i have another {noun}", "where did you put the {noun}", "i {verb} it every week",
    "nobody {verb} that any more", "what a {kind} {noun}", "there is a {noun} behind you",
    "we went to {town} by train", "the children {verb} the {noun}", "it was a {kind} story about a {noun}",
    "are you coming with us to {town}", "this {noun} costs too much", "do you want some more {noun}",
    "a {kind} {noun}", "the {noun}", "{town}", "{noun} and {noun}", "because the {noun} {verb} us",
    "turn on the {noun}", "open the {noun}", "play some {noun}", "set the {noun} to {kind}", "call the {noun}",
    "hey {noun}", "ok {town}", "what is a {noun}", "add the {noun} to my {noun}", "turn the {noun} around",
    "take the {noun} with you", "close your {noun}", "how far did the {noun} go", "i am {kind}", "make it {kind}",
    "what is the {noun} doing", "thank the {noun}", "and then he {verb} the {noun}",
    "well you know the {noun} never {verb} anybody", "stop being so {kind}",
)  # fmt: skip
"""Talk that is not for Pebble: short, long, and like its commands."""
TALK_WORDS = {
    "noun": "guitar mountain teacher pencil bicycle camera sandwich neighbour lawyer garment kettle mirror blanket "
    "candle football village engine monkey jacket bottle carpet wallet planet rocket stadium museum ticket village "
    "sister cousin uncle castle tractor paper picture dragon island meeting project weekend budget lecture story "
    "biscuit potion mushroom ladder hammer pillow statue chimney cupboard ocean desert forest shadow window-sill",
    "town": "london paris berlin chicago boston madrid vienna tokyo sydney dublin oxford denver cairo moscow",
    "verb": "broke forgot painted carried wrote dropped answered followed admired described borrowed imagined repaired "
    "watched ignored collected measured questioned understood",
    "kind": "beautiful strange expensive heavy narrow ancient modern empty careful famous dangerous friendly terrible "
    "wonderful hungry curious silent silver golden ordinary perfect",
}


def talk(pick: int) -> str:
    """The `pick`-th piece of talk, reproducible. At least one of its words is unknown, or it is no sentence here."""
    chance = random.Random(f"talk {pick}")
    words = {kind: some.split() for kind, some in TALK_WORDS.items()}
    return re.sub(r"\{(\w+)\}", lambda slot: chance.choice(words[slot[1]]), chance.choice(TALK)).replace("-", " ")
