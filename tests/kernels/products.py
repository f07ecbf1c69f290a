"""Products for the tests: random weights in the layout of MatMulNBits, their model, and what they are in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from voxrill.devices.kernels import DOMAIN, OPERATOR, register

BITS, BLOCKS = (2, 3, 4, 8), (32, 64, 128, 256)


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of `bits` bits along the last axis as one little-endian stream of bits; whole bytes."""
    spread = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1, bitorder="little")[..., :bits]
    return np.packbits(spread.reshape(*values.shape[:-1], -1), axis=-1, bitorder="little")


@dataclass
class RandomProduct:
    """A weight (rows, columns) of some bits, by blocks of columns. seed: of its numbers."""

    columns: int
    rows: int
    bits: int
    block: int
    asymmetric: bool = True
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        blocks = -(-self.columns // self.block)
        self.values = random.integers(0, 1 << self.bits, (self.rows, blocks, self.block), np.uint8)
        self.scales = random.uniform(0.5, 2, (self.rows, blocks)).astype(np.float16) / np.float16(1 << self.bits)
        self.points = random.integers(0, 1 << self.bits, (self.rows, blocks), np.uint8)
        if not self.asymmetric:
            self.points[:] = 1 << (self.bits - 1)

    def initializers(self) -> dict[str, np.ndarray]:
        """The inputs B, scales and zero_points as the operator wants them."""
        scales = self.scales if self.half else self.scales.astype(np.float32)
        named = {"B": packed(self.values, self.bits), "scales": scales}
        if self.asymmetric:
            named["zero_points"] = self.points if self.bits == 3 else packed(self.points, self.bits)
        return named

    def model(self, domain: str = DOMAIN, initializers: dict[str, np.ndarray | None] | None = None) -> bytes:
        """The operator alone in a graph; x of any rank that ends with the columns. What is None is left out."""
        given = self.initializers() if initializers is None else initializers
        attributes = {"K": self.columns, "N": self.rows, "bits": self.bits, "block_size": self.block}
        names = [name if array is not None else "" for name, array in given.items()]
        node = helper.make_node(OPERATOR, ["x", *names], ["y"], domain=domain, accuracy_level=4, **attributes)
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
        weights = [numpy_helper.from_array(array, name) for name, array in given.items() if array is not None]
        graph = helper.make_graph([node], "g", [x], [y], weights)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()

    def session(
        self, threads: int = 1, domain: str = DOMAIN, own: bool = False, **model: object
    ) -> ort.InferenceSession:
        """A session of the model. The library is registered for our own domain only, unless `own` is set."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        if own or domain == DOMAIN:
            register(options)
        return ort.InferenceSession(self.model(domain, **model), options, providers=["CPUExecutionProvider"])

    def weight(self, every: int = 1) -> np.ndarray:
        """The numbers that every so many rows of the weight stand for: float64 (rows, columns)."""
        numbers = self.values[::every] - self.points[::every, :, None].astype(np.float64)
        return (numbers * self.scales[::every, :, None]).reshape(len(numbers), -1)[:, : self.columns]

    def reference(self, x: np.ndarray, every: int = 1) -> np.ndarray:
        """x (rows of activations, columns) times every so many rows of the weight, in float64.

        The activations are rounded to 8 bits by blocks.
        """
        blocks = self.values.shape[1]
        whole = np.zeros((len(x), blocks * self.block), np.float32)
        whole[:, : self.columns] = x
        cut = whole.reshape(len(x), blocks, self.block)
        largest = np.abs(cut).max(-1, keepdims=True)
        with np.errstate(all="ignore"):
            rounded = np.where(largest >= 2.0**-100, np.rint(cut * (np.float32(127) / largest)), 0).astype(np.float64)
            values = rounded * (largest / np.float32(127))
        return values.reshape(len(x), -1)[:, : self.columns] @ self.weight(every).T


def activations(product: RandomProduct, rows: int, seed: int = 1) -> np.ndarray:
    """Random activations with some large numbers, as a model has them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, product.columns)).astype(np.float32)
    x[:, :: max(1, product.columns // 3)] *= 30
    return x
