"""The `depthformer` graph: one audio frame, codebook after codebook, sampled inside the graph.

The graph makes one whole frame, because 8 calls from Python would cost more than the sampling itself. Code i comes from
`depth_linear(hidden)[i] + embedding of code i-1`. Each codebook has its own norm and head; there is no final norm.
Source: the reference's `_sample_audio_frame`, RawLMBackbone and SharedEmbedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.checkpoint import Checkpoint
from voxrill.export.layers import RMSNorm, SwiGLU, attend, rotary_angles, rotate_pairs, split_heads

EPS = 1e-5
THETA = 1_000_000.0
"""Both are fixed in the reference (StandardBlock, MHA); config.json does not have them."""

_PREFIX = "depthformer.layers.0."


@dataclass(frozen=True)
class DepthformerConfig:
    """Sizes of the depthformer. Tensor shapes give those that config.json lacks."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    inner: int
    hidden: int
    codebooks: int
    vocab: int

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> DepthformerConfig:
        """Read config.json and the shapes of the first layer.

        Raises:
            CheckpointError: a config field or a tensor is missing.
        """
        shape = checkpoint.weights.shape
        dim = int(checkpoint.value("depthformer", "dim"))
        (head_dim,) = shape(_PREFIX + "operator.bounded_attention.q_layernorm.weight")
        kv_width = (shape(_PREFIX + "operator.qkv_proj.weight")[0] - dim) // 2
        return cls(
            layers=int(checkpoint.value("depthformer", "layers")),
            dim=dim,
            heads=dim // head_dim,
            kv_heads=kv_width // head_dim,
            inner=shape(_PREFIX + "feed_forward.w1.weight")[0],
            hidden=int(checkpoint.value("lfm", "hidden_size")),
            codebooks=int(checkpoint.value("codebooks")),
            vocab=shape("depth_embeddings.0.embedding.weight")[0],
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


class _Norms(nn.Module):
    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.q_layernorm = RMSNorm(config.head_dim, EPS)
        self.k_layernorm = RMSNorm(config.head_dim, EPS)


class _DepthAttention(nn.Module):
    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.config = config
        kv = config.kv_heads * config.head_dim
        self.qkv_proj = nn.Linear(config.dim, config.dim + 2 * kv, bias=False)
        self.out_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.bounded_attention = _Norms(config)

    def forward(
        self,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        cache: list[torch.Tensor],
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Steps (B, S, dim). `cache` holds the keys and values of earlier steps; the new ones are added to it."""
        config = self.config
        kv = config.kv_heads * config.head_dim
        parts = self.qkv_proj(x).split([config.dim, kv, kv], -1)
        query, key, value = (split_heads(part, config.head_dim) for part in parts)
        query = rotate_pairs(self.bounded_attention.q_layernorm(query), *rotary)
        key = rotate_pairs(self.bounded_attention.k_layernorm(key), *rotary)
        if cache:
            key, value = torch.cat([cache[0], key], 2), torch.cat([cache[1], value], 2)
        cache[:] = [key, value]
        y: torch.Tensor = self.out_proj(attend(query, key, value, bias))
        return y


class _DepthLayer(nn.Module):
    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.operator = _DepthAttention(config)
        self.feed_forward = SwiGLU(config.dim, config.inner)
        self.operator_norm = RMSNorm(config.dim, EPS)
        self.ffn_norm = RMSNorm(config.dim, EPS)

    def forward(
        self,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        cache: list[torch.Tensor],
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = x + self.operator(self.operator_norm(x), rotary, cache, bias)
        y: torch.Tensor = x + self.feed_forward(self.ffn_norm(x))
        return y


class _Stack(nn.Module):
    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_DepthLayer(config) for _ in range(config.layers))


class CodebookHead(nn.Module):
    """One codebook: the embedding of its codes, and the head that predicts its code."""

    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.embedding_norm = RMSNorm(config.dim, EPS)
        self.to_logits = nn.Linear(config.dim, config.vocab, bias=False)


class DepthformerModule(nn.Module):
    """Inputs and outputs as `contract.depthformer` lists them."""

    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.config = config
        self.depthformer = _Stack(config)
        self.depth_linear = nn.Linear(config.hidden, config.dim * config.codebooks)
        self.depth_embeddings = nn.ModuleList(CodebookHead(config) for _ in range(config.codebooks))

    def forward(
        self,
        hidden_state: torch.Tensor,
        temperature: torch.Tensor,
        top_k: torch.Tensor,
        gumbel: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden_state (1, hidden), temperature (1,), top_k (1,), gumbel (codebooks, vocab) to codes, logits."""
        config = self.config
        inputs = self.depth_linear(hidden_state).reshape(config.codebooks, 1, 1, config.dim)
        caches: list[list[torch.Tensor]] = [[] for _ in self.depthformer.layers]
        codes: list[torch.Tensor] = []
        all_logits: list[torch.Tensor] = []
        for i, book in enumerate(self.depth_embeddings):
            assert isinstance(book, CodebookHead)
            x = inputs[i]
            if i:
                previous = self.depth_embeddings[i - 1]
                assert isinstance(previous, CodebookHead)
                x = x + previous.embedding(codes[-1])[None]
            rotary = rotary_angles(torch.tensor([float(i)]), config.head_dim, THETA)
            for layer, cache in zip(self.depthformer.layers, caches, strict=True):
                x = layer(x, rotary, cache)
            logits = book.to_logits(book.embedding_norm(x))[0]
            codes.append(_sample(logits, temperature, top_k, gumbel[i : i + 1]))
            all_logits.append(logits)
        return torch.cat(codes), torch.cat(all_logits)


def _sample(logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, gumbel: torch.Tensor) -> torch.Tensor:
    """Draw a code (1,) from `logits` (1, vocab), of which only the `top_k` largest count.

    The largest sum of scaled logit and Gumbel noise is a draw from the softmax: the graph needs no random numbers.
    """
    ranked = logits.sort(-1, descending=True).values
    threshold = ranked.index_select(-1, top_k - 1)
    scores = logits / temperature + gumbel
    return torch.where(logits >= threshold, scores, -1e9).argmax(-1)
