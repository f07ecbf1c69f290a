"""The sizes of LFM2.5-Audio-1.5B, for a plan before there is a bundle.

Bytes of each graph at each precision, as `voxrill export` wrote them in the true shapes, and the most memory that a
whole spoken turn took (`benchmarks/results-lfm2.5.json`). Float32 was not measured: its memory is that of its files and
0.9 GB. The others were measured with a codec in 8 bits; 0.13 GB are added for the codec in float32.
"""

from __future__ import annotations

import math
from dataclasses import replace

from voxrill.devices.stages import BYTES, CONTEXT, ModelShape, Part, frame_part, part, passes_part, passes_rows
from voxrill.runtime.graph_names import (
    AUDIO_DETOKENIZER,
    AUDIO_ENCODER,
    CODECS,
    DECODER,
    DECODER_PREFILL,
    DEPTH_DECODER,
    DEPTHFORMER,
    TEXT_HEAD,
)

_SIDES = {AUDIO_ENCODER: (117111230, (8,)), AUDIO_DETOKENIZER: (179948391, (32,))}
_HEAD, _FEW_BITS_HEAD = (134480281, (8,)), (76546652, (4,))

SIZES: dict[str, dict[str, tuple[int, tuple[int, ...]]]] = {
    "float32": {
        AUDIO_ENCODER: (459307588, (32,)),
        DECODER: (4144563907, (32,)),
        TEXT_HEAD: (536871213, (32,)),
        DEPTHFORMER: (463922468, (32,)),
        AUDIO_DETOKENIZER: (179948391, (32,)),
    },
    "int8": {**_SIDES, TEXT_HEAD: _HEAD, DECODER: (1038233347, (8,)), DEPTHFORMER: (116679910, (8,))},
    "mixed": {**_SIDES, TEXT_HEAD: _HEAD, DECODER: (650978264, (4, 8)), DEPTHFORMER: (85054393, (4, 8))},
    "int4": {**_SIDES, TEXT_HEAD: _HEAD, DECODER: (555051220, (4,)), DEPTHFORMER: (85054393, (4, 8))},
    "small": {**_SIDES, TEXT_HEAD: _FEW_BITS_HEAD, DECODER: (445008951, (3, 4)), DEPTHFORMER: (84933041, (4, 8))},
    "smallest": {**_SIDES, TEXT_HEAD: _FEW_BITS_HEAD, DECODER: (352300000, (2, 3)), DEPTHFORMER: (77340000, (3, 8))},
}
"""Bytes and the bits of the weights by graph, by recipe. Those of `smallest` follow from the shapes."""

MEMORY = {"float32": 6.8e9, "int8": 2.49e9, "mixed": 2.13e9, "int4": 2.08e9}
"""Bytes by recipe. `small` and `smallest` take less than `int4` by as much as their files are smaller."""
KV_BYTES = 6 * 2 * 8 * 64 * 4
"""A position's keys and values: six attention layers, eight heads of 64, float32. The other recipes have int8."""


def model(
    precision: str,
    graphs: dict[str, tuple[int, tuple[int, ...]]],
    kv_bytes: float,
    memory: float,
    context: int = CONTEXT,
    kv_cache: str = "float32",
) -> ModelShape:
    """A model from the bytes and the bits of each graph; `memory` is that of a conversation of `context` positions."""
    parts = {name: part(name, *entry) for name, entry in graphs.items()}
    passes = graphs.get(DEPTH_DECODER)
    return ModelShape(
        precision,
        parts[DECODER],
        parts[TEXT_HEAD],
        passes_part(*passes) if passes else frame_part(*graphs[DEPTHFORMER]),
        parts[AUDIO_ENCODER],
        next(parts[name] for name in CODECS if name in parts),
        kv_bytes,
        memory,
        parts.get(DECODER_PREFILL),
        context,
        kv_cache,
        frame_rows=passes_rows(*passes) if passes else Part({}),
    )


def known_bits(bits: float, context: int = CONTEXT) -> ModelShape:
    """The 1.5 B model with `bits` bits for each weight of its backbone on average (2 to 4); the rest as in int4.

    Two neighbouring widths are mixed: 3.3 bits are 70 % of 3 bits and 30 % of 4.
    """
    int4, low = known_model("int4", context), min(math.floor(bits), 3)
    count, share = SIZES["int8"][DECODER][0] / BYTES[8], bits - low
    decoder = Part({low: (1 - share) * count, low + 1: share * count})
    memory = int4.memory + decoder.size - SIZES["int4"][DECODER][0]
    return replace(int4, precision=f"{bits:g} bits", decoder=decoder, memory=memory)


def known_model(precision: str, context: int = CONTEXT) -> ModelShape:
    """The 1.5 B model at one of the precisions of `SIZES`. Positions beyond those of the turn add keys and values."""
    kv_bytes, kv_cache = (KV_BYTES, "float32") if precision == "float32" else (KV_BYTES // 4, "int8")
    memory = _memory(precision) + kv_bytes * max(0, context - CONTEXT)
    return model(precision, SIZES[precision], kv_bytes, memory, context, kv_cache)


def _memory(precision: str) -> float:
    if precision in MEMORY:
        return MEMORY[precision]
    bigger, smaller = (sum(size for size, _ in SIZES[name].values()) for name in ("int4", precision))
    return MEMORY["int4"] - (bigger - smaller)
