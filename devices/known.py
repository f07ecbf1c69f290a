"""The sizes of LFM2.5-Audio-1.5B, for a plan before there is a bundle.

Bytes of each graph at each precision as `voxrill export` wrote them in the true shapes, and the most memory a whole
spoken turn took (`benchmarks/results-lfm2.5.json`); that of float32 was not measured and is its files and 0.9 GB.
"""

from __future__ import annotations

from voxrill.devices.stages import CONTEXT, ModelShape, frame_part, part

_ENCODER, _HEAD, _CODEC = ("audio_encoder", 117111230), ("text_head", 134480281), ("audio_detokenizer", 45366660)
_SMALL = {name: (size, "int8") for name, size in (_ENCODER, _HEAD, _CODEC)}

SIZES: dict[str, dict[str, tuple[int, str]]] = {
    "float32": {
        "audio_encoder": (459307588, "float32"),
        "decoder": (4144563907, "float32"),
        "text_head": (536871213, "float32"),
        "depthformer": (463922468, "float32"),
        "audio_detokenizer": (179948391, "float32"),
    },
    "int8": {**_SMALL, "decoder": (1038233347, "int8"), "depthformer": (116679910, "int8")},
    "mixed": {**_SMALL, "decoder": (650978264, "mixed"), "depthformer": (85054393, "mixed")},
    "int4": {**_SMALL, "decoder": (555051220, "int4"), "depthformer": (85054393, "mixed")},
}
"""Bytes and precision by graph, by recipe."""

MEMORY = {"float32": 6.8e9, "int8": 2.36e9, "mixed": 2.00e9, "int4": 1.95e9}
KV_BYTES = 6 * 2 * 8 * 64 * 4
"""A position's keys and values: six attention layers, eight heads of 64, float32."""

CODECS = ("audio_detokenizer", "mimi_decoder")


def model(
    precision: str, graphs: dict[str, tuple[int, str]], kv_bytes: float, memory: float, context: int = CONTEXT
) -> ModelShape:
    """A model from its graphs' bytes and precisions, and a conversation of so many positions in so much memory."""
    parts = {name: part(name, *entry) for name, entry in graphs.items()}
    return ModelShape(
        precision,
        parts["decoder"],
        parts["text_head"],
        frame_part(*graphs["depthformer"]),
        parts["audio_encoder"],
        next(parts[name] for name in CODECS if name in parts),
        kv_bytes,
        memory,
        parts.get("decoder_prefill"),
        context,
    )


def known_model(precision: str, context: int = CONTEXT) -> ModelShape:
    """The 1.5 B model at one of the precisions of `SIZES`; positions beyond those of the turn add keys and values."""
    memory = MEMORY[precision] + KV_BYTES * max(0, context - CONTEXT)
    return model(precision, SIZES[precision], KV_BYTES, memory, context)
