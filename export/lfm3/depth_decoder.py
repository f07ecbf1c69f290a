"""The `depth_decoder` graph: one audio frame in a few passes, each of which draws some codebooks at once.

Every pass sees all codebooks: those that are drawn already as their codes, the others as a mask. The order comes from
outside, as a permutation, and so does the noise: the same inputs give the same frame. Source: llama.cpp's
implementation of LFM3-Audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.layers import RMSNorm, attend
from voxrill.export.lfm import Past
from voxrill.export.lfm3.stack import Lfm3Stack, StackConfig, rotary


@dataclass(frozen=True)
class DepthConfig:
    """Sizes of the depth decoder. hidden: the backbone's; passes: codebooks drawn in each pass."""

    stack: StackConfig
    hidden: int
    codebooks: int
    codes: int
    passes: tuple[int, ...]
    theta: float


class DepthDecoderModule(nn.Module):
    """Inputs and outputs as `contract.depth_decoder` lists them."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        width = config.stack.hidden
        self.depth_linear = nn.Linear(config.hidden, width * config.codebooks)
        # The same numbers twice, as rows to look up and as heads: products want them the other way round.
        self.depth_embeddings = nn.Embedding(config.codebooks * config.codes, width)
        self.heads = nn.ModuleList(nn.Linear(width, config.codes, bias=False) for _ in range(config.codebooks))
        self.mask_embedding = nn.Parameter(torch.zeros(width))
        self.depthformer = Lfm3Stack(config.stack)
        self.head_norm = RMSNorm(width, config.stack.eps)

    def forward(
        self,
        hidden_state: torch.Tensor,
        temperature: torch.Tensor,
        top_k: torch.Tensor,
        gumbel: torch.Tensor,
        permutation: torch.Tensor,
        penalty: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame.

        Args:
            hidden_state: (1, hidden).
            temperature: (1,).
            top_k: (1,).
            gumbel: (codebooks, codes).
            permutation: (codebooks,), the order of the codebooks.
            penalty: (codebooks, codes), factors of at least 1.

        Returns:
            codes (codebooks,), and the logits (codebooks, codes) of the pass that drew each, before penalties.
        """
        config = self.config
        books = torch.arange(config.codebooks)
        # The place of each codebook in the permutation; sums of products, because an NPU has no scatter.
        place = ((permutation[None] == books[:, None]).long() * books).sum(-1)
        slots = self.depth_linear(hidden_state).reshape(config.codebooks, config.stack.hidden)
        codes, kept, first = torch.zeros_like(permutation), torch.zeros_like(gumbel), 0
        for count in config.passes:
            logits = self._logits(slots, codes, place < first)
            drawn = (place >= first) & (place < first + count)
            found = _draw(_penalised(logits, penalty), temperature, top_k, gumbel)
            codes, kept = torch.where(drawn, found, codes), torch.where(drawn[:, None], logits, kept)
            first += count
        return codes, kept

    def _logits(self, slots: torch.Tensor, codes: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """One pass: logits (codebooks, codes) of all codebooks, of which some codes are `known` (codebooks,)."""
        config = self.config
        rows = self.depth_embeddings(codes + torch.arange(config.codebooks) * config.codes)
        x = (slots + torch.where(known[:, None], rows, self.mask_embedding))[None]
        angles = rotary(torch.arange(config.codebooks).float(), config.stack.head_dim, config.theta)
        kind = config.stack.kinds[0]
        nothing = [torch.empty(0)] * (2 * len(config.stack.kinds))
        x, _ = self.depthformer(x, {kind: angles}, {kind: _attend_everywhere}, nothing, keep_conv=lambda whole: whole)
        x = self.head_norm(x)[0]
        return torch.cat([head(x[book : book + 1]) for book, head in enumerate(self.heads)])


def _attend_everywhere(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past: Past
) -> tuple[torch.Tensor, Past]:
    """Attention of all positions to all, without state."""
    return attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), None), past


def _penalised(logits: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    """Logits moved down by factors of at least 1: divided where they are positive, multiplied where not."""
    return torch.where(logits > 0, logits / penalty, logits * penalty)


def _draw(logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, gumbel: torch.Tensor) -> torch.Tensor:
    """Codes (n,) drawn from logits (n, codes), of which only the `top_k` largest count; see `depthformer._sample`."""
    ranked = logits.sort(-1, descending=True).values
    threshold = ranked.index_select(-1, top_k - 1)
    return torch.where(logits >= threshold, logits / temperature + gumbel, -1e9).argmax(-1)
