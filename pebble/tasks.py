"""What Pebble is taught: prompts and answers as sequences of text tokens, sound and frames.

In: `world`, a tokenizer, the reply voices. Out: `Lesson`s, and batches of them as tensors. The prompts are those of the
family, with exactly the tokens that the runtime uses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from codec import BOOKS, Voice
from network import END_OF_AUDIO
from numpy.typing import NDArray
from vocabulary import (
    INTERLEAVED,
    NAME_INTENT,
    NAME_STYLE,
    PERFORM_ASR,
    PERFORM_TTS,
    TO_GERMAN,
    WRITTEN,
    build_tokenizer,
)
from world import (
    FOLLOW_UPS,
    OUTSIDE,
    REFUSAL,
    SENTENCES,
    TIMER_ROOMS,
    VOICES,
    WORDS,
    Sentence,
    drawn,
    followed_up,
    meant,
    reply_with_any_part,
)

TEXT_RUN, AUDIO_RUN = 6, 12
REPLY_VOICE = "female"
START, IM_START, IM_END, AUDIO_START, TEXT_END = 1, 6, 7, 128, 130
IGNORE = -100

TOKENIZER = build_tokenizer()
WORD_NUMBER = {word: number + 1 for number, word in enumerate(WORDS)}
CHANCE = random.Random()
"""What chooses sentences for lessons without sound."""
KNOWN = {s.command: s for s in SENTENCES if not s.held_out}

Item = int | NDArray[np.int64]


def ids(text: str) -> list[int]:
    """Token ids of a text."""
    found: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return found


@dataclass
class Lesson:
    """One sequence.

    before, after: prompt tokens around the `heard` embeddings; answer: token ids and frames (BOOKS,); words: for each
    item of the answer the number of the word that is said (0: none); starts: whether the item begins a word; then: the
    next turn of the same conversation. Its `before` begins where the answer ended.
    """

    before: list[int]
    after: list[int]
    heard: int
    answer: list[Item]
    words: list[int] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    then: Lesson | None = None

    def turns(self) -> list[Lesson]:
        """This turn and those after it."""
        return [self, *(self.then.turns() if self.then else [])]


def prompt(system: str, text: str = "") -> tuple[list[int], list[int]]:
    """Tokens before and after the sound in the user's turn. Typed text follows the sound."""
    before = [START, IM_START, *ids("system\n"), *ids(system), IM_END, *ids("\n"), IM_START, *ids("user\n")]
    after = [*ids(text), IM_END, *ids("\n"), IM_START, *ids("assistant\n")]
    return before, after


def _spoken(text: str, voice: Voice) -> tuple[list[Item], list[int], list[bool]]:
    """Frames of a sentence, with an end-of-audio frame, and the word that each belongs to."""
    frames: list[Item] = []
    words, starts = [], []
    for word, codes in zip(text.split(), voice.words(text), strict=True):
        frames += list(codes)
        words += [WORD_NUMBER[word]] * len(codes)
        starts += [True] + [False] * (len(codes) - 1)
    frames.append(np.full(BOOKS, END_OF_AUDIO))
    return frames, [*words, 0], [*starts, True]


def transcription(text: str, heard: int) -> Lesson:
    """Recognition: the words that were said."""
    before, after = prompt(PERFORM_ASR)
    return Lesson(before, after, heard, [*ids(text), IM_END])


def speech(text: str, voice_name: str, voices: dict[str, Voice]) -> Lesson:
    """Text to speech in one of the four voices."""
    before, after = prompt(PERFORM_TTS.format(voice=voice_name), text)
    frames, words, starts = _spoken(text, voices[voice_name.split()[1]])
    return Lesson(before, after, 0, [AUDIO_START, *frames, IM_END], [0, *words, 0], [False, *starts, False])


def written(said: str, reply: str) -> Lesson:
    """A written question, answered in writing."""
    before, after = prompt(WRITTEN, said)
    return Lesson(before, after, 0, [*ids(reply), IM_END])


def labelled(system: str, answer: str, heard: int = 0, typed: str = "") -> Lesson:
    """A spoken or written command; the written answer is its intent, its style or its German."""
    before, after = prompt(system, typed)
    return Lesson(before, after, heard, [*ids(answer), IM_END])


def dialogue(reply: str, heard: int, voices: dict[str, Voice], typed: str = "", frames_too: bool = True) -> Lesson:
    """A spoken question (with a typed addition), answered in interleaved text and frames.

    Without `frames_too` the answer stops before its first frame. This teaches all of the understanding at half the
    cost.
    """
    before, after = prompt(INTERLEAVED, typed)
    if not reply:
        return Lesson(before, after, heard, [IM_END])
    text: list[Item] = [*ids(reply), TEXT_END]
    if not frames_too:
        return Lesson(before, after, heard, text[:TEXT_RUN])
    frames, words, starts = _spoken(reply, voices[REPLY_VOICE])
    answer: list[Item] = []
    said: list[int] = []
    begins: list[bool] = []
    while text:
        run, text = text[:TEXT_RUN], text[TEXT_RUN:]
        count = AUDIO_RUN if text else len(frames)
        answer += run + frames[:count]
        said += [0] * len(run) + words[:count]
        begins += [False] * len(run) + starts[:count]
        frames, words, starts = frames[count:], words[count:], starts[count:]
    return Lesson(before, after, heard, [*answer, IM_END], [*said, 0], [*begins, False])


def mixed(command: str) -> tuple[str, str] | None:
    """A typed addition that turns a spoken command into another known one, and the reply to that."""
    rooms = TIMER_ROOMS if command.startswith("set a timer") else ("kitchen", "bedroom", "hall", "office", "garden")
    options = [f"in the {room}" for room in rooms if f"{command} in the {room}" in KNOWN]
    if not options:
        return None
    typed = random.choice(options)
    return typed, KNOWN[f"{command} {typed}"].reply


def taught(text: str) -> Sentence | None:
    """The trained sentence that is said, politely or not."""
    sentence = meant(text)
    return sentence if sentence and not sentence.held_out else None


def follow_ups(command: str) -> dict[str, str]:
    """Follow-ups to a known command that make another known command, with the replies."""
    changed = {text: followed_up(command, room) for text, room in FOLLOW_UPS.items()}
    return {text: KNOWN[new].reply for text, new in changed.items() if new in KNOWN}


def two_turns(command: str, heard: int, reply: str, heard_next: int, voices: dict[str, Voice]) -> Lesson:
    """A spoken command, its answer, and a second turn that makes sense only after the first."""
    first = dialogue(KNOWN[command].reply, heard, voices)
    first.then = dialogue(reply, heard_next, voices)
    first.then.before = [*ids("\n"), IM_START, *ids("user\n")]
    return first


def in_world(text: str) -> bool:
    """Whether every word is known. Outside sentences have unknown words."""
    return all(word in WORD_NUMBER for word in text.split())


def heard_words(text: str, heard: int) -> Lesson:
    """The right transcript of a clip: its words, or nothing if it is outside the world."""
    return transcription(text if in_world(text) else "", heard)


def heard_answer(text: str, style: str | None, heard: int, voices: dict[str, Voice], frames_too: bool) -> Lesson:
    """One of the answers to a clip: mostly the spoken reply, or a written one, a label, German, or a typed addition."""
    known = taught(text)
    if style and random.random() < 0.6:
        return labelled(NAME_STYLE, style, heard)
    kind = random.choices(("reply", "written", "intent", "german"), (0.62, 0.11, 0.07, 0.2))[0]
    if kind == "written":
        return labelled(WRITTEN, known.reply if known else REFUSAL if text else "", heard)
    if not text:
        return dialogue("", heard, voices)
    if kind == "intent":
        return labelled(NAME_INTENT, known.intent if known else OUTSIDE, heard)
    if not known:
        return dialogue(REFUSAL, heard, voices, frames_too=frames_too)
    if kind == "german":
        return labelled(TO_GERMAN, known.german, heard)
    addition = mixed(text) if random.random() < 0.15 else None
    typed, reply = addition or ("", known.reply)
    return dialogue(reply, heard, voices, typed, frames_too)


def _typed() -> tuple[str, Sentence]:
    """A sentence as somebody types it: a tenth have a line break."""
    said, sentence = drawn(CHANCE)
    words = said.split()
    if len(words) > 1 and random.random() < 0.1:
        place = random.randint(1, len(words) - 1)
        said = f"{' '.join(words[:place])}\n{' '.join(words[place:])}"
    return said, sentence


def random_written() -> Lesson:
    """A written lesson: an answer, or a command's German."""
    said, sentence = _typed()
    if random.random() < 0.3:
        return labelled(TO_GERMAN, sentence.german, typed=said)
    return written(said, sentence.reply)


def random_typed(voices: dict[str, Voice], frames_too: bool) -> Lesson:
    """A written question, answered aloud."""
    said, sentence = _typed()
    return dialogue(sentence.reply, 0, voices, said, frames_too)


def random_text() -> str:
    """The text of a speech lesson: a reply, a command, or random words, so that it learns to read."""
    kind = random.choices(("reply", "command", "words"), (0.5, 0.15, 0.35))[0]
    if kind == "words":
        return " ".join(random.choice(WORDS) for _ in range(random.randint(2, 7)))
    return reply_with_any_part(CHANCE) if kind == "reply" else drawn(CHANCE)[0]


def random_speech(voices: dict[str, Voice]) -> Lesson:
    """A speech lesson in a random voice, more often a male one, because all answers are in a female one."""
    return speech(random_text(), random.choices(VOICES, (2, 1, 2, 1))[0], voices)


@dataclass
class Batch:
    """Lessons as tensors, right-padded. Positions are those whose *next* item is the target.

    tokens (B, S): id, or -1 in the place of sound or a frame; frames (N, BOOKS) and frame_at (B, S) mark frames;
    heard_at (B, S); next_text (B, S), next_frame (B, S, BOOKS), next_word (B, S): IGNORE where there is none;
    next_starts (B, S).
    """

    tokens: torch.Tensor
    frames: torch.Tensor
    frame_at: torch.Tensor
    heard_at: torch.Tensor
    next_text: torch.Tensor
    next_frame: torch.Tensor
    next_word: torch.Tensor
    next_starts: torch.Tensor


def collate(lessons: Sequence[Lesson]) -> Batch:
    """Lessons to one batch."""
    lengths = [sum(len(x.before) + x.heard + len(x.after) + len(x.answer) for x in row.turns()) for row in lessons]
    shape = (len(lessons), max(lengths))
    tokens = torch.full(shape, -1)
    frame_at, heard_at = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    next_text, next_word = torch.full(shape, IGNORE), torch.full(shape, IGNORE)
    next_frame, next_starts = torch.full((*shape, BOOKS), IGNORE), torch.zeros(shape, dtype=torch.bool)
    frames = []
    for row, lesson in enumerate(lessons):
        at = 0
        for x in lesson.turns():
            start = at + len(x.before)
            tokens[row, at:start] = torch.tensor(x.before)
            heard_at[row, start : start + x.heard] = True
            start += x.heard
            tokens[row, start : start + len(x.after)] = torch.tensor(x.after)
            start += len(x.after)
            for i, item in enumerate(x.answer):
                if isinstance(item, int):
                    tokens[row, start + i] = item
                    next_text[row, start + i - 1] = item  # a position predicts what comes after it
                else:
                    codes = torch.from_numpy(item)
                    frames.append(codes)
                    frame_at[row, start + i] = True
                    next_frame[row, start + i - 1] = codes
                    next_word[row, start + i - 1] = x.words[i]
                    next_starts[row, start + i - 1] = x.starts[i]
            at = start + len(x.answer)
    stacked = torch.stack(frames) if frames else torch.zeros(0, BOOKS, dtype=torch.int64)
    return Batch(tokens, stacked, frame_at, heard_at, next_text, next_frame, next_word, next_starts)
