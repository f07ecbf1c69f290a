"""Sentences in a model's tokens: everything that it may write.

In: sentences and a tokenizer. Out: token sequences, each with its sentence, and the tree of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from voxrill.runtime.apps.grammar import CommandSentence, ambiguous
from voxrill.runtime.apps.token_tree import TokenTree
from voxrill.runtime.engine.tokenizer import Tokenizer
from voxrill.runtime.errors import UnknownText, UsageError


def as_transcribed(words: str) -> tuple[str, ...]:
    """A sentence as it stands in the file, and with a capital letter and a full stop: many models write that."""
    return words, f"{words[:1].upper()}{words[1:]}."


def slots_of(sentence: CommandSentence) -> Iterator[str]:
    """The parts of the file that a sentence uses: its phrase, and the value of each slot."""
    yield f"{sentence.phrase!r} of the command {sentence.call.command}"
    for name, value in sentence.call.slots.items():
        yield f"{value!r} of the slot {name}"


@dataclass
class Written:
    """What may be written. A form that the model cannot write is left out, if another form says the same.

    Args:
        given: the sentences.
        tokenizer: the model's.
        forms: the ways to write a sentence's words.
        parts: names the parts of the file that a sentence uses. Each part must be used by a sentence that the model can
            write.
        begin: the tokens that every sequence begins with.

    `tokens` are all sequences; `sentences` says what each of them means.

    Raises:
        UnknownText: a phrase or a value cannot be written at all.
        UsageError: two sentences are written the same.
    """

    given: Sequence[CommandSentence]
    tokenizer: Tokenizer
    forms: Callable[[str], tuple[str, ...]] = as_transcribed
    parts: Callable[[CommandSentence], Iterable[str]] = slots_of
    begin: tuple[int, ...] = ()
    sentences: list[CommandSentence] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        known: dict[tuple[int, ...], CommandSentence] = {}
        reason: dict[object, str] = {}
        for sentence in self.given:
            try:
                forms = {tuple(self.tokenizer.encode(form)) for form in self.forms(sentence.words)}
            except (UnknownText, UsageError) as error:
                reason |= dict.fromkeys(self.parts(sentence), error.message)
                continue
            for form in forms:
                # Different words may be the same tokens: a tokenizer of words drops punctuation.
                other = known.setdefault(form, sentence)
                if other.call != sentence.call:
                    raise ambiguous(sentence.words, other, sentence)
        reached = {part for sentence in known.values() for part in self.parts(sentence)}
        for part, why in reason.items():
            if part not in reached:
                raise UnknownText(f"{part} is unreachable: {why}", "Say it in words that the model knows")
        self.sentences = list(known.values())
        self.tokens = [[*self.begin, *form] for form in known]

    @property
    def tree(self) -> TokenTree:
        """The sequences as a tree."""
        return TokenTree(self.tokens, self.tokenizer.ids["im_end"])
