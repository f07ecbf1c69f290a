"""One product in 8 and in 4 bits, alone in its graph: the result shows which kernel computed it.

Out, in a folder: `x.npy`; `int4.onnx`, as the quantiser writes it, with activations rounded to 8 bits;
`int4-float.onnx`, the same weights with float32 activations; `int8.onnx`; `int8-float.onnx`, its weights in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from voxrill.quantize.graph import quantize_graph
from voxrill.quantize.recipe import Recipe, Rule
from voxrill.quantize.weights import to_int8

ROWS, COLUMNS, BLOCK = 256, 128, 32


def write_products(folder: Path) -> None:
    """Write them all."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    np.save(folder / "x.npy", chance.standard_normal((1, ROWS)).astype(np.float32))
    weight = chance.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    plain = folder / "plain"
    _write(weight, plain)
    for bits in (8, 4):
        quantize_graph("g", plain, folder / f"int{bits}.onnx", Recipe("test", (Rule(bits, block=BLOCK),)))
    plain.unlink()
    matrix = to_int8(weight)
    _write(matrix.values * matrix.scales, folder / "int8-float.onnx")
    four = onnx.load_model(folder / "int4.onnx")
    (level,) = (attribute for attribute in four.graph.node[0].attribute if attribute.name == "accuracy_level")
    level.i = 1
    onnx.save_model(four, folder / "int4-float.onnx")


def _write(weight: np.ndarray, path: Path) -> None:
    """A graph that multiplies by one weight."""
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n]) for name, n in (("x", ROWS), ("y", COLUMNS))
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 20)]
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
