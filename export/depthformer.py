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
from voxrill.export.fused import GROUPED_WIDTH, Rotary, add_and_norm, attend_in_turn, exporting
from voxrill.export.layers import RMSNorm, SwiGLU, attend, rotary_angles, rotate_pairs

EPS = 1e-5
THETA = 1_000_000.0
"""Both are fixed in the reference (StandardBlock, MHA); config.json does not have them."""

_PREFIX = "depthformer.layers.0."


@dataclass(frozen=True)
class DepthformerConfig:
    """Sizes of the depthformer. Tensor shapes give those that config.json lacks.

    fused: write onnxruntime's fused operators when it is exported.
    """

    layers: int
    dim: int
    heads: int
    kv_heads: int
    inner: int
    hidden: int
    codebooks: int
    vocab: int
    fused: bool = True

    @classmethod
    def read(cls, checkpoint: Checkpoint, fused: bool = True) -> DepthformerConfig:
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
            fused=fused,
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

    def forward(self, x: torch.Tensor, rotary: Rotary, cache: list[torch.Tensor], step: int) -> torch.Tensor:
        """A position (1, 1, dim). `cache` holds the keys and values of earlier ones; the new ones are added to it."""
        config = self.config
        kv = config.kv_heads * config.head_dim
        parts = self.qkv_proj(x).split([config.dim, kv, kv], -1)
        query, key, value = (part.unflatten(-1, (-1, config.head_dim)) for part in parts)
        query, key = self.bounded_attention.q_layernorm(query), self.bounded_attention.k_layernorm(key)
        whole = config.head_dim % GROUPED_WIDTH == 0
        mix = attend_in_turn if exporting(config.fused and whole) else _attend_plainly
        y: torch.Tensor = self.out_proj(mix(query, key, value, rotary, cache, step))
        return y


def _attend_plainly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary: Rotary, cache: list[torch.Tensor], step: int
) -> torch.Tensor:
    """`attend_in_turn` in torch."""
    now = tuple(angles[step : step + 1] for angles in rotary)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    query, key = rotate_pairs(query, *now), rotate_pairs(key, *now)
    if cache:
        key, value = torch.cat([cache[0], key], 2), torch.cat([cache[1], value], 2)
    cache[:] = [key, value]
    return attend(query, key, value, None)


class _DepthLayer(nn.Module):
    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.operator = _DepthAttention(config)
        self.feed_forward = SwiGLU(config.dim, config.inner)
        self.operator_norm = RMSNorm(config.dim, EPS)
        self.ffn_norm = RMSNorm(config.dim, EPS)


class _Stack(nn.Module):
    def __init__(self, config: DepthformerConfig) -> None:
        super().__init__()
        self.fused = config.fused
        self.layers = nn.ModuleList(_DepthLayer(config) for _ in range(config.layers))

    def forward(
        self, x: torch.Tensor, rotary: Rotary, caches: list[list[torch.Tensor]], step: int, last: RMSNorm
    ) -> torch.Tensor:
        """A position (1, 1, dim) through all layers, and the norm `last`."""
        layers = [layer for layer in self.layers if isinstance(layer, _DepthLayer)]
        normed: torch.Tensor = layers[0].operator_norm(x)
        following = [*(layer.operator_norm for layer in layers[1:]), last]
        for layer, cache, norm in zip(layers, caches, following, strict=True):
            y = layer.operator(normed, rotary, cache, step)
            x, normed = add_and_norm(layer.ffn_norm, x, y, self.fused)
            x, normed = add_and_norm(norm, x, layer.feed_forward(normed), self.fused)
        return normed


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
        rotary = rotary_angles(torch.arange(config.codebooks).float(), config.head_dim, THETA)
        caches: list[list[torch.Tensor]] = [[] for _ in self.depthformer.layers]
        books = [book for book in self.depth_embeddings if isinstance(book, CodebookHead)]
        codes: list[torch.Tensor] = []
        all_logits: list[torch.Tensor] = []
        for step, book in enumerate(books):
            x = inputs[step]
            if step:
                x = x + books[step - 1].embedding(codes[-1])[None]
            logits = book.to_logits(self.depthformer(x, rotary, caches, step, book.embedding_norm))[0]
            codes.append(draw(logits, temperature, top_k, gumbel[step : step + 1]))
            all_logits.append(logits)
        return torch.cat(codes), torch.cat(all_logits)


def draw(logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, gumbel: torch.Tensor) -> torch.Tensor:
    """Draw codes (n,) from `logits` (n, vocab), of which only the `top_k` largest count.

    The largest sum of scaled logit and Gumbel noise is a draw from the softmax: the graph needs no random numbers.
    """
    threshold = _largest(logits, top_k).amin(-1, keepdim=True)
    scores = logits / temperature + gumbel
    return torch.where(logits >= threshold, scores, -1e9).argmax(-1)


def _largest(logits: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` (1,) largest of `logits` (n, vocab)."""
    if not torch.onnx.is_in_onnx_export():
        return logits.topk(int(count)).values
    return torch.onnx.ops.symbolic_multi_out(
        "TopK", (logits, count), {}, dtypes=(logits.dtype, torch.int64), shapes=(logits.shape,) * 2
    )[0]
