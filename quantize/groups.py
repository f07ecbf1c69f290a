"""Groups of weights for the sensitivity measurement, and how many bytes they need.

In: a float32 bundle. Out: groups of weights that can have 4 bits, each with the pattern that names it in a recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from voxrill.quantize.graph import Weight, fitting_block, large_weights
from voxrill.quantize.recipe import By
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.errors import UsageError

_NUMBER = re.compile(r"(^|(?<=\.))\d+(?=\.)")

PATTERNS: dict[By, Callable[[str], str]] = {
    "weight": lambda name: name,
    "layer": lambda name: name[: found.end()] + ".*" if (found := _NUMBER.search(name)) else name,
    "kind": lambda name: _NUMBER.sub("*", name),
}
"""The pattern of a weight's group: its own name, its layer (up to the first number), or its kind (stars for
numbers)."""

MANY = 200
"""A bundle with more weights is measured by kind, unless the user says otherwise."""


@dataclass(frozen=True)
class WeightGroup:
    """Weights of one graph that get the same number of bits. pattern: what names them in a recipe."""

    graph: str
    pattern: str
    weights: tuple[Weight, ...]

    def size(self, bits: int, block: int) -> int:
        """Bytes of all of them."""
        return sum(stored_size(weight, bits, block) for weight in self.weights)


@dataclass(frozen=True)
class Inventory:
    """What can be quantised in a bundle. groups: they can have 4 bits; tables: (graph, weight) that cannot have 4 bits.

    size: bytes of the bundle with 8 bits for every weight that has an 8-bit form.
    """

    groups: tuple[WeightGroup, ...]
    tables: tuple[tuple[str, str], ...]
    size: int


def take_inventory(bundle: Bundle, by: By | None = None, graphs: Sequence[str] = ()) -> Inventory:
    """Sort a float32 bundle's weights.

    Args:
        bundle: the bundle.
        by: how to group. None: each weight by itself, or by kind if there are many.
        graphs: group only the weights of these graphs; empty means all.

    Raises:
        UsageError: there is no such graph, or no weight that can have 4 bits.
    """
    manifest = bundle.manifest
    unknown = set(graphs) - set(manifest.graphs)
    if unknown:
        raise UsageError(
            f"there is no graph {', '.join(sorted(unknown))}", f"Give one of: {', '.join(manifest.graphs)}"
        )
    found = {name: large_weights(bundle.path(graph.file)) for name, graph in manifest.graphs.items()}
    all_weights = [(graph, weight) for graph, weights in found.items() for weight in weights]
    asked = [(g, weight) for g, weight in all_weights if weight.may_have_few_bits and (not graphs or g in graphs)]
    if not asked:
        raise UsageError(
            f"no weight of {', '.join(graphs) or bundle.directory} can have 4 bits",
            "Give other graphs with --graph: tables that rows are gathered from stay in 8 bits",
        )
    by = by or ("weight" if len(asked) <= MANY else "kind")
    rows, columns = manifest.audio_embeddings.shape
    saved = 4 * rows * columns - (rows * columns + 4 * rows)
    saved += sum(stored_size(w, 32, 0) - stored_size(w, 8, 0) for _, w in all_weights if w.may_have_8_bits)
    tables = tuple((g, w.name) for g, w in all_weights if w.may_have_8_bits and not w.may_have_few_bits)
    return Inventory(_groups(asked, by), tables, manifest.size - saved)


def _groups(weights: Sequence[tuple[str, Weight]], by: By) -> tuple[WeightGroup, ...]:
    found: dict[tuple[str, str], list[Weight]] = {}
    for graph, weight in weights:
        found.setdefault((graph, PATTERNS[by](weight.name)), []).append(weight)
    return tuple(WeightGroup(graph, pattern, tuple(members)) for (graph, pattern), members in found.items())


def stored_size(weight: Weight, bits: int, block: int) -> int:
    """Bytes of a weight: its numbers, and a scale for each column (8 bits), row (tables) or block (fewer bits)."""
    numbers = math.prod(weight.shape)
    if bits == 32:
        return 4 * numbers
    if bits == 8:
        return numbers + 4 * (weight.shape[1] if weight.operators == {"MatMul"} else weight.shape[0])
    rows, columns = weight.product_shape
    block = fitting_block(block, rows)
    blocks = -(-rows // block)
    zeros = blocks if bits == 3 else -(-blocks * bits // 8)
    return columns * (blocks * (block * bits // 8 + (4 if bits == 4 else 2)) + zeros)
