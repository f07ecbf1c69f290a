"""Tensors of LFM3-Audio under our names and in our shapes, whatever file they lie in.

In: tensors as they are stored, in safetensors or in GGUF. Out: the same by the names of `names.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from voxrill.export.lfm3.names import is_unused, our_name
from voxrill.export.overlay import shown
from voxrill.export.tensors import Tensors
from voxrill.runtime.errors import CheckpointError

DEPTH_TABLE = "depth_embeddings.weight"
_BOOKS = "depth_embeddings."
_HEADS = "depth_heads."
_NORMS = "head_norm."
HEAD_NORM = "head_norm.weight"
MASK = "mask_embedding"


class PrefixedTensors(Tensors):
    """The tensors of a file of their own, with a prefix before each name."""

    def __init__(self, stored: Tensors, prefix: str) -> None:
        self._stored, self._prefix = stored, prefix

    def __contains__(self, name: str) -> bool:
        return name.startswith(self._prefix) and name.removeprefix(self._prefix) in self._stored

    def __iter__(self) -> Iterator[str]:
        return (self._prefix + name for name in self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return self._stored.shape(name.removeprefix(self._prefix))

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        return self._stored.dtype(name.removeprefix(self._prefix))

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        return self._stored.read(name.removeprefix(self._prefix))


class Lfm3Tensors(Tensors):
    """Stored tensors under our names.

    Args:
        stored: the tensors of one or several files.
        what: names them in errors.

    Raises:
        CheckpointError: a name is unknown, or two tensors have one name; the message lists them.
    """

    def __init__(self, stored: Sequence[Tensors], what: str) -> None:
        self._what = what
        self._where: dict[str, tuple[Tensors, str]] = {}
        unknown = []
        for tensors in stored:
            for name in tensors:
                ours = our_name(name)
                if ours is None:
                    unknown += [] if is_unused(name) else [name]
                    continue
                ours = _bare(ours)
                if ours in self._where:
                    raise CheckpointError(
                        f"{what} has {ours} twice: as {self._where[ours][1]} and as {name}", "Give one model only"
                    )
                self._where[ours] = tensors, name
        if unknown:
            raise CheckpointError(
                f"{what} has {len(unknown)} tensors whose names Voxrill does not know: {shown(sorted(unknown))}",
                "If a newer converter wrote it, update Voxrill, or add the names to export/lfm3/names.py",
            )

    def __contains__(self, name: str) -> bool:
        return name in self._where or self._part(name, 0) in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        if name not in self._where and self._part(name, 0) in self._where:
            first = self.shape(self._part(name, 0))
            return first if name == HEAD_NORM else (len(self._parts(name)) * first[0], *first[1:])
        tensors, stored = self._find(name)
        return _our_shape(name, tensors.shape(stored))

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        tensors, stored = self._find(name if name in self._where else self._part(name, 0))
        return tensors.dtype(stored)

    def read(self, name: str) -> torch.Tensor:
        """One tensor in float32.

        Raises:
            CheckpointError: it is missing, or the norms of the codebooks differ.
        """
        if name not in self._where and self._part(name, 0) in self._where:
            parts = [self.read(part) for part in self._parts(name)]
            return self._one(parts) if name == HEAD_NORM else torch.cat(parts)
        tensors, stored = self._find(name)
        value = tensors.read(stored)
        return value.reshape(_our_shape(name, tuple(value.shape)))

    def check_heads(self) -> None:
        """Refuse heads of codebooks that differ from their embeddings: they are one tensor in this family."""
        for name in self._where:
            if name.startswith(_HEADS):
                book = _BOOKS + name.removeprefix(_HEADS)
                if not torch.equal(self.read(name), self.read(book)):
                    raise CheckpointError(
                        f"{self._find(name)[1]} and {self._find(book)[1]} hold different values",
                        "LFM3-Audio ties them: check that this is an LFM3-Audio checkpoint",
                    )

    def _find(self, name: str) -> tuple[Tensors, str]:
        if name not in self._where:
            raise CheckpointError(
                f"{self._what} has no tensor for {name}", "Check that this is a whole LFM3-Audio checkpoint"
            )
        return self._where[name]

    @staticmethod
    def _part(name: str, number: int) -> str:
        """Our name of one codebook's part of a tensor that some files keep in parts."""
        return {DEPTH_TABLE: f"{_BOOKS}{number}.weight", HEAD_NORM: f"{_NORMS}{number}.weight"}.get(name, "")

    def _parts(self, name: str) -> list[str]:
        count = 0
        while self._part(name, count) in self._where:
            count += 1
        return [self._part(name, number) for number in range(count)]

    def _one(self, norms: list[torch.Tensor]) -> torch.Tensor:
        if any(not torch.equal(norm, norms[0]) for norm in norms):
            raise CheckpointError(
                f"{self._what} has a norm of its own for each codebook", "Voxrill knows one for all: update Voxrill"
            )
        return norms[0]


def _bare(name: str) -> str:
    """Files disagree on whether a single vector is called `.weight`."""
    return MASK if name == f"{MASK}.weight" else name


def _our_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """GGUF leaves the middle axis of depthwise kernels out, gives biases two more, and stacks the codebooks."""
    if name.endswith(".conv.conv.weight") and len(shape) == 2:
        return shape[0], 1, shape[1]
    if name.endswith(".bias"):
        return (math.prod(shape),)
    if name == DEPTH_TABLE and len(shape) == 3:
        return shape[0] * shape[1], shape[2]
    return shape
