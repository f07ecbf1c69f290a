"""What stays in float32, and why. Everything else that holds many numbers is quantised, or a recipe says not to."""

from __future__ import annotations

FEW_NUMBERS = 4096
"""Weights smaller than this are left: norms, biases, masks, tables of angles."""

REASONS = {
    "Conv": "onnxruntime's 8-bit convolution is slower than its float one, and these kernels are small: the encoder's "
    "are 1 % of its INT8 size",
}
"""By operator: why its weight is left in float32. Mimi's convolutions, which are large, are exported as products."""

STACKED = "a matrix for each attention head, of positions: folded from fixed shapes (the npu flavour), and small"
"""Why a weight of more than two dimensions is left."""
