"""The backbone: embeddings in, hidden states out, for prefill and decode steps; text logits when they are asked for.

In: rows of embeddings (text, heard audio or spoken frames) and a `BackboneState`. Out: the last hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.state import BackboneState, InPlaceState, PaddedState

Floats = NDArray[np.float32]

PREFILL_CHUNK = 512
"""Positions of one prefill call. It bounds the memory of the attention scores (heads x chunk x context floats)."""

PREFILL_FROM = 8
"""The cpu flavour uses its prefill graph from this many positions on. For fewer, reading the weights decides, and the
decoder has fewer bytes of them."""


class Backbone:
    """The decoder and text head of one bundle.

    Args:
        decoder: the step (and, in the cpu flavour, prefill) graph.
        text_head: the text logits' graph.
        prefills: separate graphs for prefill. Those of the npu flavour have fixed widths, the smallest first. The one
            of the cpu flavour is faster than the decoder with many positions.
        context: positions of the npu flavour's KV buffer.
        limit: positions the model was made for.
    """

    def __init__(
        self, decoder: Graph, text_head: Graph, prefills: Sequence[Graph], context: int | None, limit: int
    ) -> None:
        self._decoder = decoder
        self._text_head = text_head
        self._prefills = prefills
        self._context = context
        self._limit = limit

    def new_state(self) -> BackboneState:
        """An empty state."""
        if self._context is not None:
            return PaddedState(self._decoder.spec, self._context)
        return InPlaceState(self._decoder.spec, self._limit)

    def forward(self, embeddings: Floats, state: BackboneState) -> Floats:
        """The hidden states (S, hidden) of `embeddings` (S, hidden), which are appended to `state`.

        Raises:
            ContextFull: they do not fit.
        """
        state.check_room(len(embeddings))
        hidden = []
        while len(embeddings):
            graph, width = self._graph_for(len(embeddings))
            chunk, embeddings = embeddings[:width], embeddings[width:]
            hidden.append(state.step(graph, chunk))
        return hidden[0] if len(hidden) == 1 else np.concatenate(hidden)

    def logits(self, hidden: Floats) -> Floats:
        """Text logits (vocab,) of one hidden state (hidden,)."""
        logits: Floats = self._text_head.run({"hidden_state": hidden[None]})["logits"][0]
        return logits

    def _graph_for(self, positions: int) -> tuple[Graph, int]:
        """The graph for the next `positions`, and how many it takes at once; npu: the narrowest that holds them."""
        if self._context is None:
            return (self._prefills[0] if self._prefills and positions >= PREFILL_FROM else self._decoder), PREFILL_CHUNK
        widths = [(graph, int(graph.spec.inputs[0].shape[1])) for graph in (self._decoder, *self._prefills)]
        return next((fit for fit in widths if fit[1] >= positions), widths[-1])
