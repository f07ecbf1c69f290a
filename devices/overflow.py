"""Whether onnxruntime's products of 8-bit numbers overflow on this processor, and whether it has exact ones.

In: nothing. Out: yes or no, from one small product and from onnxruntime's version.

x86 without VNNI (Intel before Ice Lake and Alder Lake, AMD before Zen 4) adds two products of bytes in 16 bits, and
cuts off what does not fit. onnxruntime has exact products for such processors (`session_options`), but turns them on
for those with VNNI as well, where they are only slower. So the product is tried, and no list of processors is kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort

EXACT_FROM = (1, 30)
"""The first onnxruntime whose exact products take our graphs. 1.20 to 1.29 (each was tried) end the whole process at a
weight without a zero point, so they are never asked."""

_ROWS, _LARGEST, _WEIGHT = 32, 255, 127

_PRODUCT = (
    b'\x08\x05:>\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01gZ\t\n\x01a\x12\x04\n\x02\x08\x02Z\t\n\x01b\x12\x04\n'
    b"\x02\x08\x03b\t\n\x01y\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\n"
)
"""An ONNX file with one node: y = MatMulInteger(a, b), of uint8 and int8."""


@cache
def products_overflow() -> bool:
    """Whether large 8-bit numbers give wrong products here."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    a, b = np.full((1, _ROWS), _LARGEST, np.uint8), np.full((_ROWS, _ROWS), _WEIGHT, np.int8)
    (y,) = session.run(None, {"a": a, "b": b})
    return bool((y != _ROWS * _LARGEST * _WEIGHT).any())


def asks_exact() -> bool:
    """Whether onnxruntime is asked for exact products: they are wrong without, and this version has them."""
    return products_overflow() and ort_version() >= EXACT_FROM


def ort_version() -> tuple[int, ...]:
    """The first two numbers of onnxruntime's version."""
    return tuple(map(int, ort.__version__.split(".")[:2]))
