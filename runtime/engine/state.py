"""The backbone's state: conv state and KV cache, with few verbs: step, mark and rewind, offload and reload.

Both are buffers that belong to this module. In the cpu flavour the graph reads and writes them in place, and the KV
cache grows when it is full. In the npu flavour the KV cache has the size that the graph was made for, and the graph's
new rows are written into it here. Rows of the KV cache are only appended, so that going back is cheap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.contract import KV_CAPACITY, GraphSpec, present_name
from voxrill.runtime.engine.session import Binding, Graph
from voxrill.runtime.errors import ContextFull

Array = NDArray[Any]
Floats = NDArray[np.float32]

FIRST_CAPACITY = 1024
"""Positions that a new KV cache has room for (25 MB for the 1.5 B model, 6 MB in int8). It doubles when it is full."""


@dataclass(frozen=True)
class Mark:
    """A place in a conversation to go back to: positions, and there the state that is overwritten later."""

    length: int
    fixed: dict[str, Array]


class BackboneState(ABC):
    """Everything the backbone remembers of a conversation.

    Args:
        spec: the decoder's contract, which lists the state tensors.
        capacity: positions the KV buffers have room for at first.
        limit: positions after which the model's context is full.
    """

    def __init__(self, spec: GraphSpec, capacity: int, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self._spec = spec
        self._capacity = min(capacity, limit)
        present = {tensor.name: tensor.shape for tensor in spec.outputs}
        # The KV cache is appended to; the state of convolutions and of sliding windows keeps its size.
        self._appended = {
            t.name for t in spec.state if KV_CAPACITY in t.shape or present[present_name(t.name)] != t.shape
        }
        self._buffers = self._new_buffers()

    def _new_buffers(self) -> dict[str, Array]:
        buffers = {}
        for tensor in self._spec.state:
            shape = tuple(self._capacity if size == KV_CAPACITY else int(size) for size in tensor.shape)
            buffers[tensor.name] = np.zeros(shape, tensor.dtype)
        return buffers

    def check_room(self, positions: int) -> None:
        """Raise ContextFull if `positions` more do not fit."""
        if self.length + positions > self.limit:
            raise ContextFull(
                f"the conversation would grow to {self.length + positions} positions; this model holds {self.limit}",
                "Start a new conversation, or give shorter audio",
            )

    @abstractmethod
    def step(self, graph: Graph, rows: Floats) -> Floats:
        """Append embeddings (S, hidden) by a run of `graph`; their hidden states (S, hidden)."""

    def mark(self) -> Mark:
        """This place, for `rewind`. State of a fixed size is copied: a graph overwrites it, and appends to the rest."""
        return Mark(self.length, {name: b.copy() for name, b in self._buffers.items() if name not in self._appended})

    def rewind(self, mark: Mark) -> None:
        """Go back to an earlier place of this conversation."""
        self.length = mark.length
        for name, fixed in mark.fixed.items():
            self._buffers[name][:] = fixed

    def content(self) -> dict[str, Array]:
        """All that is remembered, by tensor name: state of a fixed size, and the filled rows of the KV cache. Views."""
        return {
            name: buffer[:, :, : self.length] if name in self._appended else buffer
            for name, buffer in self._buffers.items()
        }

    def restore(self, length: int, content: Mapping[str, Array]) -> None:
        """Take over the `content` of another state of this model, which held `length` positions.

        Raises:
            ContextFull: it does not fit.
        """
        self.length = 0
        self.check_room(length)
        self.reserve(length)
        self.length = length
        for name, buffer in self.content().items():
            buffer[:] = content[name]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers; 0 while they are offloaded."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def offload(self) -> None:
        """Free the buffers. Only `reload` may follow, with what `content` was before."""
        self._buffers = {}

    def reload(self, content: Mapping[str, Array]) -> None:
        """Have buffers again, with the content that they had before `offload`."""
        self._buffers = self._new_buffers()
        for name, buffer in self.content().items():
            buffer[:] = content[name]

    def reserve(self, positions: int) -> None:  # noqa: B027 (buffers of a fixed size do nothing)
        """Make room for this many positions; they are within the limit."""

    def _moved(self, capacity: int) -> dict[str, Array]:
        """New buffers with the same content and room for `capacity` positions."""
        moved = {}
        for name, buffer in self._buffers.items():
            if name not in self._appended:
                moved[name] = buffer.copy()
                continue
            moved[name] = np.zeros((*buffer.shape[:2], capacity, buffer.shape[3]), buffer.dtype)
            moved[name][:, :, : self.length] = buffer[:, :, : self.length]
        return moved


class InPlaceState(BackboneState):
    """The state of the cpu flavour: the graph writes into the buffers, which double when they are full."""

    def __init__(self, spec: GraphSpec, limit: int) -> None:
        super().__init__(spec, FIRST_CAPACITY, limit)
        self._bindings: dict[str, Binding] = {}

    def step(self, graph: Graph, rows: Floats) -> Floats:
        """Append embeddings (S, hidden) by a run of `graph`; their hidden states (S, hidden)."""
        after = self.length + len(rows)
        self.reserve(after)
        hidden: Floats = np.empty((1, *rows.shape), np.float32)
        binding = self._bound(graph)
        binding.read("inputs_embeds", rows[None])
        binding.read("attention_mask", np.ones((1, after), np.int64))
        binding.write("hidden_states", hidden)
        binding.run()
        self.length = after
        last: Floats = hidden[0]
        return last

    def _bound(self, graph: Graph) -> Binding:
        """The graph bound to the buffers. The graphs for steps and for prefill share them."""
        name = graph.spec.name
        if name not in self._bindings:
            presents = {present_name(past): buffer for past, buffer in self._buffers.items()}
            self._bindings[name] = graph.bind(self._buffers, presents)
        return self._bindings[name]

    def offload(self) -> None:
        """Free the buffers. Only `reload` may follow, with what `content` was before."""
        super().offload()
        self._bindings = {}

    def reserve(self, positions: int) -> None:
        """Make room for this many positions; they are within the limit."""
        if positions <= self._capacity:
            return
        while self._capacity < positions:
            self._capacity = min(2 * self._capacity, self.limit)
        self._buffers = self._moved(self._capacity)
        self._bindings = {}  # they point into the old buffers


class PaddedState(BackboneState):
    """The state of the npu flavour: every call has the width of its graph, and the buffers never grow."""

    def __init__(self, spec: GraphSpec, context: int) -> None:
        super().__init__(spec, context, context)

    def step(self, graph: Graph, rows: Floats) -> Floats:
        """Append embeddings (S, hidden) by a run of `graph`; their hidden states (S, hidden)."""
        width, valid = int(graph.spec.inputs[0].shape[1]), len(rows)
        inputs = np.zeros((1, width, rows.shape[1]), np.float32)
        inputs[0, :valid] = rows
        # The mask covers the whole KV buffer, then this call's positions: only those that hold something count.
        mask = np.zeros((1, self._capacity + width), np.int64)
        mask[:, : self.length] = 1
        mask[:, self._capacity : self._capacity + valid] = 1
        outputs = graph.run({"inputs_embeds": inputs, "attention_mask": mask, **self._buffers})
        for name, buffer in self._buffers.items():
            present = outputs[present_name(name)]
            if name in self._appended:
                buffer[:, :, self.length : self.length + valid] = present[:, :, :valid]
            else:
                buffer[:] = present
        self.length += valid
        hidden: Floats = outputs["hidden_states"][0, :valid]
        return hidden
