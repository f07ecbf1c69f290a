"""The `codec_decoder` graph: LiquidCodec's codes to STFT features, a streaming step.

Each code is a few small numbers (finite scalar quantisation), read from a table. A frame's numbers go through two
products, are repeated six times, and run through a windowed stack. What follows is as in LFM2.5's detokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.audio_detokenizer import OVERLAP, REPEAT, SAMPLE_RATE
from voxrill.export.inverse_stft import InverseStft
from voxrill.export.lfm3.encoder import WindowedStack, stack_state
from voxrill.export.lfm3.stack import StackConfig
from voxrill.runtime.bundle.contract import CODEC_DECODER, CodecSpec, TensorSpec


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the codec's decoder. levels: numbers that a code stands for; inner: width between the two products."""

    stack: StackConfig
    codebooks: int
    codes: int
    levels: int
    inner: int
    window: int
    theta: float
    features: int

    def spec(self) -> CodecSpec:
        """The codec's entry in the manifest."""
        shapes = stack_state(self.stack, self.window)
        n_fft = self.features - 2
        return CodecSpec(
            graph=CODEC_DECODER,
            sample_rate=SAMPLE_RATE,
            frame_samples=REPEAT * n_fft // OVERLAP,
            state=tuple(TensorSpec(name, "float32", shape) for name, shape in shapes.items()),
            n_fft=n_fft,
            hop=n_fft // OVERLAP,
        )


class CodecDecoderModule(nn.Module):
    """Inputs and outputs as `contract.codec` lists them; `fixed` as in `AudioDetokenizerModule`."""

    def __init__(self, config: CodecConfig, fixed: bool = False) -> None:
        super().__init__()
        self.config, self.fixed = config, fixed
        hidden = config.stack.hidden
        self.table = nn.Embedding(config.codes, config.levels)
        self.quantizer_out = nn.Linear(config.codebooks * config.levels, config.inner)
        self.in_proj = nn.Linear(config.inner, hidden)
        self.lfm = WindowedStack(config.stack, config.window, config.theta, fixed)
        self.out_proj = nn.Linear(hidden, config.features)
        self.inverse_stft = InverseStft(config.features - 2, OVERLAP)

    def forward(self, audio_codes: torch.Tensor, offset: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """audio_codes (1, codebooks, F), offset (1,) frames decoded before, state to features and state."""
        frames = self.table(audio_codes[0].t()).flatten(1)
        x = self.in_proj(self.quantizer_out(frames))
        x = x[:, None].expand(-1, REPEAT, -1).reshape(1, x.shape[0] * REPEAT, x.shape[1])
        layers = past[: len(past) - 1] if self.fixed else past
        x, present = self.lfm(x, offset * REPEAT, layers)
        features = self.out_proj(x)
        if not self.fixed:
            return (features, *present)
        sound, overlap = self.inverse_stft(features, past[-1])
        return (sound, *present, overlap)
