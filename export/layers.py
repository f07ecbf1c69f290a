"""Layers that several graphs share: RMS norm, SwiGLU, rotary embeddings, and plain attention.

Parameters have the key names of the checkpoint, so loading is a strict match. Only operators that export to plain ONNX
are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

MASKED = -1e4
"""Added to the scores of positions that may not be seen. Float16 can hold it; -1e9 and -inf overflow."""


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps
        self.mirrored = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim) to (..., dim). Written as x / sqrt so that onnxruntime fuses it, or see `mirror_norms`."""
        if self.mirrored:
            width = x.shape[-1]
            return F.layer_norm(torch.cat([x, -x], -1), (2 * width,), eps=self.eps)[..., :width] * self.weight
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def mirror_norms(module: nn.Module) -> None:
    """Write every RMS norm in `module` as the layer norm of x and -x: their mean is 0, their variance the mean square.

    An NPU that computes with integers would round the squares to 16 bits. Their range is that of the loudest row, and
    the squares of a quiet one become 0, 1 or 2 steps. Inside its layer norm they are not rounded.
    """
    for part in module.modules():
        if isinstance(part, RMSNorm):
            part.mirrored = True


def score_bias(seen: torch.Tensor) -> torch.Tensor:
    """0 where `seen` is true, MASKED elsewhere; (...) float32.

    It is computed as a product, because the compiler for a v68 HTP fails on a selection between floats
    (QNN_COMMON_ERROR_MEM_ALLOC).
    """
    return (1.0 - seen.float()) * MASKED


class Joined(nn.Module):
    """Products of the same rows as one product, whose outputs lie side by side."""

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.sizes = [layer.out_features for layer in layers]
        self.product = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.product.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(..., in) to a (..., out) for each layer."""
        parts: tuple[torch.Tensor, ...] = self.product(x).split(self.sizes, -1)
        return parts


class SwiGLU(nn.Module):
    """Gated feed-forward w2(silu(w1 x) * w3 x) (Shazeer 2020)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, inner, bias=False)
        self.w3 = nn.Linear(dim, inner, bias=False)
        self.w2 = nn.Linear(inner, dim, bias=False)
        self.w13: Joined | None = None

    def join(self) -> None:
        """Make one product of the first two."""
        self.w13 = Joined(self.w1, self.w3)
        del self.w1, self.w3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim) to (..., dim)."""
        gate, up = (self.w1(x), self.w3(x)) if self.w13 is None else self.w13(x)
        y: torch.Tensor = self.w2(F.silu(gate) * up)
        return y


def rotary_angles(positions: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine (S, head_dim / 2) of the rotary angles at float `positions` (S,)."""
    powers = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    angles = positions[:, None] * (1.0 / theta**powers)
    return angles.cos(), angles.sin()


def rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding over the two halves of a head: the backbone and the LFM detokenizer."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def turned_back(rotary: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the opposite angles."""
    cos, sin = rotary
    return cos, -sin


def rotate_pairs(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding over interleaved pairs of a head: the depthformer and Mimi."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Grouped-query attention.

    query (B, heads, S, d); key and value (B, kv_heads, T, d); bias (S, T), added to the scores.
    Returns (B, S, heads * d).
    """
    batch, heads, length, dim = query.shape
    kv_heads = key.shape[1]
    # Query heads that share a key stand in an axis of their own: key and value are broadcast over it, and not copied.
    grouped = query.reshape(batch, kv_heads, heads // kv_heads, length, dim) * dim**-0.5
    scores = grouped @ key[:, :, None].transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    mixed: torch.Tensor = scores.softmax(-1) @ value[:, :, None]
    return mixed.reshape(batch, heads, length, dim).transpose(1, 2).reshape(batch, length, heads * dim)


def split_heads(x: torch.Tensor, head_dim: int) -> torch.Tensor:
    """(B, S, heads * head_dim) to (B, heads, S, head_dim)."""
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] // head_dim, head_dim).transpose(1, 2)


def swiglu_width(config_width: int, multiple: int, multiplier: float | None = 1.0) -> int:
    """The width of an auto-adjusted SwiGLU: 2/3 of the stated width, rounded up to `multiple`."""
    # Truncated twice, as in the reference: rounding once would give other widths for some multipliers.
    width = int(2 * config_width / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return multiple * -(-width // multiple)


class ConvProduct(nn.Conv1d):
    """A convolution over inputs that lie side by side, as one product. The weight keeps its published shape."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 1) -> None:
        super().__init__(width_in, width_out, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., kernel * in), oldest input first, to (..., out)."""
        return F.linear(x, matrix(self).t(), self.bias)


class TransposedConvProduct(nn.ConvTranspose1d):
    """What each input of a transposed convolution adds to the outputs. The weight keeps its published shape."""

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """(..., in) to (..., kernel * out)."""
        return x @ matrix(self)


Product = nn.Linear | ConvProduct | TransposedConvProduct


def matrix(layer: Product) -> torch.Tensor:
    """The weight of a product laid out (in, out), as ONNX MatMul wants it."""
    if isinstance(layer, TransposedConvProduct):  # (in, out, kernel)
        return layer.weight.transpose(1, 2).flatten(1)
    if isinstance(layer, ConvProduct):  # (out, in, kernel)
        return layer.weight.permute(2, 1, 0).flatten(0, 1)
    return layer.weight.t()


class MatMul(nn.Module):
    """A layer that is one product, as `x @ weight (+ bias)` with the weight stored (in, out).

    `nn.Linear` would export a Transpose that onnxruntime folds into a second copy of the weight.
    """

    def __init__(self, layer: Product) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix(layer).detach().contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


def linears_to_matmuls(module: nn.Module) -> nn.Module:
    """Replace every layer in `module` that is one product by `MatMul`, one at a time to save memory."""
    # One layer after the other, so that only one weight is in memory twice.
    for name, child in module.named_children():
        if isinstance(child, Product):
            setattr(module, name, MatMul(child))
        else:
            linears_to_matmuls(child)
    return module
