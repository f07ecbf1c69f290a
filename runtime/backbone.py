"""The backbone: embeddings in, hidden states out, prefill and step alike; text logits where they are wanted.

In: rows of embeddings (text, heard audio or spoken frames) and a `BackboneState`. Out: the last hidden state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.session import Graph
from voxrill.runtime.state import BackboneState

Floats = NDArray[np.float32]

PREFILL_CHUNK = 512
"""Positions of one prefill call: bounds the attention scores' memory (heads x chunk x context floats)."""


class Backbone:
    """The decoder and text head of one bundle.

    Args:
        decoder: the step (and, in the cpu flavour, prefill) graph.
        text_head: the text logits' graph.
        prefill: the npu flavour's prefill graph.
        context: positions of the npu flavour's KV buffer.
        limit: positions the model was made for.
    """

    def __init__(
        self, decoder: Graph, text_head: Graph, prefill: Graph | None, context: int | None, limit: int
    ) -> None:
        self._decoder = decoder
        self._text_head = text_head
        self._prefill = prefill
        self._context = context
        self._limit = limit

    def new_state(self) -> BackboneState:
        """An empty state."""
        return BackboneState(self._decoder.spec, self._context, self._limit)

    def forward(self, embeddings: Floats, state: BackboneState) -> Floats:
        """Run `embeddings` (S, hidden) through the model, moving `state` on; hidden states (S, hidden).

        Raises:
            ContextFull: they do not fit.
        """
        state.check_room(len(embeddings))
        hidden = []
        while len(embeddings):
            graph, width = self._graph_for(len(embeddings))
            chunk, embeddings = embeddings[:width], embeddings[width:]
            hidden.append(self._call(graph, chunk, width if self._prefill else len(chunk), state))
        return hidden[0] if len(hidden) == 1 else np.concatenate(hidden)

    def logits(self, hidden: Floats) -> Floats:
        """Text logits (vocab,) of one hidden state (hidden,)."""
        logits: Floats = self._text_head.run({"hidden_state": hidden[None]})["logits"][0]
        return logits

    def _graph_for(self, positions: int) -> tuple[Graph, int]:
        """The graph for so many positions and how many it takes at once."""
        if self._prefill is None:
            return self._decoder, PREFILL_CHUNK
        if positions == 1:
            return self._decoder, 1
        return self._prefill, int(self._prefill.spec.inputs[0].shape[1])

    def _call(self, graph: Graph, chunk: Floats, width: int, state: BackboneState) -> Floats:
        valid = len(chunk)
        inputs = np.zeros((1, width, chunk.shape[1]), np.float32)
        inputs[0, :valid] = chunk
        outputs = graph.run({"inputs_embeds": inputs, **state.feeds(valid, width)})
        state.update(outputs, valid)
        hidden: Floats = outputs["hidden_states"][0, :valid]
        return hidden
