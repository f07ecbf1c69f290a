"""The world Pebble knows: what can be said in it, and what is answered.

In: nothing. Out: `SENTENCES`, each a command with its reply, its intent and its split; `WORDS`, all words of the
world; prompts. A sentence is lower-case words and spaces. Held-out sentences are new combinations of known words in
known patterns: what a product's user says that no training clip said.
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

ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "garage", "garden", "office", "living room")
GENRES = ("jazz", "rock", "blues", "classical", "folk", "disco")
PLACES = ("work", "school", "the station", "the airport", "the beach", "the hospital", "the market")
PEOPLE = ("mom", "dad", "anna", "peter", "maria", "john")
OPENINGS = ("door", "window", "gate", "curtains")
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
    ("turn on all the lights", "all lights on", "lights"),
    ("turn off all the lights", "all lights off", "lights"),
    ("make it warmer", "making it warmer", "heating"),
    ("make it cooler", "making it cooler", "heating"),
    ("i am cold", "making it warmer", "heating"),
    ("i am hot", "making it cooler", "heating"),
    ("cancel the timer", "timer cancelled", "timer"),
    ("stop the music", "music stopped", "music"),
    ("pause the music", "music paused", "music"),
    ("play the next song", "playing the next song", "music"),
    ("make it louder", "volume up", "music"),
    ("make it quieter", "volume down", "music"),
    ("take me home", "driving home", "navigation"),
    ("drive home", "driving home", "navigation"),
    ("what is the weather", "it is sunny and warm today", "facts"),
    ("will it rain tomorrow", "no rain tomorrow", "facts"),
    ("is it cold outside", "no it is warm outside", "facts"),
    ("hello", "hello how can i help", "talk"),
    ("good morning", "good morning how can i help", "talk"),
    ("good night", "good night sleep well", "talk"),
    ("thank you", "you are welcome", "talk"),
    ("who are you", "i am pebble your house voice", "talk"),
    ("what can you do", "lights heating timers music and roads", "talk"),
    ("how are you", "i am fine thank you", "talk"),
)


@dataclass(frozen=True)
class Sentence:
    """One command of the world and its answer. `held_out` sentences are never trained on."""

    command: str
    reply: str
    intent: str
    held_out: bool


def number(value: int) -> str:
    """A number below sixty in words."""
    if value < len(ONES):
        return ONES[value]
    tens, ones = value // 10 * 10, value % 10
    return TENS[tens] + (f" {ONES[ones]}" if ones else "")


def _patterns() -> Iterator[tuple[str, str, str]]:
    for room in ROOMS:
        for state in ("on", "off"):
            reply = f"{room} lights {state}"
            yield f"turn {state} the {room} lights", reply, "lights"
            yield f"{room} lights {state}", reply, "lights"
            yield f"switch the {room} lights {state}", reply, "lights"
        yield f"dim the {room} lights", f"{room} lights dimmed", "lights"
        for genre in GENRES:
            yield f"play some {genre} in the {room}", f"playing {genre} in the {room}", "music"
    for degrees in DEGREES:
        yield f"set the heating to {number(degrees)} degrees", f"heating set to {number(degrees)} degrees", "heating"
    for minutes in MINUTES:
        time = f"{number(minutes)} minute{'' if minutes == 1 else 's'}"
        yield f"set a timer for {time}", f"timer set for {time}", "timer"
        for room in TIMER_ROOMS:
            yield f"set a timer for {time} in the {room}", f"{room} timer set for {time}", "timer"
    for genre in GENRES:
        yield f"play some {genre}", f"playing {genre}", "music"
    for level in range(1, 11):
        yield f"set the volume to {number(level)}", f"volume set to {number(level)}", "music"
    for place in PLACES:
        yield f"take me to {place}", f"driving to {place}", "navigation"
        yield f"drive to {place}", f"driving to {place}", "navigation"
        yield f"how far is {place}", f"{number(MILES[place])} miles to {place}", "navigation"
    for person in PEOPLE:
        yield f"call {person}", f"calling {person}", "calls"
        yield f"please call {person} at home", f"calling {person} at home", "calls"
    for thing in OPENINGS:
        for verb, doing in (("open", "opening"), ("close", "closing")):
            yield f"{verb} the {thing}", f"{doing} the {thing}", "openings"
            yield f"please {verb} the {thing}", f"{doing} the {thing}", "openings"
    for left in range(1, 7):
        for right in range(1, 7):
            command = f"what is {number(left)} plus {number(right)}"
            yield command, f"{number(left)} plus {number(right)} is {number(left + right)}", "sums"


def _held_out(command: str, intent: str) -> bool:
    """A fixed tenth of the combinations; what no other sentence teaches is all trained."""
    if intent in ("sums", "talk", "facts", "calls", "heating") or len(command.split()) < 4:
        return False
    return int(hashlib.md5(command.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def _sentences() -> tuple[Sentence, ...]:
    combined = [Sentence(c, r, intent, _held_out(c, intent)) for c, r, intent in _patterns()]
    fixed = [Sentence(c, r, intent, False) for c, r, intent in FIXED]
    return tuple(combined + fixed)


SENTENCES = _sentences()
REPLIES = tuple(sorted({s.reply for s in SENTENCES} | {REFUSAL}))
WORDS = tuple(sorted({word for s in SENTENCES for word in f"{s.command} {s.reply}".split()} | set(REFUSAL.split())))

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
"""Words that make sentences outside the world; a few of the world's own are among them, as in life."""


def outside_sentence(pick: int) -> str:
    """The `pick`-th sentence outside the world: three to eight words, reproducible."""
    digest = hashlib.md5(f"outside {pick}".encode()).digest()
    count = 3 + digest[0] % 6
    return " ".join(OUTSIDE_WORDS[(digest[i + 1] * 256 + digest[i + 2]) % len(OUTSIDE_WORDS)] for i in range(count))
