"""Decoding within a tree of token sequences: whatever comes out is one of them, and its probability is exact.

In: a question put to a prompt, and the tree. Out: the likeliest sequence, or the log-probability of every one. A
probability is the model's own, among everything it could write: what is not in the tree counts too, so that the
probabilities of a tree add up to at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.apps.token_tree import Place, TokenTree
from voxrill.runtime.engine.backbone import PREFILL_CHUNK
from voxrill.runtime.engine.context import Context, ContextMark, Floats
from voxrill.runtime.progress import result_of

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine


class PrefilledPrompt:
    """A system prompt that is taken in once; any number of questions are put to it, each as though it were the first.

    Args:
        model: who is asked.
        system: the prompt's text.

    `context` is where all of it happens; nobody else may work on it.

    Raises:
        UnknownText: the model does not know its words.
    """

    def __init__(self, model: Engine, system: str) -> None:
        self.context = Context(model.parts)
        if system:
            with self.context.turn("system"):
                self.context.add_text(system)
        self.context.open_turn("user")
        self._mark: ContextMark | None = None

    def prefill(self) -> bool:
        """Take in some of the prompt; whether more of it waits.

        Raises:
            ContextFull: it does not fit.
        """
        if self._mark is not None:
            return False
        more = self.context.prefill(PREFILL_CHUNK)
        if not more:
            self._mark = self.context.mark()
        return more

    def prefill_all(self) -> None:
        """Take in the prompt before the first question, for which `ask` would do it otherwise.

        Raises:
            ContextFull: it does not fit.
        """
        while self.prefill():
            pass

    def ask(self, audio: Floats | None = None, text: str | None = None) -> Continuations:
        """What the model would write to a question: sound (samples,) at the encoder's rate, text, both or nothing.

        Only the latest question's continuations may be used.

        Raises:
            ContextFull: it does not fit.
            UnknownText: the model does not know the text's words.
        """
        self.prefill_all()
        assert self._mark is not None, "all was taken in"
        self.context.rewind(self._mark)
        if audio is not None:
            self.context.add_audio(audio)
        if text is not None:
            self.context.add_text(text)
        self.context.close_turn()
        self.context.open_turn("assistant")
        return Continuations(self.context)


class Continuations:
    """Probabilities of the text tokens that could follow in `context`, after any beginning.

    Going back costs nothing but the tokens that are taken in anew: the state is kept at every place it was left.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._first = context.advance()
        self._path: list[int] = []
        self._kept: list[tuple[int, ContextMark]] = [(0, context.mark())]

    def after(self, prefix: list[int], forced: list[int]) -> list[Floats]:
        """Log-probabilities (vocab,) of what follows `prefix`, and of what follows each of the tokens `forced`.

        Raises:
            ContextFull: they do not fit.
        """
        wanted = [*prefix, *forced]
        shared = min(_shared(self._path, prefix), max(0, len(prefix) - 1))  # the prefix's last token is taken in here
        while self._kept[-1][0] > shared:
            self._kept.pop()
        depth, mark = self._kept[-1]
        self._context.rewind(mark)
        self._path = wanted
        hidden = [self._first] if not prefix else []
        if wanted[depth:]:
            self._context.add_tokens(wanted[depth:])
            rows = self._context.hidden_states()
            hidden += list(rows[len(prefix) - depth - (1 if prefix else 0) :])
            self._kept.append((len(wanted), self._context.mark()))
        return [_log_softmax(self._context.logits(state)) for state in hidden]


def _shared(one: list[int], other: list[int]) -> int:
    """How many first tokens are the same."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max()
    result: Floats = shifted - np.log(np.exp(shifted).sum())
    return result


@dataclass(frozen=True)
class BestSentence:
    """A sequence of the tree, by its number, and its log-probability."""

    number: int
    log_probability: float


def likeliest(tree: TokenTree, text: Continuations, least: float = -math.inf) -> BestSentence:
    """What `search` finds."""
    return result_of(search(tree, text, least))


def search(tree: TokenTree, text: Continuations, least: float = -math.inf) -> Generator[None, None, BestSentence]:
    """The sequence of highest probability, found best first, in small steps: no other one has a higher.

    Args:
        tree: what may be written.
        text: where it would be written.
        least: log-probability that is of interest. Once no sequence can reach it, the first good one will do: at each
            place the likeliest token is taken. At inf that is greedy decoding.

    Raises:
        ContextFull: a sequence does not fit.
    """
    waiting: list[tuple[float, int, Place]] = [(0.0, 0, tree.root)]
    while True:
        cost, _, place = heappop(waiting)
        number = tree.complete(place)
        if number is not None:
            return BestSentence(number, -cost)
        if -cost < least:
            waiting.clear()
        for gain, child in _branches(tree, place, text):
            heappush(waiting, (cost - gain, child.low, child))
        yield


def log_probabilities(tree: TokenTree, text: Continuations) -> NDArray[np.float64]:
    """Log-probability (n,) of every sequence, by its number.

    Raises:
        ContextFull: a sequence does not fit.
    """
    found = np.empty(len(tree))
    waiting = [(0.0, tree.root)]
    while waiting:
        sofar, place = waiting.pop()
        number = tree.complete(place)
        if number is not None:
            found[number] = sofar
        else:
            waiting += [(sofar + gain, child) for gain, child in _branches(tree, place, text)]
    return found


def _branches(tree: TokenTree, place: Place, text: Continuations) -> Iterator[tuple[float, Place]]:
    """The places after the next choice, and how likely each is from `place`: log-probabilities.

    Tokens that must come are taken in with one call.
    """
    forced, after = tree.forced(place)
    done = tree.complete(after) is not None
    rows = text.after(tree.prefix(place), forced[:-1] if done else forced)
    sure = sum(float(row[token]) for row, token in zip(rows, forced, strict=False))
    if done:
        yield sure, after
        return
    for token, child in tree.allowed(after):
        yield sure + float(rows[-1][token]), child
