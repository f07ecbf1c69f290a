"""Whether a model fits into memory, asked before it is loaded: a machine that swaps is worse than a refusal.

In: a manifest, and what this machine has left. Out: nothing, or an error that names the next smaller choice.
Mapped weights count like copied ones: every step reads all of them, so they have to stay in memory.
"""

from __future__ import annotations

import os

from voxrill.devices.kernels import own_products
from voxrill.devices.memory import available_memory, gigabytes
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.contract import DECODER, DECODER_PREFILL, TEXT_HEAD, state_bytes
from voxrill.runtime.bundle.manifest import FLOAT32, Manifest
from voxrill.runtime.errors import NotEnoughMemory

IGNORE_VARIABLE = "VOXRILL_IGNORE_MEMORY"
"""If this is set to anything, no model is refused for its size."""

USUAL_CONTEXT = 2048
"""Positions of the KV cache that count: a few minutes of conversation."""

_OVERHEAD = 1.07
_FIXED = 40 << 20
_WIDTHS = 40
_POSITIONS = 512
"""Memory beyond the weights: the padding of their repacked form; onnxruntime's own; and the intermediate results of a
long prefill, `_WIDTHS` vectors of the model's width for each of `_POSITIONS`. Fitted to measurements."""

_SMALLER = (("int8", 0.30), ("int4", 0.20))
"""Recipes, and the size of their weights as a share of float32's, with the text table."""


def memory_needed(manifest: Manifest, context: int = USUAL_CONTEXT) -> int:
    """Bytes that this bundle's model adds to the process, with a conversation of `context` positions."""
    weights = sum(_weights(manifest, graph) for graph in graphs_to_load(manifest))
    return _fixed_part(manifest, context) + round(_OVERHEAD * weights)


def graphs_to_load(manifest: Manifest) -> list[str]:
    """The graphs of a model, without a second decoder that is not needed.

    Our own products serve prefill from the decoder's own weights; onnxruntime's are faster with 8-bit ones.
    """
    names = list(manifest.specs())
    if DECODER_PREFILL not in names or manifest.static is not None or manifest.graphs[DECODER].precision == FLOAT32:
        return names
    return [name for name in names if name != DECODER_PREFILL or not own_products().fast]


def check_memory(bundle: Bundle) -> None:
    """Refuse a model that does not fit.

    Raises:
        NotEnoughMemory: it needs more than is available.
    """
    available = available_memory()
    if available is None or os.environ.get(IGNORE_VARIABLE):
        return
    needed = memory_needed(bundle.manifest)
    if needed > available:
        raise NotEnoughMemory(
            f"{bundle.directory} needs about {gigabytes(needed)} of memory, and {gigabytes(available)} are available",
            f"{_smaller(bundle.manifest, available)}; to load it nevertheless, set {IGNORE_VARIABLE}=1",
        )


def _weights(manifest: Manifest, graph: str) -> int:
    """Bytes of a graph's files. A quantised text head counts twice: its table is read from the file as well."""
    return manifest.graph_size(graph) * (2 if graph == TEXT_HEAD and manifest.text_embeddings.transposed else 1)


def _fixed_part(manifest: Manifest, context: int = USUAL_CONTEXT) -> int:
    """Bytes that do not depend on the precision: KV cache, intermediate results, onnxruntime."""
    positions = min(context, manifest.model.backbone.max_positions)
    state = state_bytes(manifest.specs()[DECODER], positions)
    return state + 4 * _POSITIONS * _WIDTHS * manifest.model.backbone.hidden_size + _FIXED


def _smaller(manifest: Manifest, available: int) -> str:
    """The next smaller choice that fits."""
    precision = manifest.graphs[DECODER].precision
    weights = sum(_weights(manifest, graph) for graph in manifest.graphs)
    if precision == "int8":
        return "Close other programs, or quantize the float32 bundle with --recipe int4"
    if precision != FLOAT32:
        return "Close other programs"
    for recipe, part in _SMALLER:
        needed = round(_fixed_part(manifest) + part * weights)
        if needed <= available:
            return f"In {recipe} about {gigabytes(needed)}: voxrill quantize BUNDLE -o SMALL --recipe {recipe}"
    return "Close other programs: even in int4 it would not fit"
