"""The `mimi_decoder` graph: LFM2-Audio's codes to 24 kHz sound with Mimi's decoder, a streaming step.

It consists of codebooks, upsampling, a windowed transformer and the SEANet decoder. A Mimi checkpoint has no config:
sizes come from tensor shapes, and the rest (heads, window, rotary base) is fixed in the reference's loader. The
reference is the codec that `liquid-audio` ships (Kyutai's moshi); transformers' MimiModel ignores the window. The state
of a convolution is its last inputs; that of a transposed convolution is its tail before the bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from voxrill.export.convolutions import CausalConv, CausalTransposedConv, CausalUpsampling
from voxrill.export.layers import ConvProduct, rotary_angles, rotate_pairs, split_heads, turned_back
from voxrill.export.tensors import Tensors
from voxrill.export.windowed import keep_last, window_geometry
from voxrill.runtime.bundle.contract import MIMI_DECODER, CodecSpec, TensorSpec, past_names

SAMPLE_RATE = 24_000
HEADS = 8
WINDOW = 250
THETA = 10_000.0
USAGE_FLOOR = 1e-5
"""These are fixed in the reference (moshi's loaders and EuclideanCodebook). The window is 250 steps of 40 ms, 10 s."""


@dataclass(frozen=True)
class MimiConfig:
    """Sizes of Mimi's decoder, read from its tensors."""

    codebooks: int
    vocab: int
    code_dim: int
    dim: int
    layers: int
    inner: int
    upsample: int
    widths: tuple[int, ...]
    ratios: tuple[int, ...]
    squeezed: tuple[int, ...]
    first_kernel: int
    last_kernel: int
    residual_kernel: int

    @classmethod
    def read(cls, tensors: Tensors, codebooks: int) -> MimiConfig:
        """Read the sizes from tensor shapes.

        Raises:
            CheckpointError: a tensor is missing.
        """
        shape = tensors.shape
        vocab, code_dim = shape("quantizer.rvq_first.vq.layers.0._codebook.embedding_sum")
        first_width, dim, first_kernel = shape("decoder.model.0.conv.conv.weight")
        widths, ratios, squeezed, stage = [first_width], [], [], 2
        while f"decoder.model.{stage}.convtr.convtr.weight" in tensors:
            _, width, kernel = shape(f"decoder.model.{stage}.convtr.convtr.weight")
            widths.append(width)
            ratios.append(kernel // 2)
            squeezed.append(shape(f"decoder.model.{stage + 1}.block.1.conv.conv.weight")[0])
            stage += 3
        layers = 0
        while f"decoder_transformer.transformer.layers.{layers}.norm1.weight" in tensors:
            layers += 1
        return cls(
            codebooks=codebooks,
            vocab=vocab,
            code_dim=code_dim,
            dim=dim,
            layers=layers,
            inner=shape("decoder_transformer.transformer.layers.0.linear1.weight")[0],
            upsample=shape("upsample.convtr.convtr.convtr.weight")[2] // 2,
            widths=tuple(widths),
            ratios=tuple(ratios),
            squeezed=tuple(squeezed),
            first_kernel=first_kernel,
            last_kernel=shape(f"decoder.model.{stage}.conv.conv.weight")[2],
            residual_kernel=shape("decoder.model.3.block.1.conv.conv.weight")[2],
        )

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        samples = self.upsample
        for ratio in self.ratios:
            samples *= ratio
        return samples

    def state(self) -> tuple[TensorSpec, ...]:
        """The streaming state: convolution tails in signal order, then the transformer's keys and values."""
        tails = [(self.dim, self.upsample), (self.dim, self.first_kernel - 1)]
        for width, ratio in zip(self.widths[1:], self.ratios, strict=True):
            tails += [(width, ratio), (width, self.residual_kernel - 1)]
        tails.append((self.widths[-1], self.last_kernel - 1))
        specs = [TensorSpec(f"past_conv.{i}", "float32", (1, *tail)) for i, tail in enumerate(tails)]
        for layer in range(self.layers):
            shape = (1, HEADS, WINDOW - 1, self.dim // HEADS)
            specs += [TensorSpec(name, "float32", shape) for name in past_names(layer, "attention")]
        return tuple(specs)

    def spec(self) -> CodecSpec:
        """The codec's entry in the manifest."""
        return CodecSpec(MIMI_DECODER, SAMPLE_RATE, self.frame_samples, self.state())


Rotary = tuple[torch.Tensor, torch.Tensor]


class _State:
    """Gives the parts of the past state in order, and collects those of the next state."""

    def __init__(self, past: tuple[torch.Tensor, ...]) -> None:
        self._past: Iterator[torch.Tensor] = iter(past)
        self.present: list[torch.Tensor] = []

    def step(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """One streaming layer over x (1, T, channels)."""
        y, present = layer(x, next(self._past))
        self.present.append(present)
        return cast(torch.Tensor, y)

    def cache(
        self, key: torch.Tensor, value: torch.Tensor, further: Rotary | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Past and new keys and values. The last ones become the next state, their keys turned by `further`."""
        # The contract has keys before values, and the generator reads the past state in that order.
        keys, values = (torch.cat([next(self._past), new], 2) for new in (key, value))
        kept = keep_last(WINDOW - 1, keys, 2)
        self.present += [rotate_pairs(kept, *further) if further else kept, keep_last(WINDOW - 1, values, 2)]
        return keys, values


class _TransformerLayer(nn.Module):
    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        dim = config.dim
        self.self_attn = nn.Module()
        self.self_attn.in_projs = nn.ModuleList([nn.Linear(dim, 3 * dim, bias=False)])
        self.self_attn.out_projs = nn.ModuleList([nn.Linear(dim, dim, bias=False)])
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, config.inner, bias=False)
        self.linear2 = nn.Linear(config.inner, dim, bias=False)
        self.layer_scale_1 = _Scale(dim)
        self.layer_scale_2 = _Scale(dim)

    def forward(
        self, x: torch.Tensor, rotary: Rotary, further: Rotary | None, bias: torch.Tensor, state: _State
    ) -> torch.Tensor:
        projected = self.self_attn.in_projs[0](self.norm1(x))  # type: ignore[operator, index]
        heads = split_heads(projected, x.shape[2] // HEADS)
        query, key = rotate_pairs(heads[:, : 2 * HEADS], *rotary).chunk(2, 1)
        keys, values = state.cache(key, heads[:, 2 * HEADS :], further)
        scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2) + bias
        attended = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
        mixed = self.self_attn.out_projs[0](attended)  # type: ignore[operator, index]
        x = x + mixed * self.layer_scale_1.scale
        y: torch.Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x)))) * self.layer_scale_2.scale
        return y


class _Scale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))


class _Residual(nn.Module):
    """SEANet's residual block: squeeze with a small kernel, expand with a kernel of 1."""

    def __init__(self, width: int, squeezed: int, kernel: int) -> None:
        super().__init__()
        self.wide = CausalConv(width, squeezed, kernel)
        self.narrow = ConvProduct(squeezed, width)

    def forward(self, x: torch.Tensor, state: _State) -> torch.Tensor:
        y: torch.Tensor = x + self.narrow(F.elu(state.step(self.wide, F.elu(x))))
        return y


class MimiDecoderModule(nn.Module):
    """Inputs and outputs as `contract.codec` lists them. Fill it with `load_mimi`.

    Args:
        config: its sizes.
        fixed: build the npu flavour, whose positions do not grow.
    """

    def __init__(self, config: MimiConfig, fixed: bool = False) -> None:
        super().__init__()
        self.config = config
        self.fixed = fixed
        self.codes = nn.Embedding(config.codebooks * config.vocab, config.dim)
        self.upsample = CausalUpsampling(config.dim, config.upsample)
        self.layers = nn.ModuleList(_TransformerLayer(config) for _ in range(config.layers))
        self.first = CausalConv(config.dim, config.widths[0], config.first_kernel)
        self.stages = nn.ModuleList(
            CausalTransposedConv(wide, narrow, ratio)
            for wide, narrow, ratio in zip(config.widths, config.widths[1:], config.ratios, strict=False)
        )
        self.residuals = nn.ModuleList(
            _Residual(width, squeezed, config.residual_kernel)
            for width, squeezed in zip(config.widths[1:], config.squeezed, strict=True)
        )
        self.last = CausalConv(config.widths[-1], 1, config.last_kernel)

    def forward(self, audio_codes: torch.Tensor, offset: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """audio_codes (1, codebooks, F), offset (1,) frames decoded before, state to audio (1, 1920 F), state."""
        config, state = self.config, _State(past)
        starts = (torch.arange(config.codebooks) * config.vocab)[:, None]  # where each codebook begins in the one table
        x = self.codes(audio_codes[0] + starts).sum(0)[None]
        x = state.step(self.upsample, x)
        tails = state.present
        positions, bias = window_geometry(offset * config.upsample, x.shape[1], WINDOW)
        rotary, further = self._angles(positions)
        # The transformer's state comes last in the contract but first in the signal: it has its own cursor.
        attention = _State(past[len(past) - 2 * config.layers :])
        for layer in self.layers:
            x = layer(x, rotary, further, bias, attention)
        x = state.step(self.first, x)
        for stage, residual in zip(self.stages, self.residuals, strict=True):
            x = residual(state.step(stage, F.elu(x)), state)
        x = state.step(self.last, F.elu(x))
        return (x[..., 0], *tails, *attention.present)

    def _angles(self, positions: torch.Tensor) -> tuple[Rotary, Rotary | None]:
        """The angles of the new positions, and by how much kept keys are turned for the next call."""
        dim, length = self.config.dim // HEADS, len(positions)
        if not self.fixed:
            return rotary_angles(positions, dim, THETA), None
        further = turned_back(rotary_angles(torch.tensor([float(length)]), dim, THETA))
        return rotary_angles(torch.arange(length).float(), dim, THETA), further


def load_mimi(tensors: Tensors, config: MimiConfig, fixed: bool = False) -> MimiDecoderModule:
    """Build the decoder from Mimi's published tensors.

    Each codebook is `embedding_sum / cluster_usage`, folded with its group's output projection into one table.

    Raises:
        CheckpointError: a tensor is missing or has a wrong shape.
    """
    with torch.device("meta"):
        module = MimiDecoderModule(config, fixed)
    tensors.load(module, _published_names(config), {"codes.weight": _folded_codebooks(tensors, config)})
    return module


def _folded_codebooks(tensors: Tensors, config: MimiConfig) -> torch.Tensor:
    """(codebooks * vocab, dim): what each code adds to the decoder's input."""
    tables = []
    for book in range(config.codebooks):
        group, layer = ("rvq_first", 0) if book == 0 else ("rvq_rest", book - 1)
        prefix = f"quantizer.{group}.vq.layers.{layer}._codebook."
        # A codebook is stored as sums and counts of its training's moving average: a centroid is their quotient.
        usage = tensors.read(prefix + "cluster_usage").clamp(min=USAGE_FLOOR)
        centroids = tensors.read(prefix + "embedding_sum") / usage[:, None]
        tables.append(centroids @ tensors.read(f"quantizer.{group}.output_proj.weight")[..., 0].t())
    return torch.cat(tables)


def _published_names(config: MimiConfig) -> dict[str, str]:
    """The published name of each of our parameters."""
    names = {"upsample.weight": "upsample.convtr.convtr.convtr.weight"}
    for layer in range(config.layers):
        for key in (
            "self_attn.in_projs.0.weight",
            "self_attn.out_projs.0.weight",
            *(f"norm{i}.{part}" for i in (1, 2) for part in ("weight", "bias")),
            *(f"linear{i}.weight" for i in (1, 2)),
            *(f"layer_scale_{i}.scale" for i in (1, 2)),
        ):
            names[f"layers.{layer}.{key}"] = f"decoder_transformer.transformer.layers.{layer}.{key}"
    # SEANet is a flat list of modules: a convolution, then three entries for each stage (ELU, transposed convolution,
    # residual block), then an ELU and the last convolution.
    seanet = {"first.product": "0.conv.conv", "last.product": f"{3 * len(config.ratios) + 2}.conv.conv"}
    for stage in range(len(config.ratios)):
        names[f"stages.{stage}.product.weight"] = f"decoder.model.{3 * stage + 2}.convtr.convtr.weight"
        names[f"stages.{stage}.bias"] = f"decoder.model.{3 * stage + 2}.convtr.convtr.bias"
        seanet[f"residuals.{stage}.wide.product"] = f"{3 * stage + 3}.block.1.conv.conv"
        seanet[f"residuals.{stage}.narrow"] = f"{3 * stage + 3}.block.3.conv.conv"
    for ours, theirs in seanet.items():
        for part in ("weight", "bias"):
            names[f"{ours}.{part}"] = f"decoder.model.{theirs}.{part}"
    return names
