"""Speaking, first half: one hidden state to one audio frame of codes.

Two graphs do that: one draws codebook after codebook, the other several at once, in an order that is given to it, and
with penalties for codes of earlier frames. The graph's inputs say which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        self._order, self._penalty = np.arange(codes.codebooks), np.ones(books, np.float32)
        inputs: tuple[Array, ...] = (self._hidden, self._temperature, self._top_k, self._noise)
        self._ordered = len(graph.spec.inputs) > len(inputs)
        if self._ordered:
            inputs = (*inputs, self._order, self._penalty)
        outputs: tuple[Array, ...] = (self._codes, self._logits)
        self._binding = graph.bind(
            {tensor.name: array for tensor, array in zip(graph.spec.inputs, inputs, strict=True)},
            {tensor.name: array for tensor, array in zip(graph.spec.outputs, outputs, strict=True)},
        )

    def frame(
        self,
        hidden: NDArray[np.float32],
        sampling: Sampling,
        sampler: Sampler,
        earlier: Sequence[NDArray[np.int64]] = (),
    ) -> NDArray[np.int64]:
        """The codes (codebooks,) of the frame that follows `hidden` (hidden,) and `earlier` frames of its answer."""
        with self._turnstile.turn():  # all conversations share these arrays
            if self._ordered:
                self._order[:] = np.arange(len(self._order))
                self._penalise(sampling, earlier)
            if sampling.greedy:
                self._noise.fill(0)
                self._run(hidden, 1.0, 1)
            else:
                sampler.gumbel_into(self._noise)
                if self._ordered:
                    sampler.order_into(self._order)
                self._run(hidden, sampling.temperature, min(sampling.top_k or self._vocab, self._vocab))
            return self._codes.copy()

    def logits(self, hidden: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (codebooks, vocab) of each codebook, given the `codes` (codebooks,) of those before it."""
        with self._turnstile.turn():
            self._penalty.fill(1)
            self._noise[:] = forced_noise(codes, self._spec)
            self._run(hidden, 1.0, self._vocab)
            return self._logits.copy()

    def _penalise(self, sampling: Sampling, earlier: Sequence[NDArray[np.int64]]) -> None:
        self._penalty.fill(1)
        if isinstance(sampling.penalty, float) and isinstance(sampling.penalty_frames, int) and earlier:
            recent = np.stack(earlier[-sampling.penalty_frames :])
            self._penalty[np.arange(recent.shape[1]), recent] = sampling.penalty

    def _run(self, hidden: NDArray[np.float32], temperature: float, top_k: int) -> None:
        self._hidden[0] = hidden  # written into the bound arrays, so that nothing is bound again
        self._temperature[0] = temperature
        self._top_k[0] = top_k
        self._binding.run()
