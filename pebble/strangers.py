"""How well Pebble hears strangers, and how it sounds to one: `python strangers.py [BUNDLE ...] --people FOLDER`.

In: clips of voices that never taught it (natural.py's reserved voices, and Piper's joe), recordings of people who do
not talk to it (people.py), the file of commands, and Whisper tiny.en on the same clips (whisper.py). Out: rows, as
Markdown tables or (--json) as JSON lines; `--out` saves them for report.py. With `--choose` the voices and people are
those for choices, and a line for each threshold says what voice control would do: the threshold is chosen there, and
no figure of the README comes from it. n is the number of clips.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from augment import Random, Surroundings, Waveform, far_away, noisy, padded, quiet_room, reverberated
from commanding import COMMANDS as COMMANDS_FILE
from data import NATURAL_SETS
from natural import KOKORO_RATE, Narrator, kokoro, load_shards, make_shards, voice_style
from people import SHORT, people_clips
from reply_voice import PACE, SPEAKERS
from report import Row, present
from rich.progress import track
from synthesise import RATE, ClipStore, speak
from whisper import there, whisper, word_error_rate
from world import REFUSAL, drawn, meant

import voxrill
from voxrill.runtime.apps.control import Control, Understood, leads, least_lead
from voxrill.runtime.apps.grammar import read_grammar
from voxrill.runtime.atomic_write import write_text


@dataclass(frozen=True)
class Condition:
    """What is done to a clip before it is heard; trim: whether the runtime cuts the silence; share: of the clips."""

    change: Callable[[Waveform, Random], Waveform]
    trim: bool | None = None
    share: float = 0.5
    whisper: bool = False


def _noise(snr_db: float) -> Callable[[Waveform, Random], Waveform]:
    return lambda sound, chance: noisy(quiet_room(sound, chance), "pink", snr_db, Surroundings([]), chance)


def _silence(seconds: float) -> Callable[[Waveform, Random], Waveform]:
    at = int(seconds * RATE)
    return lambda sound, chance: quiet_room(padded(sound, at, at), chance)


ENDPOINTED = "endpointed"
CONDITIONS = {
    ENDPOINTED: Condition(quiet_room, share=1, whisper=True),
    "as files come": Condition(quiet_room, trim=False),
    "noise 20 dB": Condition(_noise(20)),
    "noise 10 dB": Condition(_noise(10), whisper=True),
    "noise 5 dB": Condition(_noise(5)),
    "room": Condition(lambda sound, chance: reverberated(quiet_room(sound, chance), 0.35, 0.2, chance)),
    "far": Condition(lambda sound, chance: far_away(quiet_room(sound, chance), chance), whisper=True),
    "silence 0.5 s": Condition(_silence(0.5), trim=False),
    "silence 1 s": Condition(_silence(1), trim=False),
    "silence 2 s": Condition(_silence(2), trim=False),
}
SURE = 0.9
LIMIT = 100
"""Most tokens and frames of an answer."""
REPLIES_SPOKEN = 40
FLITE = {"female": "slt", "male": "rms"}
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class ClipInCondition:
    """One clip in one condition; set: reserved, or people."""

    set: str
    number: int
    condition: str = ENDPOINTED


@dataclass(frozen=True)
class Found:
    """What was made of a clip: its transcript, the answer, the call, and what Whisper hears."""

    words: str
    reply: str
    control: Understood
    whisper: str | None = None


class HearingProcess:
    """The bundle and the clips of one process."""

    def __init__(self, bundle: Path | None, sets: dict[str, ClipStore], heard: dict[str, str]) -> None:
        self.model = voxrill.load(bundle, threads=1)
        self.control = Control(self.model, read_grammar(COMMANDS_FILE))
        self.sets, self.heard = sets, heard

    def __call__(self, task: ClipInCondition) -> Found:
        """What the bundle and Whisper make of a clip."""
        condition = CONDITIONS[task.condition]
        sound = self.sets[task.set].waveform(task.number)
        if task.set != "people":
            sound = condition.change(sound, np.random.default_rng(task.number))
        options: dict[str, Any] = {"sample_rate": RATE, "trim": condition.trim, "max_new_tokens": LIMIT}
        words = self.model.transcribe(sound, temperature=0, **options).text.strip()
        *_, end = self.model.conversation().ask(audio=sound, temperature=0, audio_temperature=0, **options)
        assert isinstance(end, voxrill.EndEvent)
        control = self.control.hear(sound, condition.trim, RATE)
        return Found(words, end.result.text.strip(), control, self._whisper(task, sound))

    def _whisper(self, task: ClipInCondition, sound: Waveform) -> str | None:
        if task.set == "people" or not CONDITIONS[task.condition].whisper or not there():
            return None
        return self.heard.get(whisper_name(task)) or whisper(sound, RATE)


def whisper_name(task: ClipInCondition) -> str:
    """The name of a clip in the file of what Whisper hears."""
    return f"{task.set} {task.condition} {task.number}"


_hearing: list[HearingProcess] = []


def _open(*parts: Any) -> None:
    _hearing.append(HearingProcess(*parts))


def _work(task: ClipInCondition) -> Found:
    return _hearing[0](task)


class Strangers:
    """The clips, and what a bundle makes of them."""

    def __init__(self, cache: Path, people: Path | None, choosing: bool, processes: int) -> None:
        name = "natural-development" if choosing else "natural-reserved"
        make_shards(list(NATURAL_SETS[name]()), cache / name)
        self.sets = {name: load_shards(cache / name)}
        self.voices = name
        if people:
            self.sets["people"] = _half(people_clips(people, development=True), choosing)
        self._processes, self._heard_path = processes, cache / "whisper.json"
        self._heard: dict[str, str] = json.loads(self._heard_path.read_text()) if self._heard_path.is_file() else {}

    def tasks(self, conditions: Iterable[str]) -> Iterator[ClipInCondition]:
        """Every clip in every condition, and the people."""
        texts = self.sets[self.voices].texts
        for condition in conditions:
            every = round(1 / CONDITIONS[condition].share)
            # The numbers of one voice follow each other, so every second one has all voices.
            yield from (ClipInCondition(self.voices, number, condition) for number in range(0, len(texts), every))
        yield from (ClipInCondition("people", number) for number in range(len(self.sets.get("people", _NONE))))

    def found(self, bundle: Path | None, tasks: list[ClipInCondition]) -> list[Found]:
        """What a bundle makes of them, in their order."""
        with Pool(self._processes, _open, (bundle, self.sets, self._heard)) as pool:
            made = list(track(pool.imap(_work, tasks, chunksize=4), str(bundle or "built-in"), len(tasks)))
        new = {whisper_name(task): one.whisper for task, one in zip(tasks, made, strict=True) if one.whisper}
        self._heard |= new
        write_text(self._heard_path, json.dumps(self._heard))
        return made

    def pairs(self, bundle: Path | None, conditions: list[str]) -> list[tuple[ClipInCondition, Found]]:
        """Every clip in the conditions, and what the bundle makes of it."""
        tasks = list(self.tasks(conditions))
        return list(zip(tasks, self.found(bundle, tasks), strict=True))

    def rows(
        self, bundle: Path | None, conditions: list[str], pairs: list[tuple[ClipInCondition, Found]]
    ) -> Iterator[Row]:
        """The rows of a bundle."""
        about: Row = {"bundle": bundle.name if bundle else "built-in", "precision": ""}
        for condition in conditions:
            heard = [(self._text(task), one) for task, one in pairs if _is(task, self.voices, condition)]
            for test, inside in (("known sentences", False), ("new sentences", True)):
                some = [(text, one) for text, one in heard if (sentence := meant(text)) and sentence.held_out == inside]
                yield about | {"part": "strangers", "test": test, "condition": condition, **_heard(some)}
        for voice, said in self._by_voice(pairs).items():
            yield about | {"part": "voices", "test": voice, "condition": ENDPOINTED, **_heard(said)}
        talk = [(task, one) for task, one in pairs if task.set == "people"]
        for kind in dict.fromkeys(self._kind(task) for task, _ in talk):
            yield about | {"part": "people", "test": kind, "condition": "", **self._talk(talk, kind)}
        if talk:
            yield about | {"part": "people", "test": "all people", "condition": "", **self._talk(talk, None)}
        yield from (about | row for row in spoken_rows(bundle))

    def _by_voice(self, pairs: list[tuple[ClipInCondition, Found]]) -> dict[str, list[tuple[str, Found]]]:
        """What each voice says of the world, endpointed."""
        found: dict[str, list[tuple[str, Found]]] = {}
        for task, one in pairs:
            if _is(task, self.voices, ENDPOINTED) and meant(self._text(task)):
                found.setdefault(self._kind(task), []).append((self._text(task), one))
        return found

    def chosen(self, pairs: list[tuple[ClipInCondition, Found]]) -> Iterator[str]:
        """A Markdown line for each threshold, on the clips for choices."""
        yield "| threshold | done rightly | done wrongly | talk of the voices, done | people: commands an hour |"
        yield "|---|---|---|---|---|"
        for threshold in THRESHOLDS:
            done = [(task, one, self._done(task, one, threshold)) for task, one in pairs]
            said = [(self._call(task), one, did) for task, one, did in done if task.set != "people"]
            people = [did for task, _, did in done if task.set == "people"]
            commands = [(call, one, did) for call, one, did in said if call]
            right = _share(did and str(one.control.call) == call for call, one, did in commands)
            wrong = _share(did and str(one.control.call) != call for call, one, did in commands)
            talk = _share(did for call, _, did in said if not call)
            hours = sum(self._seconds(task) for task, _, _ in done if task.set == "people") / 3600
            an_hour = f"{sum(people) / hours:.1f}" if people else ""
            yield f"| {threshold} | {100 * right:.1f} | {100 * wrong:.1f} | {100 * talk:.1f} | {an_hour} |"

    def _text(self, task: ClipInCondition) -> str:
        return self.sets[task.set].texts[task.number]

    def _kind(self, task: ClipInCondition) -> str:
        return self.sets[task.set].voices[task.number].partition(":")[2]

    def _seconds(self, task: ClipInCondition) -> float:
        return len(self.sets[task.set].waveform(task.number)) / RATE

    def _call(self, task: ClipInCondition) -> str | None:
        sentence = meant(self._text(task))
        return _calls().get(sentence.command) if sentence else None

    def _done(self, task: ClipInCondition, one: Found, threshold: float) -> bool:
        least = least_lead(threshold, self._seconds(task), one.words)
        return leads(one.control.confidence, one.control.rival, least)

    def _talk(self, talk: list[tuple[ClipInCondition, Found]], kind: str | None) -> Row:
        """People of one kind, or all."""
        some = [(task, one) for task, one in talk if kind in (None, self._kind(task))]
        hours = sum(self._seconds(task) for task, _ in some) / 3600
        done = [one.control for _, one in some if one.control.accepted]
        short = [one.control.accepted for task, one in some if self._seconds(task) <= SHORT]
        row: Row = {
            "n": len(some),
            "refused": _share(one.reply in ("", REFUSAL) for _, one in some),
            "hours": hours,
            "done": len(done),
            "done surely": sum(control.confidence >= SURE for control in done),
            "done an hour": len(done) / hours,
        }
        return row | ({"done of 1,000 short": 1000 * sum(short) / len(short)} if short else {})


_NONE = ClipStore([], [], np.zeros(0, np.int16), np.zeros(0, np.int64))
_CALLS: dict[str, str] = {}


def _calls() -> dict[str, str]:
    """The call of each sentence of the file of commands."""
    if not _CALLS:
        _CALLS.update({sentence.words: str(sentence.call) for sentence in read_grammar(COMMANDS_FILE).sentences})
    return _CALLS


def _half(clips: ClipStore, choosing: bool) -> ClipStore:
    """Every second clip, for choices, or the others."""
    kept = range(0 if choosing else 1, len(clips), 2)
    sounds = [clips.sound[clips.ends[i - 1] if i else 0 : clips.ends[i]] for i in kept]
    ends = np.cumsum([len(sound) for sound in sounds])
    return ClipStore([clips.texts[i] for i in kept], [clips.voices[i] for i in kept], np.concatenate(sounds), ends)


def _is(task: ClipInCondition, name: str, condition: str) -> bool:
    return (task.set, task.condition) == (name, condition)


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else float("nan")


def _heard(pairs: list[tuple[str, Found]]) -> Row:
    """Recognition, answers and commands."""
    texts, found = [text for text, _ in pairs], [one for _, one in pairs]
    row: Row = {
        "n": len(pairs),
        "WER": word_error_rate(texts, [one.words for one in found]),
        "sentences": _share(text == one.words for text, one in pairs),
        "reply text": _share(reply_to(text) == one.reply for text, one in pairs),
    }
    commands = [(_calls().get(getattr(meant(text), "command", "")), one.control) for text, one in pairs]
    commands = [(call, control) for call, control in commands if call]
    row["done rightly"] = _share(control.accepted and str(control.call) == call for call, control in commands)
    row["done wrongly"] = _share(control.accepted and str(control.call) != call for call, control in commands)
    if found and found[0].whisper is not None:
        row["Whisper WER"] = word_error_rate(texts, [one.whisper or "" for one in found])
    return row


def reply_to(text: str) -> str:
    """The right answer to a sentence of the world, said politely or not."""
    sentence = meant(text)
    return sentence.reply if sentence else REFUSAL


def spoken_rows(bundle: Path | None) -> Iterator[Row]:
    """Its replies as Whisper hears them, beside the natural voice that they are made of, and flite's."""
    if not there():
        return
    chance, texts = random.Random(29), list[str]()
    while len(texts) < REPLIES_SPOKEN:
        texts += [reply for reply in [drawn(chance)[1].reply] if reply not in texts]
    model = voxrill.load(bundle)
    for sex, name in SPEAKERS.items():
        who = Narrator(name, voice_style(name), name.startswith("b"), PACE)
        said = {
            "Pebble": [_own(model, text, f"US {sex}") for text in texts],
            "the natural voice": [(kokoro().say(f"{text}.", who), KOKORO_RATE) for text in texts],
            f"flite:{FLITE[sex]}": [speak(text, f"flite:{FLITE[sex]}", -1) for text in texts],
        }
        for speaker, sounds in said.items():
            wer = word_error_rate(texts, [whisper(sound, rate) for sound, rate in sounds])
            yield {"part": "voice", "test": f"{sex}, {speaker}", "condition": "", "n": len(texts), "Whisper WER": wer}


def _own(model: voxrill.Model, text: str, voice: str) -> tuple[Waveform, int]:
    said = model.speak(text, voice=voice, temperature=0, audio_temperature=0)
    return said.samples, said.sample_rate


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="*", help="default: the built-in one")
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--people", type=Path, help="a folder of recordings of people; see people.py")
    parser.add_argument("--condition", choices=list(CONDITIONS), action="append")
    parser.add_argument("--choose", action="store_true", help="with the voices and people for choices")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also save the rows here, for report.py")
    args = parser.parse_args()
    strangers = Strangers(args.cache, args.people, args.choose, args.processes)
    rows = measured(strangers, args.bundle or [None], args.condition or list(CONDITIONS), args.choose)
    present(rows, args.json, args.out)


def measured(
    strangers: Strangers, bundles: Iterable[Path | None], conditions: list[str], choosing: bool
) -> Iterator[Row]:
    """The rows of each bundle. For choices the lines of the thresholds are printed before."""
    for bundle in bundles:
        pairs = strangers.pairs(bundle, conditions)
        if choosing:
            print(*strangers.chosen(pairs), sep="\n")
        yield from strangers.rows(bundle, conditions, pairs)


if __name__ == "__main__":
    main()
