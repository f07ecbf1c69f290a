"""Costs that were measured before: kept in the user's cache, one line each, as soon as each is known.

In: a bundle, sounds and the size of blocks. Out: the costs of groups of its weights, of this run and of earlier ones.
Another bundle, other sounds, another onnxruntime or another Voxrill have a file of their own. Where the cache cannot be
written, every run measures anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from voxrill.quantize.groups import WeightGroup
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.user_folders import user_cache


class _KnownCost(msgspec.Struct, frozen=True):
    """A cost, and what it is of."""

    graph: str
    pattern: str
    bits: int
    cost: float


class KnownCosts:
    """The costs of one bundle's groups, measured with the same sounds and blocks."""

    def __init__(self, bundle: Bundle, sounds: Sequence[NDArray[np.float32]], block: int) -> None:
        digest = hashlib.sha256("\n".join((bundle.sha256, str(block), ort.__version__, version("voxrill"))).encode())
        for sound in sounds:
            digest.update(hashlib.sha256(sound.tobytes()).digest())
        cache = user_cache()
        self._path = cache / "sensitivity" / f"{digest.hexdigest()[:16]}.jsonl"
        self._costs: dict[tuple[str, str, int], float] = {}
        with suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                with suppress(msgspec.MsgspecError):  # a line that was cut short
                    found = msgspec.json.decode(line, type=_KnownCost)
                    self._costs[found.graph, found.pattern, found.bits] = found.cost

    def get(self, group: WeightGroup, bits: int) -> float | None:
        """The cost of a group in so many bits; None if it was not measured yet."""
        return self._costs.get((group.graph, group.pattern, bits))

    def of(self, group: WeightGroup, bits: int) -> float:
        """The cost of a group in so many bits, which was measured."""
        return self._costs[group.graph, group.pattern, bits]

    def add(self, group: WeightGroup, bits: int, cost: float) -> None:
        """Keep a cost."""
        self._costs[group.graph, group.pattern, bits] = cost
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(_KnownCost(group.graph, group.pattern, bits, cost)) + b"\n")
