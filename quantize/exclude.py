"""What stays in float32, and why. Everything else that is large is quantised, unless a recipe says otherwise."""

from __future__ import annotations

FEW_NUMBERS = 4096
"""Smaller weights stay in float32: norms, biases, masks, tables of angles."""

REASONS = {
    "Conv": "onnxruntime's 8-bit convolution is slower than its float one, and these kernels are small: the encoder's "
    "are 1 % of its INT8 size",
}
"""By operator: why its weight stays in float32. Mimi's large convolutions are exported as products."""

STACKED = "a matrix for each attention head, of positions: folded from fixed shapes (the npu flavour), and small"
"""Why a weight of more than two dimensions stays in float32."""
