"""The layout of LFM2-Audio in the package transformers: the tables of its names, and how they are read.

In: tensors and configs as transformers' conversion writes them. Out: the same under the published names. Source: the
conversion script of pull request 48249 of huggingface/transformers at commit 283db39, which was open when this was
written, so its names may still change. Its earlier states kept more of the published names; they are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from voxrill.export.tensors import Tensors
from voxrill.runtime.errors import CheckpointError

PREFIX = "model."
"""Before every name of the conversion but that of the tied text head. No published name begins so."""

HEAD = "lm_head.weight"
"""The text head, which transformers ties to the text embeddings."""

_RENAMED = {
    # theirs, after PREFIX: published. {} is the number of a layer; what follows the pattern stays as it is.
    "audio_embedding.weight": "audio_embedding.embedding.weight",
    "conformer.subsampling.layers.": "conformer.pre_encode.conv.",
    "conformer.subsampling.linear.": "conformer.pre_encode.out.",
    "conformer.layers.{}.self_attn.q_proj.": "conformer.layers.{}.self_attn.linear_q.",
    "conformer.layers.{}.self_attn.k_proj.": "conformer.layers.{}.self_attn.linear_k.",
    "conformer.layers.{}.self_attn.v_proj.": "conformer.layers.{}.self_attn.linear_v.",
    "conformer.layers.{}.self_attn.o_proj.": "conformer.layers.{}.self_attn.linear_out.",
    "conformer.layers.{}.self_attn.relative_k_proj.": "conformer.layers.{}.self_attn.linear_pos.",
    "conformer.layers.{}.self_attn.bias_u": "conformer.layers.{}.self_attn.pos_bias_u",
    "conformer.layers.{}.self_attn.bias_v": "conformer.layers.{}.self_attn.pos_bias_v",
    "conformer.layers.{}.conv.norm.": "conformer.layers.{}.conv.batch_norm.",
    "audio_adapter_norm.": "audio_adapter.model.0.",
    "audio_adapter_linear_1.": "audio_adapter.model.1.",
    "audio_adapter_linear_2.": "audio_adapter.model.3.",
    "depthformer.layers.{}.operator.o_proj.": "depthformer.layers.{}.operator.out_proj.",
    "depthformer.layers.{}.operator.q_norm.": "depthformer.layers.{}.operator.bounded_attention.q_layernorm.",
    "depthformer.layers.{}.operator.k_norm.": "depthformer.layers.{}.operator.bounded_attention.k_layernorm.",
}

_PACKED = {
    # Three tensors whose rows, one after the other, are one published tensor.
    "depthformer.layers.{}.operator.q_proj.": ("depthformer.layers.{}.operator.qkv_proj.", 0),
    "depthformer.layers.{}.operator.k_proj.": ("depthformer.layers.{}.operator.qkv_proj.", 1),
    "depthformer.layers.{}.operator.v_proj.": ("depthformer.layers.{}.operator.qkv_proj.", 2),
}
PARTS = 3
"""Tensors in a packed one."""

_ENCODER = {
    # theirs: published
    "num_mel_bins": "feat_in",
    "num_hidden_layers": "n_layers",
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "subsampling_factor": "subsampling_factor",
    "subsampling_conv_channels": "subsampling_conv_channels",
    "conv_kernel_size": "conv_kernel_size",
    "scale_input": "xscaling",
}

_FIXED: dict[str, dict[str, Any]] = {
    # Options that the conversion does not change, and that the exporter does not compute otherwise.
    "encoder": {
        "model_type": "parakeet_encoder",
        "hidden_act": "silu",
        "attention_bias": True,
        "convolution_bias": True,
        "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2,
    },
    "depthformer": {"norm_eps": 1e-5, "rope_theta": 1e6, "attention_bias": False},
    "feature_extractor": {"preemphasis": 0.97},
}


class PublishedName(NamedTuple):
    """Where a tensor of the conversion stands in the published layout; part: of a packed tensor, else None."""

    name: str
    part: int | None = None


def published_name(theirs: str) -> PublishedName:
    """The published name of a tensor of the conversion; names without a row in the tables lose their prefix only."""
    name = theirs.removeprefix(PREFIX)
    for pattern, (published, part) in _TABLE:
        found = pattern.match(name)
        if found:
            return PublishedName(published.format(*found.groups()) + name[found.end() :], part)
    return PublishedName(name)


def _pattern(theirs: str) -> re.Pattern[str]:
    return re.compile(re.escape(theirs).replace(r"\{\}", r"(\d+)"))


_TABLE = [(_pattern(theirs), PublishedName(name)) for theirs, name in _RENAMED.items()]
_TABLE += [(_pattern(theirs), PublishedName(name, part)) for theirs, (name, part) in _PACKED.items()]


def published_names(stored: Tensors) -> Tensors:
    """The tensors under their published names, whichever layout they are stored in."""
    return TransformersTensors(stored) if any(name.startswith(PREFIX) for name in stored) else stored


class TransformersTensors(Tensors):
    """Tensors of transformers' layout under their published names.

    Raises:
        CheckpointError: a packed tensor lacks one of its parts.
    """

    def __init__(self, stored: Tensors) -> None:
        self._stored = stored
        self._parts: dict[str, dict[int, str]] = {}
        packed = set()
        for theirs in stored:
            name, part = published_name(theirs)
            self._parts.setdefault(name, {})[part or 0] = theirs
            if part is not None:
                packed.add(name)
        for name in sorted(packed):
            if len(self._parts[name]) < PARTS:
                raise CheckpointError(
                    f"{name} is stored in {PARTS} parts, but there is only {', '.join(self._parts[name].values())}",
                    "Save the query, key and value projections of the layer together",
                )

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        first, *others = (self._stored.shape(theirs) for theirs in self._of(name))
        return (first[0] + sum(shape[0] for shape in others), *first[1:]) if others else first

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        return self._stored.dtype(self._of(name)[0])

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        first, *others = (self._stored.read(theirs) for theirs in self._of(name))
        return torch.cat([first, *others]) if others else first

    def _of(self, name: str) -> list[str]:
        """The stored names of a tensor's parts, in order. A name that is not stored is left to the store to refuse."""
        parts = self._parts.get(name, {0: name})
        return [parts[number] for number in sorted(parts)]


def is_transformers_config(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of the conversion: its encoder is described as transformers' Parakeet encoder is."""
    encoder = config.get("encoder")
    return isinstance(encoder, Mapping) and "d_model" not in encoder and "hidden_size" in encoder


def published_config(config: Mapping[str, Any], feature_extractor: Mapping[str, Any]) -> dict[str, Any]:
    """The conversion's config as the published one.

    Args:
        config: its config.json.
        feature_extractor: that of its processor_config.json.

    Raises:
        CheckpointError: a value is missing, or is one that the exporter does not compute.
    """
    depthformer = config.get("depthformer", {})
    depthformer = {**(depthformer.get("rope_parameters") or {}), **depthformer}  # where newer releases keep rope_theta
    given = {"encoder": config["encoder"], "depthformer": depthformer, "feature_extractor": feature_extractor}
    for where, options in _FIXED.items():
        for key, wanted in options.items():
            _check_option(where, key, given[where].get(key, wanted), wanted)
    encoder = {published: _value(config["encoder"], theirs) for theirs, published in _ENCODER.items()}
    encoder["ff_expansion_factor"] = _value(config["encoder"], "intermediate_size") // encoder["d_model"]
    rate = _value(feature_extractor, "sampling_rate")
    preprocessor = {
        "sample_rate": rate,
        "features": _value(feature_extractor, "feature_size"),
        "n_fft": _value(feature_extractor, "n_fft"),
        "window_size": _value(feature_extractor, "win_length") / rate,
        "window_stride": _value(feature_extractor, "hop_length") / rate,
    }
    return {**config, "encoder": encoder, "preprocessor": preprocessor}


def _value(given: Mapping[str, Any], key: str) -> Any:
    if key not in given:
        raise CheckpointError(f"the transformers conversion states no {key}", "Convert the published checkpoint again")
    return given[key]


def _check_option(where: str, key: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise CheckpointError(
            f"the transformers conversion has {where}.{key} = {found!r}; only {wanted!r} is supported",
            "Check that it is a conversion of LFM2-Audio",
        )
