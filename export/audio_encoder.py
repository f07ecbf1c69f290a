"""The `audio_encoder` graph: log-mel to embeddings of the backbone's width (FastConformer, then the adapter).

Source: the reference's ConformerEncoder (NVIDIA NeMo's FastConformer: depthwise-striding subsampling, relative
positions after Transformer-XL, full context) and its MLP adapter. `mel_lengths` masks padded frames, so that a clip
padded to a fixed length gives the same embeddings as alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from voxrill.export.checkpoint import Checkpoint
from voxrill.export.layers import ConvProduct, score_bias
from voxrill.runtime.errors import CheckpointError

SUPPORTED = {
    "subsampling": "dw_striding",
    "self_attention_model": "rel_pos",
    "conv_norm_type": "batch_norm",
    "causal_downsampling": False,
    "reduction": None,
    "untie_biases": True,
    "conv_context_size": None,
    "att_context_size": [-1, -1],
}
"""Encoder options of the published family. Other values are refused by name, and not exported wrongly."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the audio encoder."""

    mel_bins: int
    layers: int
    dim: int
    heads: int
    channels: int
    subsampling: int
    inner: int
    kernel: int
    scale_input: bool
    adapter_out: int

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> EncoderConfig:
        """Read `config.json`'s encoder.

        Raises:
            CheckpointError: a field is missing, or an option has another value than in the published family.
        """
        for key, wanted in SUPPORTED.items():
            found = checkpoint.config.get("encoder", {}).get(key, wanted)
            if found != wanted:
                raise CheckpointError(
                    f"config.json has encoder.{key} = {found!r}; only {wanted!r} is supported",
                    "Check that this is an LFM2-Audio checkpoint: its encoder is of another kind",
                )

        def value(key: str) -> int:
            return int(checkpoint.value("encoder", key))

        dim = value("d_model")
        return cls(
            mel_bins=value("feat_in"),
            layers=value("n_layers"),
            dim=dim,
            heads=value("n_heads"),
            channels=value("subsampling_conv_channels"),
            subsampling=value("subsampling_factor"),
            inner=dim * value("ff_expansion_factor"),
            kernel=value("conv_kernel_size"),
            scale_input=bool(checkpoint.value("encoder", "xscaling")),
            adapter_out=int(checkpoint.value("lfm", "hidden_size")),
        )


def _heard(frames: int, lengths: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """(B, frames): whether each frame begins before the end of its clip, `lengths` (B,). Frames begin `stride` apart.

    The comparison k * stride < length needs no division, which an NPU computes in float16.
    """
    return torch.arange(0, frames * stride, stride) < lengths[:, None]


class _Subsampling(nn.Module):
    """Three stride-2 convolutions over time and frequency: 8 frames become one."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.channels
        stages = int(math.log2(config.subsampling))
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(stages - 1):
            layers += [
                nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels),
                nn.Conv2d(channels, channels, 1),
                nn.ReLU(),
            ]
        bins = config.mel_bins
        for _ in range(stages):
            bins = (bins + 1) // 2
        self.conv = nn.Sequential(*layers)
        self.out = nn.Linear(channels * bins, config.dim)

    def forward(self, mel: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, T, bins) and (B,) to (B, ceil(T / 8), dim)."""
        x, stride = mel[:, None] * _heard(mel.shape[1], lengths).float()[:, None, :, None], 1
        for layer in self.conv:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                stride *= layer.stride[0]
            if isinstance(layer, nn.ReLU):
                x = x * _heard(x.shape[2], lengths, stride).float()[:, None, :, None]
        y: torch.Tensor = self.out(x.transpose(1, 2).flatten(2))
        return y


class _FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.dim, config.inner)
        self.linear2 = nn.Linear(config.inner, config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear2(F.silu(self.linear1(x)))
        return y


class _RelativeAttention(nn.Module):
    """Self-attention with relative positions (Dai et al. 2019, section 3.3)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (nn.Linear(dim, dim) for _ in range(4))
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.heads, dim // self.heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.heads, dim // self.heads))

    def forward(self, x: torch.Tensor, positions: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Attention of x (B, T, dim) with positions (2T - 1, dim) and bias (B, T). Returns (B, T, dim)."""
        batch, length, dim = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(*y.shape[:-1], self.heads, dim // self.heads).transpose(-2, -3)

        query, key, value = split(self.linear_q(x)), split(self.linear_k(x)), split(self.linear_v(x))
        content = (query + self.pos_bias_u[:, None]) @ key.transpose(-1, -2)
        relative = (query + self.pos_bias_v[:, None]) @ split(self.linear_pos(positions)).transpose(-1, -2)
        # Row i has the scores of distances T - 1 to 1 - T; column j of the result needs distance i - j. One column of
        # padding makes each row end one element later, so a reshape shifts row i by i: no index is gathered.
        relative = F.pad(relative, (1, 0)).reshape(batch, self.heads, 2 * length, length)[:, :, 1:]
        relative = relative.reshape(batch, self.heads, length, 2 * length - 1)[..., :length]
        scores = (content + relative) * (dim // self.heads) ** -0.5 + bias[:, None, None]
        mixed = scores.softmax(-1) @ value
        y: torch.Tensor = self.linear_out(mixed.transpose(1, 2).reshape(batch, length, dim))
        return y


class _Convolution(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.pointwise_conv1 = ConvProduct(dim, 2 * dim)
        self.depthwise_conv = nn.Conv1d(dim, dim, config.kernel, padding=config.kernel // 2, groups=dim)
        self.batch_norm = nn.BatchNorm1d(dim)
        self.pointwise_conv2 = ConvProduct(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Convolution of x (B, T, dim); frames outside mask (B, T) are zeroed first. Returns (B, T, dim)."""
        y = F.glu(self.pointwise_conv1(x), -1) * mask[..., None]
        y = F.silu(self.batch_norm(self.depthwise_conv(y.transpose(1, 2))))
        z: torch.Tensor = self.pointwise_conv2(y.transpose(1, 2))
        return z


class _ConformerLayer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm_feed_forward1 = nn.LayerNorm(config.dim)
        self.feed_forward1 = _FeedForward(config)
        self.norm_self_att = nn.LayerNorm(config.dim)
        self.self_attn = _RelativeAttention(config)
        self.norm_conv = nn.LayerNorm(config.dim)
        self.conv = _Convolution(config)
        self.norm_feed_forward2 = nn.LayerNorm(config.dim)
        self.feed_forward2 = _FeedForward(config)
        self.norm_out = nn.LayerNorm(config.dim)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        x = x + self.self_attn(self.norm_self_att(x), positions, bias)
        x = x + self.conv(self.norm_conv(x), mask)
        y: torch.Tensor = self.norm_out(x + 0.5 * self.feed_forward2(self.norm_feed_forward2(x)))
        return y


class _Conformer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.subsampling = config.subsampling
        self.scale = config.dim**0.5 if config.scale_input else 1.0
        self.pre_encode = _Subsampling(config)
        self.layers = nn.ModuleList(_ConformerLayer(config) for _ in range(config.layers))

    def forward(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.pre_encode(mel, lengths)
        length = x.shape[1]
        heard = _heard(length, lengths, self.subsampling)
        bias, mask = score_bias(heard), heard.float()
        positions = self._relative_positions(length)
        x = x * self.scale
        for layer in self.layers:
            x = layer(x, positions, bias, mask)
        return x, heard.long().sum(1)

    def _relative_positions(self, length: int) -> torch.Tensor:
        """Sinusoids (2 * length - 1, dim) of distances length - 1 down to 1 - length."""
        distances = (length - 1 - torch.arange(2 * length - 1)).float()
        rates = torch.exp(torch.arange(0, self.dim, 2).float() * -(math.log(10000.0) / self.dim))
        angles = distances[:, None] * rates
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


class _Adapter(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        out = config.adapter_out
        self.model = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, out), nn.GELU(), nn.Linear(out, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.model(x)
        return y


class AudioEncoderModule(nn.Module):
    """Inputs and outputs as `contract.audio_encoder` lists them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.conformer = _Conformer(config)
        self.audio_adapter = _Adapter(config)

    def forward(self, mel_spectrogram: torch.Tensor, mel_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, bins) and (B,) to (B, ceil(T / 8), hidden) and (B,)."""
        encoded, lengths = self.conformer(mel_spectrogram, mel_lengths)
        return self.audio_adapter(encoded), lengths
