"""The `decoder` graph: the backbone's prefill and step in one, with conv state and KV cache passed in and out.

The cut is at embeddings and hidden states because text tokens, heard audio and spoken frames all enter as embeddings,
and because the text head is needed on text steps only.
"""

from __future__ import annotations

import torch
from torch import nn

from voxrill.export.layers import MASKED
from voxrill.export.lfm import LfmConfig, LfmStack


class Decoder(nn.Module):
    """Inputs and outputs as `contract.decoder` lists them.

    Args:
        config: the backbone's sizes.
        new_rows_only: `present.*` holds the S new KV rows (npu) instead of all P + S (cpu).
    """

    def __init__(self, config: LfmConfig, new_rows_only: bool = False) -> None:
        super().__init__()
        self.lfm = LfmStack(config)
        self.new_rows_only = new_rows_only

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """inputs_embeds (1, S, hidden), attention_mask (1, P + S) and state to hidden states and state."""
        length = inputs_embeds.shape[1]
        total = attention_mask.shape[1]
        known = total - length
        attended = attention_mask[0]
        heard = attended[:known].sum()
        positions = (heard + torch.arange(length)).float()
        columns = torch.arange(total)
        causal = columns[None, :] <= known + torch.arange(length)[:, None]
        bias = torch.where(causal & (attended > 0)[None, :], 0.0, MASKED)
        valid = attended[known:].sum()
        kept = valid + torch.arange(self.lfm.config.conv_cache)
        hidden, present = self.lfm(
            inputs_embeds,
            positions,
            bias,
            past,
            keep_conv=lambda whole: whole.index_select(-1, kept),
            keep_kv=lambda whole: whole[:, :, known:] if self.new_rows_only else whole,
        )
        return (hidden, *present)


class TextHead(nn.Module):
    """The `text_head` graph: logits of one position, the head tied to the token embeddings.

    The weight stays (vocab, hidden): rows of the same bytes are the embeddings the runtime gathers from the file.
    """

    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab, hidden))

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """(1, hidden) to (1, vocab)."""
        return nn.functional.linear(hidden_state, self.weight)
