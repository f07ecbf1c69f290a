"""Passages into a system prompt: numbered, and as many as fit into the model's context.

In: passages, best first, and what else the context holds. Out: a `DocumentPrompt`. The passages stand in the system
prompt, before the question, for two reasons. A spoken question is then a turn of sound alone, as in the model's
training. And a prompt that stays the same can be kept (`voxrill snapshot --ask`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from voxrill.runtime.apps.documents import passages
from voxrill.runtime.apps.documents.citations import Citation
from voxrill.runtime.apps.documents.index import FoundPassage
from voxrill.runtime.apps.documents.reader import LARGEST, Unreadable, read_blocks
from voxrill.runtime.errors import ContextFull, DataError
from voxrill.runtime.input_file import read_bytes

INSTRUCTIONS = (
    "Answer the question from the numbered passages below, and from nothing else. After each statement put the number "
    "of the passage it comes from in square brackets, such as [1]. If the passages do not answer the question, say so."
)

Room = Callable[[str], bool]
"""Says whether a system prompt leaves room for the question and the answer."""


class QuotedSource(msgspec.Struct, frozen=True):
    """A passage that the model gets: where it stands, its heading, and its text."""

    citation: Citation
    heading: str
    text: str


@dataclass(frozen=True)
class DocumentPrompt:
    """A system prompt, the passages in it by number, and the passages that did not fit."""

    system: str
    sources: tuple[QuotedSource, ...]
    left_out: tuple[QuotedSource, ...] = ()


def source(found: FoundPassage) -> QuotedSource:
    """A passage that was found, as a source."""
    return QuotedSource(Citation(found.file, found.first, found.last), found.heading, found.text)


def fitted(sources: Sequence[QuotedSource], room: Room) -> DocumentPrompt:
    """A prompt of the sources; while it does not fit, the last source is left out.

    Raises:
        ContextFull: not even one fits.
    """
    for kept in range(len(sources), 0, -1):  # there are few passages, so trying is cheap
        system = system_prompt(sources[:kept])
        if room(system):
            return DocumentPrompt(system, tuple(sources[:kept]), tuple(sources[kept:]))
    raise ContextFull(
        "the question and the answer leave no room for a passage in the model's context",
        "Ask for a shorter answer (--max-new-tokens), or a shorter question",
    )


def system_prompt(sources: Sequence[QuotedSource]) -> str:
    """Instructions, and the passages with their numbers, files and headings."""
    parts = [INSTRUCTIONS]
    for number, given in enumerate(sources, 1):
        under = f" ({given.heading})" if given.heading else ""
        parts.append(f"[{number}] {_plain(f'{given.citation}{under}')}\n{_plain(given.text)}")
    return "\n\n".join(parts)


def document_prompt(path: Path, count: passages.Count) -> DocumentPrompt:
    """A prompt of one whole document, cut into numbered passages that do not overlap.

    Raises:
        DataError: it cannot be read as a document, or nothing is in it.
    """
    try:
        blocks = read_blocks(path.name, read_bytes(path, LARGEST))
    except Unreadable as reason:
        raise DataError(f"{path} cannot be read as text: {reason}", "Give a text file in UTF-8") from None
    cut = passages.split(blocks, count, overlap=0)
    sources = tuple(QuotedSource(Citation(path.name, p.first, p.last), p.heading, p.text) for p in cut)
    if not sources:
        raise DataError(f"{path} holds no text", "Give a document with words in it")
    return DocumentPrompt(system_prompt(sources), sources)


def _plain(text: str) -> str:
    """A document's text with nothing in it that reads as a citation; the tokenizer takes it for nothing but text."""
    return text.translate(str.maketrans("[]", "()"))
