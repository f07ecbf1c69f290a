"""An independent recogniser that says whether spoken words are the wanted ones: pocketsphinx, US English.

In: sound. Out: the words that were heard. It was not trained with Pebble's voices. There are two judges. One picks a
sentence from a list. The other hears any sequence of the world's words. It is often wrong, so compare its errors with
those that it makes in the original recordings.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from pocketsphinx import Decoder, get_model_path
from world import LISTED, REFUSAL, WORDS

RATE = 16_000
AROUND = RATE // 5
"""Samples of silence before and after what is judged."""
HISS = 3e-4
"""Level of the noise that is added, because the recogniser fails in digital silence."""
PAUSES = 1.0
"""Weight of the grammar against the sound, in pocketsphinx's units (its default, 6.5, punishes pauses): here words are
spoken one by one."""
NEIGHBOURS = 4

Floats = NDArray[np.float32]


class Judge:
    """One recogniser, made by `sentence_judge` or `word_judge`. It hears every sound as if it were the first."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __call__(self, sound: Floats, rate: int) -> str:
        """The words in `sound` (n,) at `rate` Hz; empty if no sentence fits."""
        peak = np.abs(sound).max(initial=0.0)
        if not peak:
            return ""
        samples = np.pad(soxr.resample(sound / peak * 0.7, rate, RATE), AROUND)
        samples += HISS * np.random.default_rng(0).standard_normal(len(samples))
        self._decoder.start_utt()
        self._decoder.process_raw((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""


def sentence_judge(sentences: Iterable[str]) -> Judge:
    """Picks one of `sentences`."""
    decoder = _decoder(lm=None)
    rule = " | ".join(sorted(set(sentences)))
    decoder.add_jsgf_string("sentences", f"#JSGF V1.0;\ngrammar judge;\npublic <sentence> = {rule};\n")
    decoder.activate_search("sentences")
    return Judge(decoder)


def word_judge() -> Judge:
    """Hears any sequence of the world's words. All words are equally likely."""
    likelihood = -math.log10(len(WORDS) + 1)
    rows = [f"{likelihood:.4f} {word}" for word in (*WORDS, "</s>")]
    lines = ["\\data\\", f"ngram 1={len(rows) + 1}", "", "\\1-grams:", "-99 <s>", *rows, "", "\\end\\", ""]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "words.arpa"
        model.write_text("\n".join(lines))
        return Judge(_decoder(lm=str(model)))


def _decoder(lm: str | None) -> Decoder:
    """A decoder that normalises each sound by itself, so that the order of sounds does not matter."""
    folder = Path(get_model_path("en-us"))
    paths = {"hmm": str(folder / "en-us"), "dict": str(folder / "cmudict-en-us.dict")}
    return Decoder(lm=lm, samprate=RATE, cmn="batch", lw=PAUSES, loglevel="FATAL", **paths)


def world_sentences() -> list[str]:
    """The commands that a user is shown, and their replies, for a judge to pick from: all would be too many for it."""
    return sorted({s.command for s in LISTED} | {s.reply for s in LISTED} | {REFUSAL})


def with_neighbours(texts: Iterable[str]) -> list[str]:
    """Other sentences, each with some that differ in one word, so that the right choice is not easy."""
    chance = np.random.default_rng(13)
    return sorted({sentence for text in texts for sentence in (text, *_neighbours(text, chance))})


def _neighbours(text: str, chance: np.random.Generator) -> Iterator[str]:
    words = text.split()
    for _ in range(NEIGHBOURS):
        place = chance.integers(len(words))
        yield " ".join([*words[:place], str(chance.choice(WORDS)), *words[place + 1 :]])


HOMOPHONES = {"four": "for", "two": "to", "know": "no"}


def as_heard(text: str) -> str:
    """`text` with one spelling for words that sound alike."""
    return " ".join(HOMOPHONES.get(word, word) for word in text.split())
