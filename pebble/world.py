"""The world that Pebble knows: what people can say, and what Pebble answers.

In: nothing. Out: `SENTENCES`, each a command with its reply, its intent, its German and its split; `FOLLOW_UPS`;
`WORDS`, all words that are heard and said; `WRITTEN_WORDS`, words that are only written. A sentence has lower-case
words and spaces. Held-out sentences are new combinations of known words in known patterns: users say them, and no
training clip does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty"}
GERMAN_ONES = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
).split()
GERMAN_TENS = {20: "zwanzig", 30: "dreißig", 40: "vierzig", 50: "fünfzig"}

ROOMS = {
    "kitchen": "in der küche",
    "bedroom": "im schlafzimmer",
    "bathroom": "im bad",
    "hall": "im flur",
    "garage": "in der garage",
    "garden": "im garten",
    "office": "im büro",
    "living room": "im wohnzimmer",
}
GENRES = {
    "jazz": "jazz", "rock": "rock", "blues": "blues", "classical": "klassik", "folk": "volksmusik", "disco": "disko"
}  # fmt: skip
PLACES = {
    "work": "zur arbeit",
    "school": "zur schule",
    "the station": "zum bahnhof",
    "the airport": "zum flughafen",
    "the beach": "zum strand",
    "the hospital": "zum krankenhaus",
    "the market": "zum markt",
}
PEOPLE = {"mom": "mama", "dad": "papa", "anna": "anna", "peter": "peter", "maria": "maria", "john": "john"}
OPENINGS = {"door": "die tür", "window": "das fenster", "gate": "das tor", "curtains": "die vorhänge"}
MINUTES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 40, 45)
TIMER_ROOMS = ("kitchen", "bedroom", "bathroom", "office")
DEGREES = range(16, 25)
MILES = {
    "work": 6,
    "school": 2,
    "the station": 3,
    "the airport": 20,
    "the beach": 30,
    "the hospital": 5,
    "the market": 4,
}

REFUSAL = "sorry i only know the house"
HELD_OUT_PERCENT = 10

FIXED = (
    ("turn on all the lights", "all lights on", "lights", "schalte alle lichter ein"),
    ("turn off all the lights", "all lights off", "lights", "schalte alle lichter aus"),
    ("make it warmer", "making it warmer", "heating", "mach es wärmer"),
    ("make it cooler", "making it cooler", "heating", "mach es kühler"),
    ("i am cold", "making it warmer", "heating", "mir ist kalt"),
    ("i am hot", "making it cooler", "heating", "mir ist heiß"),
    ("cancel the timer", "timer cancelled", "timer", "lösche die uhr"),
    ("stop the music", "music stopped", "music", "beende die musik"),
    ("pause the music", "music paused", "music", "halte die musik an"),
    ("play the next song", "playing the next song", "music", "spiele das nächste lied"),
    ("make it louder", "volume up", "music", "mach es lauter"),
    ("make it quieter", "volume down", "music", "mach es leiser"),
    ("take me home", "driving home", "navigation", "bring mich nach hause"),
    ("drive home", "driving home", "navigation", "fahre nach hause"),
    ("what is the weather", "it is sunny and warm today", "facts", "wie ist das wetter"),
    ("will it rain tomorrow", "no rain tomorrow", "facts", "regnet es morgen"),
    ("is it cold outside", "no it is warm outside", "facts", "ist es draußen kalt"),
    ("hello", "hello how can i help", "talk", "hallo"),
    ("good morning", "good morning how can i help", "talk", "guten morgen"),
    ("good night", "good night sleep well", "talk", "gute nacht"),
    ("thank you", "you are welcome", "talk", "danke"),
    ("who are you", "i am pebble your house voice", "talk", "wer bist du"),
    ("what can you do", "lights heating timers music and roads", "talk", "was kannst du"),
    ("how are you", "i am fine thank you", "talk", "wie geht es dir"),
)


@dataclass(frozen=True)
class Sentence:
    """One command of the world, its answer and its German. `held_out` sentences are never trained on."""

    command: str
    reply: str
    intent: str
    german: str
    held_out: bool


def number(value: int) -> str:
    """A number below sixty in words."""
    if value < len(ONES):
        return ONES[value]
    tens, ones = value // 10 * 10, value % 10
    return TENS[tens] + (f" {ONES[ones]}" if ones else "")


def german_number(value: int) -> str:
    """A number below sixty in German words."""
    if value < len(GERMAN_ONES):
        return GERMAN_ONES[value]
    tens, ones = value // 10 * 10, value % 10
    return (f"{GERMAN_ONES[ones].removesuffix('s')}und" if ones else "") + GERMAN_TENS[tens]


def _patterns() -> Iterator[tuple[str, str, str, str]]:
    for room, where in ROOMS.items():
        for state, switched in (("on", "ein"), ("off", "aus")):
            reply = f"{room} lights {state}"
            german = f"schalte das licht {where} {switched}"
            yield f"turn {state} the {room} lights", reply, "lights", german
            yield f"{room} lights {state}", reply, "lights", f"licht {where} {switched}"
            yield f"switch the {room} lights {state}", reply, "lights", german
        yield f"dim the {room} lights", f"{room} lights dimmed", "lights", f"dimme das licht {where}"
        for genre, musik in GENRES.items():
            yield (
                f"play some {genre} in the {room}",
                f"playing {genre} in the {room}",
                "music",
                f"spiele {musik} {where}",
            )
    for degrees in DEGREES:
        yield (
            f"set the heating to {number(degrees)} degrees",
            f"heating set to {number(degrees)} degrees",
            "heating",
            f"stelle die heizung auf {german_number(degrees)} grad",
        )
    for minutes in MINUTES:
        time = f"{number(minutes)} minute{'' if minutes == 1 else 's'}"
        german = f"stelle eine uhr auf {'eine minute' if minutes == 1 else f'{german_number(minutes)} minuten'}"
        yield f"set a timer for {time}", f"timer set for {time}", "timer", german
        for room in TIMER_ROOMS:
            command = f"set a timer for {time} in the {room}"
            yield command, f"{room} timer set for {time}", "timer", f"{german} {ROOMS[room]}"
    for genre, musik in GENRES.items():
        yield f"play some {genre}", f"playing {genre}", "music", f"spiele {musik}"
    for level in range(1, 11):
        german = f"stelle die lautstärke auf {german_number(level)}"
        yield f"set the volume to {number(level)}", f"volume set to {number(level)}", "music", german
    for place, where in PLACES.items():
        yield f"take me to {place}", f"driving to {place}", "navigation", f"bring mich {where}"
        yield f"drive to {place}", f"driving to {place}", "navigation", f"fahre {where}"
        german = f"wie weit ist es {where}"
        yield f"how far is {place}", f"{number(MILES[place])} miles to {place}", "navigation", german
    for person, german in PEOPLE.items():
        yield f"call {person}", f"calling {person}", "calls", f"rufe {german} an"
        yield f"please call {person} at home", f"calling {person} at home", "calls", f"bitte rufe {german} zu hause an"
    for thing, german in OPENINGS.items():
        for verb, doing, tun in (("open", "opening", "öffne"), ("close", "closing", "schließe")):
            yield f"{verb} the {thing}", f"{doing} the {thing}", "openings", f"{tun} {german}"
            yield f"please {verb} the {thing}", f"{doing} the {thing}", "openings", f"bitte {tun} {german}"
    for left in range(1, 7):
        for right in range(1, 7):
            command = f"what is {number(left)} plus {number(right)}"
            german = f"was ist {german_number(left)} plus {german_number(right)}"
            yield command, f"{number(left)} plus {number(right)} is {number(left + right)}", "sums", german


def _held_out(command: str, intent: str) -> bool:
    """Whether a combination is held out: a fixed tenth, but nothing that no other sentence teaches."""
    if intent in ("sums", "talk", "facts", "calls", "heating") or len(command.split()) < 4:
        return False
    if command.startswith("how far"):
        return False
    return int(hashlib.md5(command.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def _sentences() -> tuple[Sentence, ...]:
    combined = [Sentence(c, r, intent, german, _held_out(c, intent)) for c, r, intent, german in _patterns()]
    fixed = [Sentence(c, r, intent, german, False) for c, r, intent, german in FIXED]
    return tuple(combined + fixed)


SENTENCES = _sentences()
REPLIES = tuple(sorted({s.reply for s in SENTENCES} | {REFUSAL}))
WORDS = tuple(sorted({word for s in SENTENCES for word in f"{s.command} {s.reply}".split()} | set(REFUSAL.split())))

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


def followed_up(command: str, room: str) -> str | None:
    """The command that "and in the ROOM" makes of `command`; None if that is no other command of the world."""
    for other in ROOMS:
        changed = command.replace(other, room)
        if changed != command and changed in _COMMANDS:
            return changed
    return None


_COMMANDS = {s.command for s in SENTENCES}


def outside_sentence(pick: int) -> str:
    """The `pick`-th sentence outside the world: three to eight words, reproducible."""
    digest = hashlib.md5(f"outside {pick}".encode()).digest()
    count = 3 + digest[0] % 6
    return " ".join(OUTSIDE_WORDS[(digest[i + 1] * 256 + digest[i + 2]) % len(OUTSIDE_WORDS)] for i in range(count))
