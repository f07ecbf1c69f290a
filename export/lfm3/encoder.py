"""LFM3's `audio_encoder` graph: log-mel to one row per 80 ms, a streaming step.

Three strided convolutions over mel and time, a causal LFM2 stack with a window, and an adapter to the backbone's width.
A piece has any number of frames; all but the last of a sound have a multiple of 8. Convolutions see one column before
the piece, which is state: zeros at the beginning, as the convolutions pad.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from voxrill.export.layers import rotate_halves, turned_back
from voxrill.export.lfm import CONV, Keep, attend_all
from voxrill.export.lfm3.stack import Lfm3Stack, StackConfig, rotary
from voxrill.export.windowed import keep_last, window_geometry
from voxrill.runtime.bundle.contract import TensorSpec, past_names

STRIDED = (0, 2, 5)
"""The convolutions that halve mel and time, by their published place; after the second and third stands a 1x1 one."""


@dataclass(frozen=True)
class Lfm3EncoderConfig:
    """Sizes of encoder and adapter. adapter: width between its two products; hidden: the backbone's."""

    stack: StackConfig
    mels: int
    channels: int
    window: int
    theta: float
    adapter: int
    hidden: int

    @property
    def subsampling(self) -> int:
        """Log-mel frames of one row."""
        return 1 << len(STRIDED)

    def bins(self, stage: int) -> int:
        """Mel bands before the strided convolution `stage`, counted from 0; after the last one with 3."""
        bins = self.mels
        for _ in range(stage):
            bins = -(-bins // 2)
        return bins

    def state(self) -> tuple[TensorSpec, ...]:
        """The streaming state: a column for each strided convolution, then that of the layers."""
        shapes: dict[str, tuple[int, ...]] = {
            f"past_column.{stage}": (1, self.channels if stage else 1, self.bins(stage), 1)
            for stage in range(len(STRIDED))
        }
        shapes |= stack_state(self.stack, self.window)
        return tuple(TensorSpec(name, "float32", shape) for name, shape in shapes.items())


def stack_state(stack: StackConfig, window: int) -> dict[str, tuple[int, ...]]:
    """State names and shapes of a stack whose attention has a window, in layer order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, kind in enumerate(stack.kinds):
        conv = 1, stack.hidden, stack.kernel - 1
        rows = 1, stack.kv_heads, window - 1, stack.head_dim
        shapes |= dict.fromkeys(past_names(layer, kind), conv if kind == CONV else rows)
    return shapes


class WindowedStack(nn.Module):
    """A stack whose attention layers all have one window.

    Args:
        config: its sizes.
        window: positions that each one sees, itself included.
        theta: rotary base.
        fixed: count positions from the first new one, as `export/windowed.py` explains.
    """

    def __init__(self, config: StackConfig, window: int, theta: float, fixed: bool) -> None:
        super().__init__()
        self.stack = Lfm3Stack(config, fused=not fixed)
        self.window, self.theta, self.fixed = window, theta, fixed
        self.attention = next((kind for kind in config.kinds if kind != CONV), CONV)

    def forward(
        self, x: torch.Tensor, offset: torch.Tensor, past: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(1, S, hidden) after `offset` (1,) positions, and state, to (1, S, hidden) and state."""
        config, length = self.stack.config, x.shape[1]
        positions, bias = window_geometry(offset, length, self.window)

        def keep(whole: torch.Tensor) -> torch.Tensor:
            return keep_last(self.window - 1, whole, 2)

        angles = self._angles(torch.arange(length).float() if self.fixed else positions)
        y: tuple[torch.Tensor, list[torch.Tensor]] = self.stack(
            x,
            {self.attention: angles},
            {self.attention: attend_all(bias, keep, self._keep_turned(length, keep) if self.fixed else None)},
            past,
            keep_conv=lambda whole: keep_last(config.kernel - 1, whole, -1),
        )
        return y

    def _angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rotary(positions, self.stack.config.head_dim, self.theta)

    def _keep_turned(self, length: int, keep: Keep) -> Keep:
        """Turn keys back by `length` positions, so that the next call can count its positions from 0."""
        further = turned_back(self._angles(torch.tensor([float(length)])))
        return lambda whole: rotate_halves(keep(whole), *further)


class _Downsample(nn.Module):
    """Frames to rows: convolutions over the plane mel x time, then one product a row."""

    def __init__(self, config: Lfm3EncoderConfig) -> None:
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, stride=2), nn.SiLU()]
        for _ in STRIDED[1:]:
            layers += [nn.Conv2d(width, width, 3, stride=2, groups=width), nn.Conv2d(width, width, 1), nn.SiLU()]
        self.conv = nn.Sequential(*layers)
        self.out = nn.Linear(width * config.bins(len(STRIDED)), config.stack.hidden)

    def forward(
        self, mel: torch.Tensor, lengths: torch.Tensor, columns: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Rows (1, ceil(T / 8), dim) and columns, from mel (1, T, mels), of which `lengths` (1,) count, and columns."""
        x, present, past = mel.transpose(1, 2)[:, None], [], iter(columns)
        for place, layer in enumerate(self.conv):
            if place in STRIDED:
                # What the layers before made of padding is no padding for this one: zeros are.
                heard = torch.arange(x.shape[3]) < lengths
                x = x * heard.float()
                lengths = (lengths + 1) // 2
                present.append(x[..., -1:])
                x = F.pad(torch.cat([next(past), x], 3), (0, 1, 1, 1))
            x = layer(x)
        return self.out(x.permute(0, 3, 1, 2).flatten(2)), present


class _Encoder(nn.Module):
    def __init__(self, config: Lfm3EncoderConfig, fixed: bool) -> None:
        super().__init__()
        self.downsample = _Downsample(config)
        self.lfm = WindowedStack(config.stack, config.window, config.theta, fixed)


class _RowAdapter(nn.Module):
    def __init__(self, config: Lfm3EncoderConfig) -> None:
        super().__init__()
        width = config.stack.hidden
        self.model = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, config.adapter), nn.GELU(), nn.Linear(config.adapter, config.hidden)
        )


class Lfm3EncoderModule(nn.Module):
    """Inputs and outputs as `contract.audio_encoder` lists them for an encoder with state."""

    def __init__(self, config: Lfm3EncoderConfig, fixed: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config, fixed)
        self.mlp = _RowAdapter(config)

    def forward(
        self, mel_spectrogram: torch.Tensor, mel_lengths: torch.Tensor, offset: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Rows, their number, and state: from mel (1, T, mels), lengths (1,), offset (1,) rows before, and state."""
        stages = len(STRIDED)
        x, columns = self.encoder.downsample(mel_spectrogram, mel_lengths, past[:stages])
        x, present = self.encoder.lfm(x, offset, past[stages:])
        rows = (mel_lengths + self.config.subsampling - 1) // self.config.subsampling
        return (self.mlp.model(x), rows, *columns, *present)
