"""Decoding within a tree: only what is in it comes out, by construction, and its probability is the model's own."""

import hashlib
from itertools import product

import numpy as np
import pytest

from tests.signals import SAMPLE_RATE, speech_like
from voxrill.runtime.apps.constrained import Continuations, PrefilledPrompt, likeliest, log_probabilities
from voxrill.runtime.apps.token_tree import TokenTree

END = 7
TOLERANCE = 2e-3  # of a sequence's log-probability, between tokens taken in one by one and together


def sequences(seed, tokens=4, longest=5, count=12):
    """Different random sequences over few tokens, so that they share beginnings; one may begin another."""
    chance = np.random.default_rng(seed)
    found = {tuple(chance.integers(tokens, size=chance.integers(1, longest + 1)).tolist()) for _ in range(count)}
    return sorted(found, key=lambda sequence: hashlib.md5(repr((seed, sequence)).encode()).digest())


class FakeText:
    """Random probabilities of 8 tokens after every prefix, the same each time; counts how often it was asked."""

    def __init__(self, seed):
        self.seed, self.asked = seed, 0

    def row(self, prefix):
        digest = hashlib.md5(repr((self.seed, list(prefix))).encode()).digest()
        logits = np.random.default_rng(list(digest)).normal(0, 2, 8)
        return logits - np.log(np.exp(logits).sum())

    def after(self, prefix, forced):
        self.asked += 1
        return [self.row([*prefix, *forced[:taken]]) for taken in range(len(forced) + 1)]

    def log_probability(self, sequence):
        whole = [*sequence, END]
        return sum(self.row(whole[:place])[token] for place, token in enumerate(whole))


# The tree


@pytest.mark.parametrize("seed", range(20))
def test_the_tree_allows_its_sequences_and_nothing_else(seed):
    wanted = sequences(seed)
    tree = TokenTree(wanted, END)
    whole = [[*sequence, END] for sequence in wanted]
    found, places = {}, [tree.root]
    while places:
        place = places.pop()
        prefix = tree.prefix(place)
        beginnings = [sequence for sequence in whole if sequence[: len(prefix)] == prefix]
        assert [token for token, _ in tree.allowed(place)] == sorted(
            {s[len(prefix)] for s in beginnings if s != prefix}
        )
        if (number := tree.complete(place)) is not None:
            found[number] = prefix
        places += [child for _, child in tree.allowed(place)]
    assert [found[number] for number in range(len(wanted))] == whole


@pytest.mark.parametrize("seed", range(5))
def test_forced_tokens_are_those_without_a_choice(seed):
    tree = TokenTree(sequences(seed, tokens=3), END)
    places = [tree.root]
    while places:
        place = places.pop()
        forced, after = tree.forced(place)
        assert tree.prefix(after) == [*tree.prefix(place), *forced] and len(tree.allowed(after)) != 1
        places += [child for _, child in tree.allowed(place)]


def test_a_tree_of_nothing_or_of_twins_is_refused():
    with pytest.raises(ValueError, match="no sequences"):
        TokenTree([], END)
    with pytest.raises(ValueError, match="twice"):
        TokenTree([[1, 2], [3], [1, 2]], END)


# The search


@pytest.mark.parametrize("seed", range(30))
def test_the_likeliest_is_the_likeliest_of_all(seed):
    wanted, text = sequences(seed), FakeText(seed)
    tree = TokenTree(wanted, END)
    scores = [text.log_probability(sequence) for sequence in wanted]
    assert log_probabilities(tree, text) == pytest.approx(scores)
    found = likeliest(tree, text)
    assert found.number == np.argmax(scores) and found.log_probability == pytest.approx(max(scores))


def test_best_first_looks_at_less_than_all():
    wanted = list(product(range(4), repeat=5))
    tree, some, every = TokenTree(wanted, END), FakeText(1), FakeText(1)
    likeliest(tree, some)
    log_probabilities(tree, every)
    assert some.asked < every.asked / 4


@pytest.mark.parametrize("seed", range(30))
def test_out_of_interest_it_is_greedy(seed):
    wanted, text = sequences(seed), FakeText(seed)
    prefix = []
    while not prefix or prefix[-1] != END:
        allowed = {[*s, END][len(prefix)] for s in wanted if [*s, END][: len(prefix)] == prefix}
        prefix.append(max(allowed, key=lambda token: text.row(prefix)[token]))
    found = likeliest(TokenTree(wanted, END), text, least=np.inf)
    assert [*wanted[found.number], END] == prefix


def test_greedy_may_miss_the_likeliest():
    missed = 0
    for seed in range(30):
        tree, text = TokenTree(sequences(seed), END), FakeText(seed)
        missed += likeliest(tree, text, least=np.inf).number != likeliest(tree, text).number
    assert 0 < missed < 30


# A model with random weights: whatever it would like to say, it says one of the sequences


def of_words(model, *texts):
    """A tree of texts, and their tokens."""
    tokens = [model.parts.tokenizer.encode(text) for text in texts]
    return TokenTree(tokens, model.parts.tokenizer.ids["im_end"]), tokens


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_model(model, seed):
    prompt = PrefilledPrompt(model, "Perform ASR.")
    sound = speech_like(SAMPLE_RATE, seed)
    tree, tokens = of_words(model, "the thin ring", "the thing", "on the ring", "on", "the")
    scores = log_probabilities(tree, prompt.ask(sound))
    for score, sequence in zip(scores, tokens, strict=True):
        rows = prompt.ask(sound).after([], sequence)
        whole = [*sequence, model.parts.tokenizer.ids["im_end"]]
        assert score == pytest.approx(sum(row[token] for row, token in zip(rows, whole, strict=True)), abs=TOLERANCE)
        assert np.exp(rows).sum(1) == pytest.approx(1, abs=1e-4)
    assert np.exp(scores).sum() <= 1
    assert likeliest(tree, prompt.ask(sound)).number == np.argmax(scores)


@pytest.mark.parametrize("seed", range(4))
def test_going_back_and_forth_changes_nothing(model, seed):
    chance = np.random.default_rng(seed)
    prompt, sound = PrefilledPrompt(model, "Perform ASR."), speech_like(SAMPLE_RATE, 9)
    vocabulary = model.parts.tokenizer.encode("the thin ring on a horse")
    asked = [([], [])] + [
        tuple(chance.choice(vocabulary, size=chance.integers(low, 5)).tolist() for low in (1, 0)) for _ in range(8)
    ]
    together = prompt.ask(sound)
    rows = [together.after(*one) for one in asked]
    for one, found in zip(asked, rows, strict=True):
        assert len(found) == len(one[1]) + 1
        for row, alone in zip(found, prompt.ask(sound).after(*one), strict=True):
            assert row == pytest.approx(alone, abs=TOLERANCE)


def test_a_question_leaves_nothing_to_the_next(model):
    prompt = PrefilledPrompt(model, "Perform ASR.")
    tree, _ = of_words(model, "the ring", "on", "a horse")
    first = log_probabilities(tree, prompt.ask(speech_like(SAMPLE_RATE)))
    log_probabilities(tree, prompt.ask(speech_like(20_000, 3), "and more"))
    assert log_probabilities(tree, prompt.ask(speech_like(SAMPLE_RATE))) == pytest.approx(first, abs=1e-6)


def test_fixed_shapes_give_the_same(models, npu_models):
    scores = []
    for model in (models["lfm2"], npu_models["lfm2"]):
        tree, _ = of_words(model, "the thin ring", "the thing", "on")
        text = PrefilledPrompt(model, "Perform ASR.").ask(speech_like(SAMPLE_RATE))
        assert isinstance(text, Continuations)
        scores.append(log_probabilities(tree, text))
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
