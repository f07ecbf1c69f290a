"""Drawing text tokens and the noise for audio codes, reproducible from a seed.

Source: the reference's `_sample_text_token` and `_sample_audio_frame`, with the draw done by the Gumbel-max trick,
which is the same distribution and needs only noise from outside the graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.manifest import Sampling

Floats = NDArray[np.float32]


class Sampler:
    """One seeded source of noise for one generation.

    Args:
        seed: the same seed gives the same draws; None draws a fresh one.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = np.random.default_rng(seed)

    def gumbel(self, *shape: int) -> Floats:
        """Standard Gumbel noise."""
        uniform = self._random.random(shape, dtype=np.float32)
        tiny = np.finfo(np.float32).tiny
        return -np.log(-np.log(np.maximum(uniform, tiny)) + tiny)

    def token(self, logits: Floats, sampling: Sampling, banned: int | None = None) -> int:
        """Draw one id from `logits` (vocab,); `banned` is never drawn."""
        if banned is not None:
            logits = logits.copy()
            logits[banned] = -np.inf
        if sampling.greedy:
            return int(logits.argmax())
        scores = logits / np.float32(sampling.temperature) + self.gumbel(len(logits))
        if 0 < sampling.top_k < len(logits):
            threshold = np.partition(logits, -sampling.top_k)[-sampling.top_k]
            scores[logits < threshold] = -np.inf
        return int(scores.argmax())
