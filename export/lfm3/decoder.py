"""LFM3's `decoder` graph: full attention over a growing KV cache, sliding attention over a window of fixed size.

A sliding layer's state is the last `window - 1` rows, whatever the length of the conversation. It is attended to with
plain operators. onnxruntime's GroupQueryAttention has a local window, but it keeps the rows of the whole conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.decoder import DecoderModule
from voxrill.export.fused import Rotary
from voxrill.export.layers import mirror_norms
from voxrill.export.lfm import ATTENTION, attend_all
from voxrill.export.lfm3.stack import Lfm3Stack, StackConfig, rotary
from voxrill.export.windowed import window_geometry

FULL, SLIDING = ATTENTION


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of the backbone. thetas: rotary bases of full and sliding layers; turned: share of a full layer's pairs."""

    stack: StackConfig
    vocab: int
    window: int
    full_theta: float
    sliding_theta: float
    turned: float
    max_positions: int


class Lfm3DecoderModule(DecoderModule):
    """Inputs and outputs as `contract.decoder` lists them; `fixed` as in `DecoderModule`."""

    def __init__(self, config: BackboneConfig, fixed: bool = False) -> None:
        nn.Module.__init__(self)
        self.lfm = Lfm3Stack(config.stack, fused=not fixed)  # type: ignore[assignment]
        self.backbone = config
        self.fixed = fixed
        if fixed:
            mirror_norms(self)

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """inputs_embeds (1, S, hidden), attention_mask (1, P + S) and state to hidden states and state."""
        config, stack = self.backbone, self.backbone.stack
        length = inputs_embeds.shape[1]
        known = attention_mask.shape[1] - length  # P: positions of the cache, with its padding
        heard = attention_mask[0, :known].sum()  # of them, those that hold something
        valid = attention_mask[0, known:].sum()  # new positions that are no padding
        # What is kept ends with the last valid position, which padding may follow.
        rows = valid + torch.arange(config.window - 1)
        columns = valid + torch.arange(stack.kernel - 1)
        _, bias = window_geometry(heard[None], length, config.window)
        full = self._attend_fixed(attention_mask, length) if self.fixed else self._attend_in_place(attention_mask)
        hidden, present = self.lfm(
            inputs_embeds,
            {kind: self._angles(kind, heard + torch.arange(length), known + length) for kind in (FULL, SLIDING)},
            {FULL: full, SLIDING: attend_all(bias, lambda whole: whole.index_select(2, rows))},
            past,
            keep_conv=lambda whole: whole.index_select(-1, columns),
        )
        return (hidden, *present)

    def _angles(self, kind: str, positions: torch.Tensor, count: int) -> Rotary:
        config = self.backbone
        theta, turned = (config.full_theta, config.turned) if kind == FULL else (config.sliding_theta, 1.0)
        if not self.fixed:
            return rotary(positions.float(), config.stack.head_dim, theta, turned)
        # Rows of a constant table: in an NPU's float16 the next number after an angle of 300 is 300.25.
        cos, sin = rotary(torch.arange(count).float(), config.stack.head_dim, theta, turned)
        return cos.index_select(0, positions), sin.index_select(0, positions)
