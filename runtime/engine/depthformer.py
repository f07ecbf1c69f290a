"""Speaking, first half: one hidden state to one audio frame of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.contract import AudioCodesSpec
from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.engine.session import Graph

Array = NDArray[Any]

_CERTAIN = 1e9
"""Noise that decides a draw, because it is far above every logit."""


def forced_noise(spoken: NDArray[np.int64], codes: AudioCodesSpec) -> NDArray[np.float32]:
    """Noise (codebooks, vocab) that makes the graph choose the codes `spoken` (codebooks,), whatever its logits are."""
    noise = np.zeros((codes.codebooks, codes.vocab_size), np.float32)
    noise[np.arange(len(spoken)), spoken] = _CERTAIN
    return noise


class Depthformer:
    """Samples frames. A frame is one run of the graph. Its inputs and outputs stay in the same memory."""

    def __init__(self, graph: Graph, codes: AudioCodesSpec) -> None:
        self._spec, self._vocab = codes, codes.vocab_size
        books = (codes.codebooks, codes.vocab_size)
        self._hidden = np.zeros(tuple(int(size) for size in graph.spec.inputs[0].shape), np.float32)
        self._temperature, self._top_k = np.ones(1, np.float32), np.ones(1, np.int64)
        self._noise, self._logits = np.zeros(books, np.float32), np.zeros(books, np.float32)
        self._codes = np.zeros(codes.codebooks, np.int64)
        self._turnstile = graph.turnstile
        inputs: tuple[Array, ...] = (self._hidden, self._temperature, self._top_k, self._noise)
        outputs: tuple[Array, ...] = (self._codes, self._logits)
        self._binding = graph.bind(
            {tensor.name: array for tensor, array in zip(graph.spec.inputs, inputs, strict=True)},
            {tensor.name: array for tensor, array in zip(graph.spec.outputs, outputs, strict=True)},
        )

    def frame(self, hidden: NDArray[np.float32], sampling: Sampling, sampler: Sampler) -> NDArray[np.int64]:
        """The codes (codebooks,) of the frame that follows `hidden` (hidden,)."""
        with self._turnstile.turn():  # all conversations share these arrays
            if sampling.greedy:
                self._noise.fill(0)
                self._run(hidden, 1.0, 1)
            else:
                sampler.gumbel_into(self._noise)
                self._run(hidden, sampling.temperature, min(sampling.top_k or self._vocab, self._vocab))
            return self._codes.copy()

    def logits(self, hidden: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (codebooks, vocab) of each codebook, given the `codes` (codebooks,) of those before it."""
        with self._turnstile.turn():
            self._noise[:] = forced_noise(codes, self._spec)
            self._run(hidden, 1.0, self._vocab)
            return self._logits.copy()

    def _run(self, hidden: NDArray[np.float32], temperature: float, top_k: int) -> None:
        self._hidden[0] = hidden  # written into the bound arrays, so that nothing is bound again
        self._temperature[0] = temperature
        self._top_k[0] = top_k
        self._binding.run()
