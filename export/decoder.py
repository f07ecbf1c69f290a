"""The `decoder` graph: the backbone's prefill and step in one, with conv state and KV cache passed in and out.

The graph begins at embeddings, because text tokens, heard audio and spoken frames all enter as embeddings. It ends at
hidden states, because only text steps need the text head.
"""

from __future__ import annotations

import torch
from torch import nn

from voxrill.export.fused import GROUPED
from voxrill.export.layers import attend, mirror_norms, score_bias
from voxrill.export.lfm import Attend, LfmConfig, LfmStack, Past, attend_all


class DecoderModule(nn.Module):
    """Inputs and outputs as `contract.decoder` lists them.

    Args:
        config: the backbone's sizes.
        fixed: build the npu flavour: plain operators, and `present.*` holds the S new KV rows only. Otherwise there are
            fused operators, and the KV cache is a buffer that onnxruntime's GroupQueryAttention writes into.
    """

    def __init__(self, config: LfmConfig, fixed: bool = False) -> None:
        super().__init__()
        self.lfm = LfmStack(config, fused=not fixed)
        self.fixed = fixed
        if fixed:
            mirror_norms(self)

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """inputs_embeds (1, S, hidden), attention_mask (1, P + S) and state to hidden states and state."""
        length = inputs_embeds.shape[1]
        known = attention_mask.shape[1] - length  # P: positions of the cache, with its padding
        heard = attention_mask[0, :known].sum()  # of them, those that hold something
        positions = heard + torch.arange(length)
        valid = attention_mask[0, known:].sum()  # new positions that are no padding
        # The conv state after the last valid position: `whole` begins with the old state, so it lies at `valid` there.
        kept = valid + torch.arange(self.lfm.config.conv_cache)
        hidden, present = self.lfm(
            inputs_embeds,
            self._rotary_fixed(positions, known + length) if self.fixed else self.lfm.config.rotary(positions.float()),
            self._attend_fixed(attention_mask, length) if self.fixed else self._attend_in_place(attention_mask),
            past,
            keep_conv=lambda whole: whole.index_select(-1, kept),
        )
        return (hidden, *present)

    def _rotary_fixed(self, positions: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of a constant table: in an NPU's float16 the next number after an angle of 300 is 300.25."""
        cos, sin = self.lfm.config.rotary(torch.arange(count).float())
        return cos.index_select(0, positions), sin.index_select(0, positions)

    def _attend_fixed(self, attention_mask: torch.Tensor, length: int) -> Attend:
        """Attention over a padded buffer and the new rows. Only the new rows are returned."""
        known = attention_mask.shape[1] - length
        seen = (attention_mask[0] > 0) & _causal(length, known)
        return attend_all(score_bias(seen), lambda whole: whole[:, :, known:])

    def _attend_in_place(self, attention_mask: torch.Tensor) -> Attend:
        """Attention over the first P + S rows of a buffer. The last S of them are written here."""
        if torch.onnx.is_in_onnx_export():
            total = attention_mask.sum(1).to(torch.int32)
            return lambda query, key, value, past: self._grouped(query, key, value, past, total)
        return lambda query, key, value, past: _written(query, key, value, past, attention_mask.shape[1])

    def _grouped(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past: Past, total: torch.Tensor
    ) -> tuple[torch.Tensor, Past]:
        config = self.lfm.config
        flat = [x.flatten(2) for x in (query, key, value)]
        mixed, keys, values = torch.onnx.ops.symbolic_multi_out(
            GROUPED,
            (*flat, *past, total - 1, total),
            {"num_heads": config.heads, "kv_num_heads": config.kv_heads},
            dtypes=(query.dtype,) * 3,
            shapes=(flat[0].shape, past[0].shape, past[1].shape),
            version=1,
        )
        return mixed, (keys, values)


def _causal(length: int, known: int) -> torch.Tensor:
    """(S, P + S): whether each new position sees each position."""
    return torch.arange(known + length)[None, :] <= known + torch.arange(length)[:, None]


def _written(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past: Past, total: int
) -> tuple[torch.Tensor, Past]:
    """GroupQueryAttention in torch: write rows P to P + S of the buffer, then attend to all rows up to there."""
    known = total - key.shape[1]
    keys, values = past[0].clone(), past[1].clone()
    keys[:, :, known:total] = key.transpose(1, 2)
    values[:, :, known:total] = value.transpose(1, 2)
    bias = score_bias(_causal(key.shape[1], known))
    mixed = attend(query.transpose(1, 2), keys[:, :, :total], values[:, :, :total], bias)
    return mixed, (keys, values)


class TextHeadModule(nn.Module):
    """The `text_head` graph: logits of one position. The head's weight is also the table of token embeddings.

    The weight stays (vocab, hidden), because the runtime reads its rows from the file as embeddings.
    """

    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, hidden))

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """(1, hidden) to (1, vocab)."""
        return nn.functional.linear(hidden_state, self.weight)
