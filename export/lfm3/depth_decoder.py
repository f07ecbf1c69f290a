"""The `depth_decoder` graph: one audio frame in a few passes, each of which draws some codebooks at once.

Every pass sees all codebooks: those that are drawn already as their codes, the others as a mask. The order comes from
outside, as a permutation (llama.cpp draws a new one for every frame), and so does the noise: the same inputs give the
same frame. Source: llama.cpp's implementation of LFM3-Audio.

Keys and values are needed of all codebooks, the rest of the last layer and the heads only of those that the pass draws.
A head that is not wanted gets no rows, so that its weights are not read. Its size is known at run time only; the graph
runs on the CPU in every flavour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.depthformer import draw
from voxrill.export.fused import attend_everywhere
from voxrill.export.layers import RMSNorm
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
        self.depthformer = Lfm3Stack(config.stack, fused=True)
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
        slots = self._slots(hidden_state)
        x, codes, kept = slots + self.mask_embedding, torch.zeros_like(permutation), torch.zeros_like(gumbel)
        for books in torch.split(permutation, list(self.config.passes)):
            books = books.sort().values  # the heads come in the order of the codebooks
            logits = self._heads(self._see(x, books), books)
            found = draw(_penalised(logits, penalty[books]), temperature, top_k, gumbel[books])
            codes, kept = codes.index_put((books,), found), kept.index_put((books,), logits)
            x = x.index_put((books,), slots[books] + self.depth_embeddings(found + books * self.config.codes))
        return codes, kept

    def _slots(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """What the hidden state says of each codebook: (codebooks, width)."""
        slots: torch.Tensor = self.depth_linear(hidden_state)
        return slots.reshape(self.config.codebooks, self.config.stack.hidden)

    def _see(self, x: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The layers over (codebooks, width), and both norms, for the codebooks `wanted` (n,): (n, width)."""
        stack, books = self.config.stack, torch.arange(self.config.codebooks).float()
        kind = stack.kinds[0]
        y, _ = self.depthformer(
            x[None],
            {kind: rotary(books, stack.head_dim, self.config.theta)},
            {kind: self._attend},
            [torch.empty(0)] * (2 * len(stack.kinds)),
            keep_conv=lambda whole: whole,
            wanted=wanted,
        )
        normed: torch.Tensor = self.head_norm(y)[0]
        return normed

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past: Past
    ) -> tuple[torch.Tensor, Past]:
        """Attention of all positions to all, without state."""
        return attend_everywhere(query, key, value, fused=True), past

    def _heads(self, x: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
        """Logits (n, codes) of the codebooks `books` (n,), in rising order, from their rows (n, width)."""
        counts = (books[:, None] == torch.arange(self.config.codebooks)).long().sum(0)  # 1 where a head is wanted
        if not torch.onnx.is_in_onnx_export():
            return torch.cat(
                [head(rows) for head, rows in zip(self.heads, torch.split(x, counts.tolist()), strict=True)]
            )
        # Each part is declared to have a row, and has one or none. The exporter then takes the sum for another.
        one = (1, x.shape[1])
        parts = torch.onnx.ops.symbolic_multi_out(
            "Split", (x, counts), {"axis": 0}, dtypes=(x.dtype,) * len(self.heads), shapes=(one,) * len(self.heads)
        )
        logits = [head(rows) for head, rows in zip(self.heads, parts, strict=True)]
        shape = (books.shape[0], self.config.codes)
        return torch.onnx.ops.symbolic("Concat", logits, {"axis": 0}, dtype=x.dtype, shape=shape)


def _penalised(logits: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    """Logits moved down by factors of at least 1: divided where they are positive, multiplied where not."""
    return torch.where(logits > 0, logits / penalty, logits * penalty)
