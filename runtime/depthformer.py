"""Speaking, first half: one hidden state to one audio frame of codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.contract import AudioCodesSpec
from voxrill.runtime.manifest import Sampling
from voxrill.runtime.sampling import Sampler
from voxrill.runtime.session import Graph

_CERTAIN = 1e9
"""Noise that decides a draw: far above any logit."""


class Depthformer:
    """Samples frames; the whole frame is one run of the graph."""

    def __init__(self, graph: Graph, codes: AudioCodesSpec) -> None:
        self._graph = graph
        self._codes = codes
        self._silence = np.zeros((codes.codebooks, codes.vocab_size), np.float32)

    def frame(self, hidden: NDArray[np.float32], sampling: Sampling, sampler: Sampler) -> NDArray[np.int64]:
        """`hidden` (hidden,) to codes (codebooks,)."""
        if sampling.greedy:
            return self._run(hidden, 1.0, 1, self._silence)[0]
        vocab = self._codes.vocab_size
        noise = sampler.gumbel(*self._silence.shape)
        return self._run(hidden, sampling.temperature, min(sampling.top_k or vocab, vocab), noise)[0]

    def logits(self, hidden: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (codebooks, vocab) of every codebook, given that `codes` (codebooks,) were spoken before it."""
        noise = self._silence.copy()
        noise[np.arange(len(codes)), codes] = _CERTAIN
        return self._run(hidden, 1.0, self._codes.vocab_size, noise)[1]

    def _run(
        self, hidden: NDArray[np.float32], temperature: float, top_k: int, noise: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        outputs = self._graph.run(
            {
                "hidden_state": hidden[None],
                "temperature": np.array([temperature], np.float32),
                "top_k": np.array([top_k], np.int64),
                "gumbel": noise,
            }
        )
        return outputs["codes"], outputs["logits"]
