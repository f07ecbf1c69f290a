"""Constrained decoding within a tree of token sequences: the result is one of them, with its exact probability.

In: a question after a prompt, and the tree. Out: the likeliest sequence, or the log-probability of each. Probabilities
are the model's own, among everything that it could write, so those of a tree add up to 1 at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.apps.token_tree import Place, TokenTree
from voxrill.runtime.engine.backbone import PREFILL_CHUNK
from voxrill.runtime.engine.context import Context, ContextMark, Floats
from voxrill.runtime.engine.sampling import log_softmax
from voxrill.runtime.engine.streamed_sound import StreamedSound
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.progress import result_of

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine


_REACH = math.log(100)


class PrefilledPrompt:
    """A system prompt that is prefilled once. Any number of questions are asked after it, each as if it were the first.

    Args:
        model: what is asked.
        system: the prompt's text.

    `context` holds the state; it must not be used elsewhere.

    Raises:
        UnknownText: the model does not know its words.
    """

    def __init__(self, model: Engine, system: str) -> None:
        self.context = Context(model.parts)
        if system:
            with self.context.turn("system"):
                self.context.add_text(system)
        self.context.open_turn("user")
        self._encoder = model.parts.encoder
        self._mark: ContextMark | None = None
        self._hearing: StreamedSound | None = None

    def prefill(self) -> bool:
        """Prefill some of the prompt. Returns whether more of it waits.

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
        """Prefill all of the prompt now. Otherwise the first `ask` does it.

        Raises:
            ContextFull: it does not fit.
        """
        while self.prefill():
            pass

    @property
    def hears(self) -> bool:
        """Whether `hear` can take sound in: the model's encoder works while the user speaks."""
        return self._encoder.streams

    @property
    def heard_samples(self) -> int:
        """How many samples were heard of the next question's sound."""
        return self._hearing.samples if self._hearing is not None else 0

    def hear(self, samples: Floats) -> None:
        """Take in more of a question's sound, (n,) at the encoder's rate, while it is spoken.

        After an `ask` the sound goes on, and the answer to the shorter one is forgotten. Only where `hears` is true.

        Raises:
            ContextFull: it does not fit; the sound is forgotten.
        """
        try:
            if self._hearing is None:
                self._go_back()
                self._hearing = StreamedSound(self.context, self._encoder)
            self._hearing.go_on()
            self._hearing.hear(samples)
        except VoxrillError:
            self.unhear()
            raise

    def unhear(self) -> None:
        """The next question is another sound than the one that was heard."""
        self._hearing = None

    def _go_back(self) -> None:
        self.prefill_all()
        assert self._mark is not None, "the prompt is prefilled"
        self.context.rewind(self._mark)

    def _hear_rest(self, audio: Floats) -> None:
        """Take in what was not heard yet of a sound. If something else was heard than its beginning, hear it anew."""
        if self._hearing is not None and not self._hearing.begins(audio):
            self.unhear()
        self.hear(audio[self.heard_samples :])

    def ask(self, audio: Floats | None = None, text: str | None = None) -> Continuations:
        """What the model would write after a question: sound (samples,) at the encoder's rate, text, both or nothing.

        What was heard before is used if `audio` begins with it. Only the continuations of the latest question may be
        used, because all questions share one context.

        Raises:
            ContextFull: it does not fit.
            UnknownText: the model does not know the text's words.
        """
        if audio is not None and self._hearing is not None:
            self._hear_rest(audio)
            self._hearing.end()
        else:
            self.unhear()
            self._go_back()
            if audio is not None:
                self.context.add_audio(audio)
        if text is not None:
            self.context.add_text(text)
        self.context.close_turn()
        self.context.open_turn("assistant")
        return Continuations(self.context)


class Continuations:
    """Probabilities of the text tokens that could follow in `context`, after any prefix.

    Going back to another branch is cheap: a mark is kept at the end of each prefix that was prefilled, and only the
    tokens after the last shared mark are prefilled again.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._first = context.advance()
        self._path: list[int] = []
        self._kept: list[tuple[int, ContextMark]] = [(0, context.mark())]

    def after(self, prefix: list[int], forced: list[int]) -> list[Floats]:
        """Log-probabilities (vocab,) of the token after `prefix`, and of the token after each of the tokens `forced`.

        Raises:
            ContextFull: they do not fit.
        """
        wanted = [*prefix, *forced]
        # The prefix's last token is prefilled here in any case, because its hidden state is needed.
        shared = min(_shared(self._path, prefix), max(0, len(prefix) - 1))
        while self._kept[-1][0] > shared:
            self._kept.pop()
        depth, mark = self._kept[-1]
        self._context.rewind(mark)
        self._path = wanted
        hidden = [self._first] if not prefix else []
        if wanted[depth:]:
            self._context.add_tokens(wanted[depth:])
            rows = self._context.hidden_states()
            # Row i belongs to token `depth + i`; those of the prefix before its last token are not asked for.
            hidden += list(rows[len(prefix) - depth - (1 if prefix else 0) :])
            self._kept.append((len(wanted), self._context.mark()))
        return [log_softmax(self._context.logits(state)) for state in hidden]


def _shared(one: list[int], other: list[int]) -> int:
    """The length of the common prefix."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


@dataclass(frozen=True)
class BestSentence:
    """A sequence of the tree, by its number, and its log-probability.

    rival: log-probability of the likeliest sequence that means something else; -inf if it was not looked for, or is out
    of reach.
    """

    number: int
    log_probability: float
    rival: float = -math.inf


Rivals = Callable[[int, int], bool]
"""Whether two sequences, by their numbers, mean different things."""


def likeliest(
    tree: TokenTree, text: Continuations, least: float = -math.inf, rivals: Rivals | None = None
) -> BestSentence:
    """The result of `search`, whose steps are not watched."""
    return result_of(search(tree, text, least, rivals))


def search(
    tree: TokenTree, text: Continuations, least: float = -math.inf, rivals: Rivals | None = None
) -> Generator[None, None, BestSentence]:
    """Find the sequence of the highest probability by best-first search, in small steps.

    Args:
        tree: the sequences that may be written.
        text: the continuations of the question.
        least: log-probability below which a sequence is of no interest. Once none can reach it, the search becomes
            greedy: at each place the likeliest token is taken. With inf it is greedy from the beginning.
        rivals: look for the best rival, too. Rivals of less than a hundredth of the best one's probability are out of
            reach.

    Raises:
        ContextFull: a sequence does not fit.
    """
    waiting: list[tuple[float, int, Place]] = [(0.0, 0, tree.root)]
    best: BestSentence | None = None
    while waiting:
        cost, _, place = heappop(waiting)
        if best is not None and -cost < best.log_probability - _REACH:
            break
        number = tree.complete(place)
        if number is None:
            if -cost < least:  # the cheapest place is too unlikely, so all others are: go on from this one alone
                waiting.clear()
            for gain, child in _branches(tree, place, text):
                heappush(waiting, (cost - gain, child.low, child))
            yield
        elif best is None:
            best = BestSentence(number, -cost)
            if rivals is None or best.log_probability < least:
                break
        elif rivals is not None and rivals(best.number, number):
            return replace(best, rival=-cost)
    assert best is not None, "a tree has a sequence"
    return best


@dataclass(frozen=True)
class FreeText:
    """What the model writes by itself: tokens with their end, log-probabilities of each and of its best rival."""

    tokens: list[int]
    chosen: list[float]
    second: list[float]

    def log_probability(self, begin: int) -> float:
        """Log-probability of the tokens from `begin` on."""
        return sum(self.chosen[begin:])

    def rival(self, begin: int) -> float:
        """A bound on the log-probability of every other text with the same tokens before `begin`."""
        branches = (sum(self.chosen[begin:at]) + self.second[at] for at in range(begin, len(self.tokens)))
        return max(branches, default=-math.inf)


def written_freely(text: Continuations, end: int, least: float, most: int) -> FreeText | None:
    """What the model writes by itself; None if its log-probability is below `least`, or it has more than `most` tokens.

    Raises:
        ContextFull: it does not fit.
    """
    tokens, chosen, second = list[int](), list[float](), list[float]()
    while len(tokens) < most and sum(chosen) >= least:
        row = text.after(tokens, [])[0]
        rival, best = np.argsort(row)[-2:].tolist()
        tokens.append(best)
        chosen.append(float(row[best]))
        second.append(float(row[rival]))
        if best == end and sum(chosen) >= least:
            return FreeText(tokens, chosen, second)
    return None


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
    """The places after the next choice, each with its log-probability from `place` on.

    Tokens without a choice are prefilled together.
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
