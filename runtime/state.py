"""The backbone's state: conv state and KV cache, with few verbs: feeds, update, copy.

The cpu flavour's cache grows with every call (the graph returns it whole). The npu flavour's is a buffer of
`context` positions owned here, into which the graph's new rows are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.contract import PAST_SEQUENCE, GraphSpec, present_name
from voxrill.runtime.errors import ContextFull

Array = NDArray[Any]
Floats = NDArray[np.float32]

_CONV = "past_conv."


class BackboneState:
    """Everything the backbone remembers of a conversation.

    Args:
        spec: the decoder's contract, which lists the state tensors.
        capacity: positions of a fixed KV buffer (npu); None for a growing one.
        limit: positions after which the model's context is full.
    """

    def __init__(self, spec: GraphSpec, capacity: int | None, limit: int) -> None:
        self.capacity = capacity
        self.limit = capacity or limit
        self._spec = spec
        self.length = 0
        self._tensors: dict[str, Floats] = {}
        for tensor in self._spec.state:
            shape = tuple(0 if size == PAST_SEQUENCE else int(size) for size in tensor.shape)
            self._tensors[tensor.name] = np.zeros(shape, np.float32)

    def check_room(self, positions: int) -> None:
        """Raise ContextFull if `positions` more do not fit."""
        if self.length + positions > self.limit:
            raise ContextFull(
                f"the conversation would grow to {self.length + positions} positions; this model holds {self.limit}",
                "Start a new conversation, or give shorter audio",
            )

    def feeds(self, valid: int, padded: int) -> dict[str, Array]:
        """State inputs and the attention mask for a call of `padded` positions of which `valid` are real."""
        known = self.capacity if self.capacity is not None else self.length
        mask = np.zeros((1, known + padded), np.int64)
        mask[:, : self.length] = 1
        mask[:, known : known + valid] = 1
        return {"attention_mask": mask, **self._tensors}

    def update(self, outputs: Mapping[str, Array], valid: int) -> None:
        """Take the state from a call's outputs, `valid` positions of which were real."""
        for name, tensor in self._tensors.items():
            present = outputs[present_name(name)]
            if self.capacity is None or name.startswith(_CONV):
                self._tensors[name] = present.astype(np.float32, copy=False)
            else:
                tensor[:, :, self.length : self.length + valid] = present[:, :, :valid]
        self.length += valid

    def copy(self) -> BackboneState:
        """A state of its own with the same content; a growing cache is shared until either moves on."""
        other = object.__new__(BackboneState)
        other.__dict__.update(self.__dict__)
        fixed = self.capacity is not None
        other._tensors = {name: t.copy() if fixed else t for name, t in self._tensors.items()}
        return other
