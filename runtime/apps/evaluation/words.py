"""Word errors, by jiwer, after a standard normaliser has removed the differences that do not count.

In: the right words and the words that were found. Out: errors and words of each pair; errors / words is the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from voxrill.runtime.errors import UsageError, needs_extra

NormaliserName = Literal["english", "basic", "characters", "none"]
"""english: Whisper's for English (numbers as digits, contractions written out, American spelling), from which the Open
ASR leaderboard's is made; basic: Whisper's for all languages (lower case, no punctuation); characters: that one with
every character as a word of its own, for languages that are written without spaces; none: no change."""

_OF_LANGUAGE: dict[str, NormaliserName] = {"en": "english", "ja": "characters"}

Normaliser = Callable[[str], str]


def suits(language: str) -> NormaliserName:
    """The normaliser for a language (ISO 639-1)."""
    return _OF_LANGUAGE.get(language, "basic")


def normaliser(name: str) -> Normaliser:
    """The normaliser called `name`.

    Raises:
        UsageError: there is none.
        MissingDependency: the extra `eval` is not installed.
    """
    if name not in get_args(NormaliserName):
        raise UsageError(f"there is no normaliser {name!r}", f"Give one of: {', '.join(get_args(NormaliserName))}")
    with needs_extra("eval"):
        import jiwer  # noqa: F401
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    if name == "none":
        return _as_it_is
    basic: Normaliser = BasicTextNormalizer(split_letters=name == "characters")
    make: Normaliser = EnglishTextNormalizer() if name == "english" else basic

    def normalise(text: str) -> str:
        tame = _without_open_brackets(" ".join(text.split()))
        try:
            return " ".join(make(tame).split())
        except (AssertionError, ValueError):  # a number of more than 4,300 digits, which a looping model may write
            return " ".join(basic(tame).split())

    return normalise


def word_errors(wanted: Sequence[str], found: Sequence[str]) -> list[tuple[int, int]]:
    """Errors and right words of each pair of normalised texts; (0, 0) if there are no right words."""
    import jiwer

    errors = [(0, 0)] * len(wanted)
    worded = [number for number, text in enumerate(wanted) if text]
    if not worded:
        return errors
    measured = jiwer.process_words([wanted[number] for number in worded], [found[number] for number in worded])
    for number, chunks, reference in zip(worded, measured.alignments, measured.references, strict=True):
        # A substitution has as many words on both sides; insertions and deletions have them on one.
        wrong = (
            max(one.ref_end_idx - one.ref_start_idx, one.hyp_end_idx - one.hyp_start_idx)
            for one in chunks
            if one.type != "equal"
        )
        errors[number] = (sum(wrong), len(reference))
    return errors


def _without_open_brackets(text: str) -> str:
    """A text in which every bracket is closed.

    The normalisers remove text in brackets. For each open bracket they search the rest of the text: for 20,000 brackets
    that nothing closes, that takes 4 s. They make a space of such a bracket in the end, and so does this function.
    """
    for opening, closing in (("<[", ">]"), ("(", ")")):
        last = max(map(text.rfind, closing)) + 1
        text = text[:last] + text[last:].translate(dict.fromkeys(map(ord, opening), " "))
    return text


def _as_it_is(text: str) -> str:
    return " ".join(text.split())
