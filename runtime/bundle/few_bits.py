"""Which graphs have products of few bits, and operators that our own library can run, read from their files.

In: a graph's file. Out: yes or no. A graph names its operators and domains in plain bytes, and searching for them takes
a millisecond; its weights are not read where they lie in a file of their own.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_PRODUCT = b"\x0bMatMulNBits"
"""The operator's name as ONNX stores it, behind its length."""
_BYTE_PRODUCTS = (b"\x15DynamicQuantizeMatMul", b"\x0dMatMulInteger")
"""The names of those that multiply 8-bit numbers, in the same way."""
_ATTENTION = b"\x11voxrill.attention"
"""The domain of our own attention, in the same way."""
_OWN_DOMAIN = b"\x0a\x07voxrill\x10\x01"
"""How an ONNX file imports version 1 of our own domain."""


def has_products(graph: Path) -> bool:
    """Whether a graph has products with weights of 2, 3 or 4 bits."""
    return _holds(graph, _PRODUCT)


def has_byte_products(graph: Path) -> bool:
    """Whether a graph has products of 8-bit numbers."""
    return any(_holds(graph, words) for words in _BYTE_PRODUCTS)


def has_own_attention(graph: Path) -> bool:
    """Whether a graph attends to an int8 KV cache with our own operator."""
    return _holds(graph, _ATTENTION)


def has_three_bits(graph: Path) -> bool:
    """Whether a graph has products with 3-bit weights: only such graphs import our own domain."""
    return _holds(graph, _OWN_DOMAIN)


def _holds(graph: Path, words: bytes) -> bool:
    try:
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(words) >= 0
    except (OSError, ValueError):  # missing or empty: onnxruntime says so
        return False
