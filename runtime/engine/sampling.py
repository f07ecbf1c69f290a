"""Drawing text tokens and the noise for audio codes, reproducible from a seed.

Source: the reference's `_sample_text_token` and `_sample_audio_frame`. The draw is done by the Gumbel-max trick: the
argmax of logits + Gumbel noise has the distribution of the softmax. So a graph needs nothing but noise from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.manifest import Sampling

Floats = NDArray[np.float32]

_TINY = np.finfo(np.float32).tiny


class Sampler:
    """One seeded source of noise for one generation.

    Args:
        seed: the same seed gives the same draws; None draws a fresh one.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = np.random.default_rng(seed)

    def gumbel_into(self, noise: Floats) -> None:
        """Fill `noise` with standard Gumbel noise."""
        self._random.random(dtype=np.float32, out=noise)
        for _ in range(2):  # twice -log: -log(-log(u)); never the logarithm of 0
            np.maximum(noise, _TINY, out=noise)
            np.log(noise, out=noise)
            np.negative(noise, out=noise)

    def order_into(self, order: NDArray[np.int64]) -> None:
        """Put the numbers of `order` (n,) into a random order."""
        self._random.shuffle(order)

    def token(self, logits: Floats, sampling: Sampling, banned: Sequence[int] = ()) -> int:
        """Draw one id from `logits` (vocab,); `banned` ids are never drawn."""
        if banned:
            logits = logits.copy()
            logits[list(banned)] = -np.inf
        if sampling.greedy:
            return int(logits.argmax())
        scores = np.empty_like(logits)
        self.gumbel_into(scores)
        scaled = logits / np.float32(sampling.temperature)
        scores += scaled
        if 0 < sampling.top_k < len(logits):
            # The k-th largest logit, without sorting the rest of the vocabulary.
            threshold = np.partition(logits, -sampling.top_k)[-sampling.top_k]
            scores[logits < threshold] = -np.inf
            scaled[logits < threshold] = -np.inf
        if isinstance(sampling.top_p, float) and sampling.top_p < 1:
            scores[~_nucleus(scaled, sampling.top_p)] = -np.inf
        return int(scores.argmax())


def log_softmax(logits: Floats) -> Floats:
    """The log-probabilities (vocab,) of all tokens, at a temperature of 1."""
    shifted = logits - logits.max()
    result: Floats = shifted - np.log(np.exp(shifted).sum())
    return result


class Reciting(Sampler):
    """Says given tokens first. After them it draws as `sampler` does."""

    def __init__(self, sampler: Sampler, tokens: Sequence[int]) -> None:
        self._sampler = sampler
        self._tokens = iter(tokens)

    def gumbel_into(self, noise: Floats) -> None:
        """See `Sampler`."""
        self._sampler.gumbel_into(noise)

    def order_into(self, order: NDArray[np.int64]) -> None:
        """See `Sampler`."""
        self._sampler.order_into(order)

    def token(self, logits: Floats, sampling: Sampling, banned: Sequence[int] = ()) -> int:
        """The next given token; after the last one see `Sampler`."""
        given = next(self._tokens, None)
        return self._sampler.token(logits, sampling, banned) if given is None else given


def _nucleus(logits: Floats, top_p: float) -> NDArray[np.bool_]:
    """Which ids (vocab,) are among the likeliest that have the probability `top_p` together."""
    order = np.argsort(-logits, kind="stable")
    probabilities = np.exp(logits[order] - logits[order[0]], dtype=np.float64)
    before = np.cumsum(probabilities) - probabilities  # of those that are likelier
    kept = np.zeros(len(logits), np.bool_)
    kept[order[before < top_p * probabilities.sum()]] = True  # the likeliest id always is
    return kept
