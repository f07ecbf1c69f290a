"""How fast products of one position with 8-bit and 4-bit weights are here: what a decode step is made of.

In: bits and threads. Out: weights a second, by onnxruntime's own kernels on a chain of products larger than the usual
caches. Nothing on a device writes ONNX files, so the few fields that a chain takes are encoded here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from voxrill.devices.memory import available_memory
from voxrill.devices.providers import CPU, session_options

Bits = Literal[4, 8]

WIDTH, PRODUCTS = 2048, 24
"""Of the products, all square: 101e6 weights, 50 MB in 4 bits."""
BLOCK = 128
SECONDS = 0.6
"""Of measuring, after the first pass."""

_MEMORY = 6 * WIDTH * WIDTH * PRODUCTS
"""Bytes that must be free: a small machine gets fewer products instead."""
_OPSET, _IR_VERSION = 20, 9
_FLOAT, _UINT8, _INT8 = 1, 2, 3
_TYPES = {np.dtype(np.float32): _FLOAT, np.dtype(np.uint8): _UINT8, np.dtype(np.int8): _INT8}
_INT_ATTRIBUTE = 2
_CONTRIB = "com.microsoft"


def product_rate(bits: Bits, threads: int) -> float:
    """Weights a second, at best."""
    free = available_memory()
    count = PRODUCTS if free is None else max(2, min(PRODUCTS, PRODUCTS * free // _MEMORY))
    options = session_options(threads, repack=True)
    session = ort.InferenceSession(chain(bits, count), sess_options=options, providers=[CPU])
    x = np.random.default_rng(0).standard_normal((1, WIDTH)).astype(np.float32)
    session.run(None, {"x0": x})
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"x0": x})
        times.append(time.perf_counter() - start)
    return count * WIDTH * WIDTH / min(times)


def chain(bits: Bits, count: int) -> bytes:
    """An ONNX model: `x0` (1, WIDTH) times `count` matrices, one after the other, alike but each in its own memory."""
    weights = _weights(bits)
    sizes = {"K": WIDTH, "N": WIDTH, "bits": bits, "block_size": BLOCK, "accuracy_level": 4} if bits == 4 else {}
    operator = "MatMulNBits" if bits == 4 else "DynamicQuantizeMatMul"
    nodes = b"".join(
        _node(operator, [f"x{n}", *(f"{name}{n}" for name in weights)], f"x{n + 1}", sizes) for n in range(count)
    )
    initializers = b"".join(
        _bytes(5, _tensor(f"{name}{n}", array)) for n in range(count) for name, array in weights.items()
    )
    edges = _bytes(11, _float_row("x0")) + _bytes(12, _float_row(f"x{count}"))
    graph = nodes + _bytes(2, b"chain") + initializers + edges
    opsets = (_bytes(8, _bytes(1, name.encode()) + _int(2, version)) for name, version in (("", _OPSET), (_CONTRIB, 1)))
    return _int(1, _IR_VERSION) + _bytes(7, graph) + b"".join(opsets)


def _weights(bits: Bits) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    if bits == 8:
        values = random.integers(-127, 128, (WIDTH, WIDTH), np.int8)
        return {"values": values, "scales": np.full(WIDTH, 1e-3, np.float32)}
    blocks = WIDTH // BLOCK
    values4 = random.integers(0, 256, (WIDTH, blocks, BLOCK // 2), np.uint8)
    return {"values": values4, "scales": np.full(WIDTH * blocks, 1e-3, np.float32)}


# ONNX's protobuf: a field is its number and kind, then a number, or bytes with their length.


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes(_sevens(value))


def _sevens(value: int) -> Iterator[int]:
    while value > 127:
        yield value & 127 | 128
        value >>= 7
    yield value


def _node(operator: str, inputs: list[str], output: str, attributes: dict[str, int]) -> bytes:
    """A graph's field: NodeProto."""
    parts = [_bytes(1, name.encode()) for name in inputs]
    parts += [_bytes(2, output.encode()), _bytes(4, operator.encode())]
    parts += [
        _bytes(5, _bytes(1, name.encode()) + _int(3, value) + _int(20, _INT_ATTRIBUTE))
        for name, value in attributes.items()
    ]
    return _bytes(1, b"".join([*parts, _bytes(7, _CONTRIB.encode())]))


def _tensor(name: str, array: NDArray[Any]) -> bytes:
    """TensorProto."""
    dims = b"".join(_int(1, size) for size in array.shape)
    return dims + _int(2, _TYPES[array.dtype]) + _bytes(8, name.encode()) + _bytes(9, array.tobytes())


def _float_row(name: str) -> bytes:
    """ValueInfoProto of a float (1, WIDTH)."""
    shape = b"".join(_bytes(1, _int(1, size)) for size in (1, WIDTH))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _int(1, _FLOAT) + _bytes(2, shape)))
