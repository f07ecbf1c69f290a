"""LFM3-Audio's modules with their weights: what the graphs are traced from.

In: tensors by our names, and sizes. Out: one module, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import nn

from voxrill.export.decoder import TextHeadModule
from voxrill.export.lfm3.codec_decoder import CodecDecoderModule
from voxrill.export.lfm3.decoder import Lfm3DecoderModule
from voxrill.export.lfm3.depth_decoder import DepthDecoderModule
from voxrill.export.lfm3.encoder import Lfm3EncoderModule
from voxrill.export.lfm3.sizes import FSQ_LEVELS, Lfm3Sizes
from voxrill.export.lfm3.tensors import DEPTH_TABLE
from voxrill.export.tensors import Tensors

TEXT_TABLE = "lfm.embed_tokens.weight"
CODE_TABLE = "codebook_embedding.weight"
_CODEC = "codec."
_STACK = ".stack."
"""Between a windowed stack and its layers, in the modules alone."""


def encoder(weights: Tensors, sizes: Lfm3Sizes, fixed: bool = False) -> nn.Module:
    """The audio encoder and the adapter."""
    return _loaded(lambda: Lfm3EncoderModule(sizes.encoder, fixed), weights)


def decoder(weights: Tensors, sizes: Lfm3Sizes, fixed: bool = False) -> nn.Module:
    """The backbone."""
    return _loaded(lambda: Lfm3DecoderModule(sizes.backbone, fixed), weights)


def text_head(weights: Tensors, sizes: Lfm3Sizes) -> nn.Module:
    """The text head, which is tied to the text embeddings."""
    shape = sizes.backbone.vocab, sizes.backbone.stack.hidden
    with torch.device("meta"):
        module = TextHeadModule(*shape)
    weights.load(module, {"weight": TEXT_TABLE})
    return module


def depth_decoder(weights: Tensors, sizes: Lfm3Sizes) -> nn.Module:
    """The depth decoder. Its heads are its embeddings, codebook after codebook."""
    heads = torch.split(weights.read(DEPTH_TABLE), sizes.depth.codes)
    given = {f"heads.{book}.weight": head.clone() for book, head in enumerate(heads)}
    module = _loaded(lambda: DepthDecoderModule(sizes.depth), weights, given=given)
    assert isinstance(module, DepthDecoderModule)
    module.depthformer.join()
    return module


def codec_decoder(weights: Tensors, sizes: Lfm3Sizes, fixed: bool = False) -> nn.Module:
    """LiquidCodec's decoder, with the table of its codes: the stored one, else one that is computed."""
    table = _CODEC + "table.weight"
    given = {} if table in weights else {"table.weight": fsq_table()}
    return _loaded(lambda: CodecDecoderModule(sizes.codec, fixed), weights, _CODEC, given)


def fsq_table(levels: tuple[int, ...] = FSQ_LEVELS) -> torch.Tensor:
    """The numbers (codes, len(levels)) that each code stands for, in finite scalar quantisation (Mentzer et al. 2023).

    The first level changes fastest. LiquidCodec's own formula was not seen: this is what the common libraries do. GGUF
    files carry the table, which is then used instead.
    """
    codes = torch.arange(prod(levels))
    columns, below = [], 1
    for level in levels:
        digit = codes // below % level
        columns.append((digit - level // 2) / (level // 2))
        below *= level
    return torch.stack(columns, 1).float()


def _loaded(
    make: Callable[[], nn.Module], weights: Tensors, prefix: str = "", given: dict[str, torch.Tensor] | None = None
) -> nn.Module:
    with torch.device("meta"):
        module = make()
    names = {key: prefix + key.replace(_STACK, ".") for key in module.state_dict()}
    weights.load(module, names, given)
    return module
