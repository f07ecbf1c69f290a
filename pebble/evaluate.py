"""How well Pebble hears, answers and speaks in the runtime: `python evaluate.py BUNDLE [BUNDLE ...]`.

In: bundles (the others are compared with the first), and the cache's evaluation clips, whose voices and sentences were
never trained on. Out: a row for each cell, as Markdown tables or (--json) as JSON lines. n is the number of utterances.
Shares are of utterances; WER is of words.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from asking import CONDITIONS, ERR, Desk, Desks, PebbleAnswer, PebbleQuestion, Said, sound_of
from codec import Voice, make_voices
from data import TYPED_EVALUATED, around_evaluation_jobs, evaluation_jobs
from judge import as_heard, with_neighbours, world_sentences
from report import PARTS, present
from synthesise import EVALUATED_ONLY, RATE, ClipStore, make_clips, style
from tasks import REPLY_VOICE, mixed
from vocabulary import NAME_INTENT, NAME_STYLE, TO_GERMAN
from world import FIRST, FOLLOW_UPS, LISTED, OUTSIDE, REFUSAL, SENTENCES, VOICES, WORDS, drawn, followed_up

from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.manifest import FLOAT32

BY_COMMAND = {s.command: s for s in SENTENCES}
KNOWN, NEW = "known sentences", "new sentences"
POOLED = {KNOWN: "known and new sentences", NEW: "known and new sentences"} | dict.fromkeys(
    EVALUATED_ONLY, "unheard synthesisers"
)
"""Rows that are also added up to one row."""
OUTSIDE_CONDITIONS = ("clean", "noise 10 dB")
LONG_SECONDS = (10, 30)
RANDOM, RANDOM_TEXTS = "speak random words", 50
PITCH_THRESHOLD = 154
"""Hz that separate the two voices: the geometric mean of 122 and 194 Hz, the medians of their recorded words."""

Row = dict[str, Any]


def cell_of(clips: ClipStore, number: int) -> str:
    """The test that a clip of the set `evaluate` belongs to."""
    text, voice = clips.texts[number], clips.voices[number]
    if text not in BY_COMMAND:
        return OUTSIDE
    if voice in EVALUATED_ONLY:
        return voice
    return NEW if BY_COMMAND[text].held_out else KNOWN


def by_cell(clips: ClipStore) -> dict[str, list[int]]:
    """The clip numbers of each test of the set `evaluate`."""
    cells: dict[str, list[int]] = {}
    for number in range(len(clips)):
        cells.setdefault(cell_of(clips, number), []).append(number)
    return cells


def hear_questions(sets: dict[str, ClipStore], limit: int) -> Iterator[PebbleQuestion]:
    """Recognition and spoken dialogue, quiet, in noise and in a room."""
    clips = sets["evaluate"]
    for test, numbers in by_cell(clips).items():
        for condition in OUTSIDE_CONDITIONS if test == OUTSIDE else CONDITIONS:
            for number in numbers[:limit]:
                text = clips.texts[number]
                words, reply = ("", REFUSAL) if test == OUTSIDE else (text, BY_COMMAND[text].reply)
                yield PebbleQuestion("hear", test, condition, words, reply, ("evaluate", number))


def around_questions(sets: dict[str, ClipStore], limit: int) -> Iterator[PebbleQuestion]:
    """Sounds that are no command, second turns, typed additions and questions, labels and German."""
    cells: dict[str, list[PebbleQuestion]] = {}
    for questions in (nothing_to_do, second_turns, typed_additions, typed_questions, labels):
        for question in questions(sets):
            cells.setdefault(question.test, []).append(question)
    for found in cells.values():
        yield from found[:limit]


def nothing_to_do(sets: dict[str, ClipStore]) -> Iterator[PebbleQuestion]:
    """Music, silence, and talk that is not for Pebble."""
    clips = sets["around"]
    for number, (text, voice) in enumerate(zip(clips.texts, clips.voices, strict=True)):
        clip, talk = ("around", number), text not in FOLLOW_UPS and text not in BY_COMMAND
        if voice == "silence":
            yield PebbleQuestion("hear", "silence and steady noise", clip=clip)
        elif voice == "music":
            yield PebbleQuestion("hear", "music", reply=REFUSAL, clip=clip)
        elif talk and LONG_SECONDS[0] <= len(clips.waveform(number)) / RATE <= LONG_SECONDS[1]:
            yield PebbleQuestion("hear", "long talk", reply=REFUSAL, clip=clip)


def second_turns(sets: dict[str, ClipStore]) -> Iterator[PebbleQuestion]:
    """A second turn that names another room for the command just given."""
    chance = np.random.default_rng(17)
    commands = sets["evaluate"].texts
    known = by_cell(sets["evaluate"])[KNOWN]
    for number, text in enumerate(sets["around"].texts):
        if text in FOLLOW_UPS:
            followed = ((first, followed_up(commands[first], FOLLOW_UPS[text])) for first in known)
            changed = {first: command for first, command in followed if command}
            first = int(chance.choice(list(changed)))
            reply = BY_COMMAND[changed[first]].reply
            yield PebbleQuestion(
                "reply", "second turns", reply=reply, clip=("around", number), first=("evaluate", first)
            )


def typed_additions(sets: dict[str, ClipStore]) -> Iterator[PebbleQuestion]:
    """A command is spoken, and a room is typed."""
    random.seed(17)  # `mixed` uses it
    for number, text in enumerate(sets["around"].texts):
        addition = mixed(text) if text in BY_COMMAND else None
        if addition:
            typed, reply = addition
            yield PebbleQuestion("reply", "spoken and typed", reply=reply, clip=("around", number), typed=typed)


def typed_questions(_sets: dict[str, ClipStore]) -> Iterator[PebbleQuestion]:
    """Typed sentences of the world, answered aloud with a reply that the judge lists."""
    chance, judged = random.Random(41), {sentence.reply for sentence in LISTED}
    new = [sentence for sentence in SENTENCES if sentence.held_out and sentence.reply in judged]
    drawings = ((said, sentence) for said, sentence in iter(lambda: drawn(chance), None) if sentence.reply in judged)
    for said, sentence in islice(drawings, TYPED_EVALUATED):
        yield PebbleQuestion("reply", f"typed, {KNOWN}", reply=sentence.reply, typed=said)
    for sentence in chance.choices(new, k=TYPED_EVALUATED):
        yield PebbleQuestion("reply", f"typed, {NEW}", reply=sentence.reply, typed=sentence.command)


def labels(sets: dict[str, ClipStore]) -> Iterator[PebbleQuestion]:
    """Intent, style and German of commands by espeak's voices."""
    clips = sets["evaluate"]
    for number, job in enumerate(evaluation_jobs()):
        test, sentence = cell_of(clips, number), BY_COMMAND.get(job.text)
        if test in EVALUATED_ONLY:
            continue
        ask = PebbleQuestion("label", "", clip=("evaluate", number))
        intent, manner = sentence.intent if sentence else OUTSIDE, style(job.voice, job.seed)
        yield replace(ask, test=f"intent, {test}", words=intent, system=NAME_INTENT)
        if sentence:
            yield replace(ask, test=f"German, {test}", words=sentence.german, system=TO_GERMAN)
        if manner:
            yield replace(ask, test="style", words=manner, system=NAME_STYLE)


def said_texts(limit: int) -> dict[str, list[str]]:
    """The texts to say, by test. All four voices say each text."""
    chance = np.random.default_rng(5)
    replies = {s.reply for s in LISTED}
    texts = {
        "speak new sentences": sorted({s.command for s in FIRST if s.held_out} - replies),
        "speak replies": [str(text) for text in chance.permutation(sorted(replies))],
        RANDOM: [" ".join(chance.choice(WORDS, chance.integers(2, 7))) for _ in range(RANDOM_TEXTS)],
    }
    return {test: found[: max(1, limit // len(VOICES))] for test, found in texts.items()}


def speak_questions(sets: dict[str, ClipStore], limit: int) -> Iterator[PebbleQuestion]:
    """Text to speech by all four voices."""
    for test, texts in said_texts(limit).items():
        for text in texts:
            for voice in VOICES:
                yield PebbleQuestion("speak", test, "", reply=text, voice=voice)


QUESTIONS: dict[str, Callable[[dict[str, ClipStore], int], Iterator[PebbleQuestion]]] = {
    "hear": hear_questions,
    "around": around_questions,
    "speak": speak_questions,
}


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and the reference bundle's answer."""

    question: PebbleQuestion
    answer: PebbleAnswer
    reference: PebbleAnswer | None

    @property
    def original(self) -> Said:
        """The right answer in recorded words."""
        return self.question.reply, speaker(self.question)

    @property
    def judge(self) -> str:
        """The name of the judge that knows the right answer."""
        return RANDOM if self.question.test == RANDOM else "world"


def speaker(question: PebbleQuestion) -> str:
    """The speaker who answers, one of two."""
    return question.voice.split()[1] if question.voice else REPLY_VOICE


def cells(asked: Iterable[Asked]) -> dict[tuple[str, str], list[Asked]]:
    """Questions by test and condition, and then some cells together."""
    found: dict[tuple[str, str], list[Asked]] = {}
    for one in asked:
        found.setdefault((one.question.test, one.question.condition), []).append(one)
    for (test, condition), members in list(found.items()):
        if test in POOLED:
            found[POOLED[test], condition] = found.get((POOLED[test], condition), []) + members
    return found


def share(flags: Iterable[bool]) -> float:
    """The share of true values."""
    return float(np.mean(list(flags)))


def spoken_exactly(answer: PebbleAnswer, text: str, voice: Voice) -> bool:
    """Whether the first codebook has exactly the codes of the words."""
    return np.array_equal(answer.codes[0], voice.say(text)[:, 0])


def word_error_rate(wanted: Iterable[str], found: Iterable[str]) -> float:
    """Errors per right word."""
    return float(jiwer.wer(list(wanted), list(found)))


def compared(asked: Sequence[Asked]) -> Row:
    """The share of answers that equal those of the reference bundle."""
    row: Row = {}
    kind = asked[0].question.kind
    pairs = [(one.answer, one.reference) for one in asked if one.reference]
    if pairs and kind in ("hear", "label"):
        row["same transcript"] = share(ours.words == theirs.words for ours, theirs in pairs)
    if pairs and kind != "label":
        row["same codes"] = share(np.array_equal(ours.codes, theirs.codes) for ours, theirs in pairs)
    return row


def precision(bundle: Path) -> str:
    """The precision of a bundle's weights: float32, or that of its quantised graphs."""
    found = {graph.precision for graph in open_bundle(bundle).manifest.graphs.values()}
    return "+".join(sorted(found - {FLOAT32})) or FLOAT32


class PebbleEvaluation:
    """One bundle, part by part. `about` goes into every row; `reference` is the first bundle's evaluation, if any."""

    def __init__(self, about: Row, desks: Desks, voices: dict[str, Voice], reference: PebbleEvaluation | None) -> None:
        self._about = about
        self._desks, self._voices, self._reference = desks, voices, reference
        self._answers: dict[str, list[PebbleAnswer]] = {}
        self._sentences: dict[tuple[Said, str], str] = {}
        self._words: dict[Said, str] = {}

    def rows(self, part: str, sets: dict[str, ClipStore], limit: int) -> Iterator[Row]:
        """The rows of a part."""
        for row in self._codec(limit) if part == "codec" else self._answered(part, sets, limit):
            rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
            yield {**self._about, "part": part, **rounded}

    def _map(self, work: Callable[[Desk, Any], Any], items: Sequence[Any], what: str) -> list[Any]:
        return self._desks.map(work, items, f"{self._about['bundle']}: {what}")

    def _answered(self, part: str, sets: dict[str, ClipStore], limit: int) -> Iterator[Row]:
        questions = list(QUESTIONS[part](sets, limit))
        answers = self._answers[part] = self._map(Desk.answer, questions, part)
        references = self._reference._answers[part] if self._reference else [None] * len(answers)
        asked = [Asked(*one) for one in zip(questions, answers, references, strict=True)]
        spoken = [one for one in asked if one.question.kind != "label"]
        self._judge((said, one.judge) for one in spoken for said in (one.answer.sound, one.original))
        if part == "speak":
            self._judge_words(said for one in spoken for said in (one.answer.sound, one.original))
        for (test, condition), found in cells(asked).items():
            measured = {"hear": self._heard, "reply": self._replied, "label": self._labelled, "speak": self._spoken}
            row = measured[found[0].question.kind](found)
            yield {"test": test, "condition": condition, "n": len(found), **row, **compared(found)}
        if part == "hear" and self._reference:
            yield {"test": "all", "condition": "", "n": len(asked), **compared(asked)}
        if part == "speak":
            yield self._two_voices(asked)

    def _judge(self, sounds: Iterable[tuple[Said, str]]) -> None:
        """Let a judge hear each different sound once."""
        new = [one for one in dict.fromkeys(sounds) if one not in self._sentences]
        self._sentences.update(zip(new, self._map(Desk.sentence_in, new, "judging"), strict=True))

    def _judge_words(self, sounds: Iterable[Said]) -> None:
        """Let the word judge hear each different sound once."""
        new = [said for said in dict.fromkeys(sounds) if said not in self._words]
        self._words.update(zip(new, self._map(Desk.words_in, new, "judging word by word"), strict=True))

    def _judged(self, pairs: Iterable[tuple[Said, str]], judge: str = "world") -> float:
        """The share of sounds that are heard as the right sentence."""
        return share(as_heard(self._sentences[said, judge]) == as_heard(text) for said, text in pairs)

    def _loop(self, pairs: Sequence[tuple[Said, str]]) -> float:
        """Word error rate of sounds for the judge without a list of sentences."""
        found = [as_heard(self._words[said]) for said, _ in pairs]
        return word_error_rate([as_heard(text) for _, text in pairs], found)

    def _heard(self, asked: list[Asked]) -> Row:
        """Recognition, and the answer."""
        wanted = [one.question.words for one in asked]
        found = [one.answer.words for one in asked]
        row: Row = {}
        if any(wanted):
            row["WER"] = word_error_rate(wanted, found)
            row["sentences"] = share(a == b for a, b in zip(wanted, found, strict=True))
        else:
            row["empty transcript"] = share(not text for text in found)
        reply = asked[0].question.reply
        if not reply:
            return row | {"empty reply": share(not one.answer.reply and not one.answer.sound for one in asked)}
        refused = share(one.answer.reply == REFUSAL for one in asked)
        return row | {"refused" if reply == REFUSAL else "wrongly refused": refused} | self._replied(asked)

    def _replied(self, asked: list[Asked]) -> Row:
        """The answer as text and as speech."""
        return {
            "reply text": share(one.answer.reply == one.question.reply for one in asked),
            **self._said(asked),
        }

    def _said(self, asked: list[Asked]) -> Row:
        """Speech: the share of exactly right codes, and what the judge hears in it and in recorded words."""
        voices = self._voices
        exact = (spoken_exactly(one.answer, one.question.reply, voices[speaker(one.question)]) for one in asked)
        return {
            "codes": share(exact),
            "judged": self._judged(((one.answer.sound, one.question.reply) for one in asked), asked[0].judge),
            "judged originals": self._judged(((one.original, one.question.reply) for one in asked), asked[0].judge),
        }

    def _spoken(self, asked: list[Asked]) -> Row:
        """Text to speech."""
        return {
            **self._said(asked),
            "loop WER": self._loop([(one.answer.sound, one.question.reply) for one in asked]),
            "loop WER originals": self._loop([(one.original, one.question.reply) for one in asked]),
        }

    def _labelled(self, asked: list[Asked]) -> Row:
        """The share of exactly right transcripts."""
        return {"right": share(one.answer.words == one.question.words for one in asked)}

    def _two_voices(self, asked: list[Asked]) -> Row:
        """Whether pitch alone tells the voices apart."""
        pitches = {}
        for voice in VOICES[:2]:
            sounds = [one.answer.sound for one in asked if one.question.voice == voice]
            pitches[voice.split()[1]] = np.array(self._map(Desk.pitch, sounds, f"pitch of the {voice}"))
        male, female = pitches["male"], pitches["female"]
        return {
            "test": "voices told apart by pitch",
            "condition": "",
            "n": len(male),
            "told apart": share((male < PITCH_THRESHOLD) & (female > PITCH_THRESHOLD)),
            "male Hz": float(np.nanmedian(male)),
            "female Hz": float(np.nanmedian(female)),
        }

    def _codec(self, limit: int) -> Iterator[Row]:
        """The right codes as sound, beside the recorded words that they encode."""
        texts = said_texts(limit * len(VOICES))["speak replies"]
        for name, voice in self._voices.items():
            originals = [(text, name) for text in texts]
            sounds = [sound_of(voice.say(text).T) for text in texts]
            distances = self._map(Desk.mel_distance, list(zip(sounds, originals, strict=True)), f"codec, {name}")
            said: list[Said] = [*originals, *sounds]
            self._judge((sound, "world") for sound in said)
            self._judge_words(said)
            yield {
                "test": f"{name} voice",
                "condition": "",
                "n": len(texts),
                "mel distance": float(np.mean(distances)),
                "judged": self._judged(zip(sounds, texts, strict=True)),
                "judged originals": self._judged(zip(originals, texts, strict=True)),
                "loop WER": self._loop(list(zip(sounds, texts, strict=True))),
                "loop WER originals": self._loop(list(zip(originals, texts, strict=True))),
            }


def evaluate(bundles: Sequence[Path], parts: Sequence[str], cache: Path, limit: int, processes: int) -> Iterator[Row]:
    """All rows of all bundles."""
    about = [{"bundle": bundle.name, "precision": precision(bundle)} for bundle in bundles]
    voices = make_voices(cache)
    sets = {
        "evaluate": make_clips(evaluation_jobs(), cache / "evaluate.npz", "speaking the evaluation set"),
        "around": make_clips(around_evaluation_jobs(), cache / "evaluate-around.npz", "speaking what is around it"),
    }
    sentences = {"world": world_sentences(), RANDOM: with_neighbours(said_texts(limit)[RANDOM])}
    reference = None
    for bundle, named in zip(bundles, about, strict=True):
        with Desks(processes, bundle, sets, voices, sentences) as desks:
            evaluation = PebbleEvaluation(named, desks, voices, reference)
            for part in parts:
                started = time.monotonic()
                yield from evaluation.rows(part, sets, limit)
                ERR.print(f"{bundle.name}, {part}: {time.monotonic() - started:.0f} s")
        reference = reference or evaluation


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="+")
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--part", choices=list(PARTS), action="append", help="only this part; may be given again")
    parser.add_argument("--limit", type=int, default=200, help="utterances a cell")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    parser.add_argument("--out", type=Path, help="also save the rows here, for report.py")
    args = parser.parse_args()
    if len({bundle.name for bundle in args.bundle}) < len(args.bundle):
        parser.error("the bundles need different folder names: they name the rows")
    rows = evaluate(args.bundle, args.part or list(PARTS), args.cache, args.limit, args.processes)
    present(rows, args.json, args.out)


if __name__ == "__main__":
    main()
