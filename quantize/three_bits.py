"""What a product with 3-bit weights means where no kernel for 3 bits is: an ONNX function, which travels in the graph.

In: the opset of a graph. Out: the function `voxrill.MatMulNBits`. Where Voxrill's own library is registered, its kernel
takes the node. Everywhere else onnxruntime puts the function's nodes in its place. They make 4-bit weights of the
3-bit ones, the same numbers in more bytes. All their inputs are constant, so this happens once, when the graph is
loaded, and what runs is onnxruntime's own 4-bit product.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

DOMAIN, OPERATOR = "voxrill", "MatMulNBits"
ACCURACY_LEVEL = 4
"""Products multiply in 8-bit integers. Without this level they are several times slower."""

_PAIRS = (
    ((0, 0, 7), (0, 1, 0x70)),
    ((0, -6, 3), (1, 2, 4), (1, 3, 0x70)),
    ((1, -4, 7), (1, -3, 0x10), (2, 5, 0x60)),
    ((2, -2, 7), (2, -1, 0x70)),
)
"""Eight numbers of 3 bits lie in three bytes, the lowest bits first, and become four bytes of two numbers each. For
each of the four: which bytes, how far they are shifted to the left, and the bits that count."""


def three_bit_product(opset: int) -> onnx.FunctionProto:
    """The function for a graph of this opset (18 or newer)."""
    product = helper.make_node(
        OPERATOR,
        ["x", "four", "factors", "zeros"],
        ["y"],
        domain="com.microsoft",
        bits=4,
        accuracy_level=ACCURACY_LEVEL,
    )
    for name in ("K", "N", "block_size"):
        product.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=name, type=onnx.AttributeProto.INT))
    nodes = [
        *_weights(),
        helper.make_node("Cast", ["scales"], ["factors"], to=onnx.TensorProto.FLOAT),
        *_zero_points(),
        product,
    ]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    inputs = ["x", "three", "scales", "zero_points"]
    return helper.make_function(DOMAIN, OPERATOR, inputs, ["y"], nodes, imports, ["K", "N", "bits", "block_size"])


def _weights() -> Iterator[onnx.NodeProto]:
    """(columns, blocks, 3 n) bytes to (columns, blocks, 4 n)."""
    yield _constant("in_threes", np.array([0, 0, -1, 3]))
    yield helper.make_node("Reshape", ["three", "in_threes"], ["threes"])
    yield helper.make_node("Split", ["threes"], ["byte0", "byte1", "byte2"], axis=-1, num_outputs=3)
    for index, parts in enumerate(_PAIRS):
        names = [f"pair{index}_{number}" for number in range(len(parts))]
        for name, (byte, left, mask) in zip(names, parts, strict=True):
            yield from _masked(f"byte{byte}", left, mask, name)
        for number in range(1, len(parts)):
            before = names[0] if number == 1 else f"pair{index}_until{number - 1}"
            after = f"pair{index}" if number == len(parts) - 1 else f"pair{index}_until{number}"
            yield helper.make_node("BitwiseOr", [before, names[number]], [after])
    yield helper.make_node("Concat", [f"pair{index}" for index in range(len(_PAIRS))], ["pairs"], axis=-1)
    yield _constant("in_a_row", np.array([0, 0, -1]))
    yield helper.make_node("Reshape", ["pairs", "in_a_row"], ["four"])


def _masked(source: str, left: int, mask: int, target: str) -> Iterator[onnx.NodeProto]:
    """Shift to the left (or right, where `left` is negative), and keep the bits of `mask`."""
    direction = "LEFT" if left > 0 else "RIGHT"
    yield _constant(f"{target}_by", np.array(abs(left), np.uint8))
    yield _constant(f"{target}_mask", np.array(mask, np.uint8))
    yield helper.make_node("BitShift", [source, f"{target}_by"], [f"{target}_shifted"], direction=direction)
    yield helper.make_node("BitwiseAnd", [f"{target}_shifted", f"{target}_mask"], [target])


def _zero_points() -> Iterator[onnx.NodeProto]:
    """A byte for each block to two in a byte; an odd number of blocks gets one more."""
    yield helper.make_node("Shape", ["zero_points"], ["blocks"], start=1)
    yield _constant("two", np.array([2]))
    yield helper.make_node("Mod", ["blocks", "two"], ["odd"])
    yield _constant("none", np.array([0, 0, 0]))
    yield helper.make_node("Concat", ["none", "odd"], ["padding"], axis=0)
    yield _constant("zero", np.array(0, np.uint8))
    yield helper.make_node("Pad", ["zero_points", "padding", "zero"], ["even"])
    yield _constant("in_twos", np.array([0, -1, 2]))
    yield helper.make_node("Reshape", ["even", "in_twos"], ["twos"])
    yield helper.make_node("Split", ["twos"], ["low", "high"], axis=-1, num_outputs=2)
    yield from _masked("high", 4, 0xF0, "high_half")
    yield helper.make_node("BitwiseOr", ["low", "high_half"], ["halves"])
    yield _constant("flat", np.array([0, -1]))
    yield helper.make_node("Reshape", ["halves", "flat"], ["zeros"])


def _constant(name: str, values: NDArray[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))
