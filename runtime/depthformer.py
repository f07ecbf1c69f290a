"""Speaking, first half: one hidden state to one audio frame of codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.contract import AudioCodesSpec
from voxrill.runtime.manifest import Sampling
from voxrill.runtime.sampling import Sampler
from voxrill.runtime.session import Graph


class Depthformer:
    """Samples frames; the whole frame is one run of the graph."""

    def __init__(self, graph: Graph, codes: AudioCodesSpec) -> None:
        self._graph = graph
        self._codes = codes
        self._silence = np.zeros((codes.codebooks, codes.vocab_size), np.float32)

    def frame(
        self, hidden: NDArray[np.float32], sampling: Sampling, sampler: Sampler
    ) -> NDArray[np.int64]:
        """`hidden` (hidden,) to codes (codebooks,)."""
        if sampling.greedy:
            temperature, top_k, noise = 1.0, 1, self._silence
        else:
            vocab = self._codes.vocab_size
            temperature, top_k = sampling.temperature, min(sampling.top_k or vocab, vocab)
            noise = sampler.gumbel(*self._silence.shape)
        outputs = self._graph.run(
            {
                "hidden_state": hidden[None],
                "temperature": np.array([temperature], np.float32),
                "top_k": np.array([top_k], np.int64),
                "gumbel": noise,
            }
        )
        return outputs["codes"]  # type: ignore[return-value]
