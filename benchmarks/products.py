"""onnxruntime's product kernels as a contender: what one position costs, by the bits of a weight, in a chain.

In: a number of threads. Out: the time of a chain of products half as long as a backbone, with the bytes of its weights
as the amount. It shows how close the kernels come to the memory's rate, and so how much faster a step could become.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.protocol import Call, Contender, serve
from voxrill.devices.providers import CPU, session_options
from voxrill.quantize.graph import CONTRIB
from voxrill.quantize.three_bits import ACCURACY_LEVEL

WIDTHS = (2048, 8192) * 12
"""The widths of backbone and feed-forward, in turn: 23 products, 193 MB in 4 bits, more than any cache holds."""
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB, 1)]
IR_VERSION = 9


class Products(Contender):
    """Chains of products. Each is made when it is first used."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._random = np.random.default_rng(0)
        self._chains: dict[tuple[int, int], tuple[ort.InferenceSession, int]] = {}

    def product(self, bits: int, block: int) -> Call:
        """All products of a chain, one position; the amount is bytes of weights.

        Args:
            bits: of a weight. 8 uses DynamicQuantizeMatMul; fewer use MatMulNBits.
            block: rows that share a scale; 0 for a whole column.
        """
        if (bits, block) not in self._chains:
            self._chains[bits, block] = self._chain(bits, block)
        session, size = self._chains[bits, block]
        x = self._random.standard_normal((1, WIDTHS[0])).astype(np.float32)

        def run() -> float:
            session.run(None, {"x0": x})
            return float(size)

        return run

    def _chain(self, bits: int, block: int) -> tuple[ort.InferenceSession, int]:
        nodes, weights = [], []
        for index, (rows, columns) in enumerate(pairwise(WIDTHS)):
            arrays = self._int8(rows, columns) if bits == 8 else self._packed(rows, columns, bits, block)
            names = [f"{part}{index}" for part in ("values", "scales", "zero_points")[: len(arrays)]]
            weights += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
            sizes = {"K": rows, "N": columns, "bits": bits, "block_size": block, "accuracy_level": ACCURACY_LEVEL}
            attributes: dict[str, Any] = {} if bits == 8 else sizes
            operator = "DynamicQuantizeMatMul" if bits == 8 else "MatMulNBits"
            ends = [f"x{index}", *names], [f"x{index + 1}"]
            nodes.append(helper.make_node(operator, *ends, domain=CONTRIB, **attributes))
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
            for name, width in (("x0", WIDTHS[0]), (f"x{len(nodes)}", WIDTHS[-1]))
        )
        graph = helper.make_graph(nodes, "products", [x], [y], weights)
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
        options = session_options(self._threads, repack=True)
        session = ort.InferenceSession(model.SerializeToString(), sess_options=options, providers=[CPU])
        return session, sum(len(weight.raw_data) for weight in weights)

    def _int8(self, rows: int, columns: int) -> list[np.ndarray]:
        """Values, and a scale for each column."""
        return [self._random.integers(-127, 128, (rows, columns), np.int8), np.full(columns, 1e-3, np.float32)]

    def _packed(self, rows: int, columns: int, bits: int, block: int) -> list[np.ndarray]:
        """Values of `bits` bits, and a scale and a zero point for each block."""
        blocks = rows // block
        values = self._random.integers(0, 256, (columns, blocks, block * bits // 8), np.uint8)
        points = self._random.integers(0, 256, columns * -(-blocks * bits // 8), np.uint8)
        return [values, np.full(columns * blocks, 1e-3, np.float32), points]


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    serve(lambda: Products(args.threads))


if __name__ == "__main__":
    main()
