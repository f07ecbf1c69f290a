"""The sizes of an LFM3-Audio model: from its tensors' shapes, and from its config what shapes do not show.

In: tensors by our names, and `config.json` (for a GGUF pair, the same made of its metadata). Out: the sizes of every
part. A value that a config does not state is the published model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from voxrill.export.lfm import CONV
from voxrill.export.lfm3.codec_decoder import CodecConfig
from voxrill.export.lfm3.decoder import FULL, SLIDING, BackboneConfig
from voxrill.export.lfm3.depth_decoder import DepthConfig
from voxrill.export.lfm3.encoder import Lfm3EncoderConfig
from voxrill.export.lfm3.stack import StackConfig
from voxrill.export.lfm3.tensors import DEPTH_TABLE
from voxrill.export.tensors import Tensors
from voxrill.runtime.errors import CheckpointError

FSQ_LEVELS = (8, 7, 6, 6)
"""Steps of each number that a code of LiquidCodec stands for."""

MEL_BINS = 128


@dataclass(frozen=True)
class Lfm3Sizes:
    """The sizes of every part."""

    backbone: BackboneConfig
    encoder: Lfm3EncoderConfig
    depth: DepthConfig
    codec: CodecConfig

    @classmethod
    def read(cls, weights: Tensors, config: Mapping[str, Any]) -> Lfm3Sizes:
        """Read shapes and config.

        Raises:
            CheckpointError: a tensor is missing, or its shape cannot be; the message names it.
        """
        backbone = backbone_config(weights, config.get("lfm", {}))
        codebooks = int(config.get("codebooks", 12))
        depth = _depth(weights, config, codebooks)
        return cls(
            backbone, _encoder(weights, config), depth, _codec(weights, config.get("codec", {}), codebooks, depth.codes)
        )


def backbone_config(weights: Tensors, config: Mapping[str, Any]) -> BackboneConfig:
    """The backbone's sizes, from its tensors and its part of the config.

    Raises:
        CheckpointError: config and tensors do not belong together.
    """
    ropes = config.get("rope_parameters") or {}
    full, sliding = ropes.get(FULL, {}), ropes.get(SLIDING, {})
    kinds = _kinds(weights, "lfm")
    given = tuple(config.get("layer_types") or ())
    if given and tuple(kind == CONV for kind in given) != tuple(kind == CONV for kind in kinds):
        raise CheckpointError(
            f"config.json lists layers {', '.join(given)}; the tensors are of {', '.join(kinds)}",
            "Download the checkpoint again: config.json and the weights do not belong together",
        )
    # Where no config says so: every fourth layer from the third on sees all, the other attention layers a window.
    usual = tuple(SLIDING if kind != CONV and layer % 4 == 0 else kind for layer, kind in enumerate(kinds))
    return BackboneConfig(
        stack=_stack(weights, "lfm", given or usual, float(config.get("norm_eps", 1e-5))),
        vocab=weights.shape("lfm.embed_tokens.weight")[0],
        window=int(config.get("sliding_window", 256)),
        full_theta=float(full.get("rope_theta", 1e6)),
        sliding_theta=float(sliding.get("rope_theta", 1e4)),
        turned=float(full.get("partial_rotary_factor", 0.5)),
        max_positions=int(config.get("max_position_embeddings", 128_000)),
    )


def _encoder(weights: Tensors, config: Mapping[str, Any]) -> Lfm3EncoderConfig:
    encoder = config.get("encoder", {})
    lfm = encoder.get("lfm", {})
    channels = weights.shape("encoder.downsample.conv.0.weight")[0]
    mels = int(encoder.get("dim_in", MEL_BINS))
    found = Lfm3EncoderConfig(
        stack=_stack(weights, "encoder.lfm", _kinds(weights, "encoder.lfm"), float(lfm.get("norm_eps", 1e-5))),
        mels=mels,
        channels=channels,
        window=int(encoder.get("sliding_window", 32)),
        theta=float(lfm.get("rope_theta", 1e6)),
        adapter=weights.shape("mlp.model.1.weight")[0],
        hidden=weights.shape("mlp.model.3.weight")[0],
    )
    return found


def _depth(weights: Tensors, config: Mapping[str, Any], codebooks: int) -> DepthConfig:
    rows, _ = weights.shape(DEPTH_TABLE)
    steps = int(config.get("maskgit_steps", 3))
    if rows % codebooks or codebooks % steps:
        raise CheckpointError(
            f"a depth decoder of {rows} rows cannot have {codebooks} codebooks in {steps} passes",
            "Check codebooks and maskgit_steps of config.json",
        )
    given = config.get("depthformer", {})
    return DepthConfig(
        stack=_stack(weights, "depthformer", _kinds(weights, "depthformer"), float(given.get("norm_eps", 1e-5))),
        hidden=weights.shape("depth_linear.weight")[1],
        codebooks=codebooks,
        codes=rows // codebooks,
        passes=(codebooks // steps,) * steps,
        theta=float(given.get("rope_theta", 1e6)),
    )


def _codec(weights: Tensors, config: Mapping[str, Any], codebooks: int, codes: int) -> CodecConfig:
    inner, numbers = weights.shape("codec.quantizer_out.weight")
    levels = numbers // codebooks
    stored = weights.shape("codec.table.weight") if "codec.table.weight" in weights else (prod(FSQ_LEVELS), levels)
    if stored != (codes - 1, levels):
        raise CheckpointError(
            f"the codec has {stored[0]} codes of {stored[1]} numbers; the depth decoder wants {codes - 1} of {levels}",
            "Check that model and codec belong together",
        )
    return CodecConfig(
        stack=_stack(weights, "codec.lfm", _kinds(weights, "codec.lfm"), float(config.get("norm_eps", 1e-5))),
        codebooks=codebooks,
        codes=codes - 1,
        levels=levels,
        inner=inner,
        window=int(config.get("decoder_window", 30)),
        theta=float(config.get("rope_theta", 1e6)),
        features=weights.shape("codec.out_proj.weight")[0],
    )


def _kinds(weights: Tensors, place: str) -> tuple[str, ...]:
    """Each layer's kind, by which of its tensors there are."""
    layers: dict[int, str] = {}
    pattern = re.compile(re.escape(place) + r"\.layers\.(\d+)\.(conv|self_attn)\.")
    for name in weights:
        found = pattern.match(name)
        if found:
            layers[int(found[1])] = CONV if found[2] == "conv" else FULL
    if not layers or set(layers) != set(range(len(layers))):
        raise CheckpointError(
            f"the layers of {place} are {sorted(layers) or 'missing'}", "Check that the checkpoint is whole"
        )
    return tuple(layers[number] for number in range(len(layers)))


def _stack(weights: Tensors, place: str, kinds: tuple[str, ...], eps: float) -> StackConfig:
    """A stack's sizes, from the shapes of its first convolution and its first attention."""
    first = f"{place}.layers.0"
    attention = next((f"{place}.layers.{n}.self_attn" for n, kind in enumerate(kinds) if kind != CONV), "")
    conv = next((f"{place}.layers.{n}.conv.conv.weight" for n, kind in enumerate(kinds) if kind == CONV), "")
    if not attention:
        raise CheckpointError(f"{place} has no attention layer", "Check that this is an LFM3-Audio checkpoint")
    (head_dim,) = weights.shape(f"{attention}.q_norm.weight")
    inner, hidden = weights.shape(f"{first}.feed_forward.w1.weight")
    return StackConfig(
        hidden=hidden,
        inner=inner,
        kinds=kinds,
        heads=weights.shape(f"{attention}.q_proj.weight")[0] // head_dim,
        kv_heads=weights.shape(f"{attention}.k_proj.weight")[0] // head_dim,
        head_dim=head_dim,
        kernel=weights.shape(conv)[-1] if conv else 1,
        sandwich=f"{first}.post_operator_norm.weight" in weights,
        gated=f"{attention}.g_proj.weight" in weights,
        eps=eps,
    )
