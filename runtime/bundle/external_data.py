"""Which files an ONNX graph keeps its weights in, read without the onnx package, which a device does not have.

In: a graph's file. Out: the locations that its tensors name. Older onnxruntimes (1.20) and onnx open whatever such a
location says, so a hostile bundle could make them read any file of the user. Only protobuf's framing is read, and the
weights are skipped: a graph of 57 MB with its weights inside takes 1 ms.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_KEY = b"location"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf. 3 and 4 are groups, and ONNX has no groups."""

_DEEPEST = 100
"""Messages in messages that protobuf itself reads."""

_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""For each message of ONNX: the fields that lead to a tensor's `external_data`, and the message that each holds."""

_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def external_locations(graph: Path) -> set[str]:
    """Every location that a tensor of an ONNX graph names.

    Raises:
        ValueError: the file is not protobuf, or a location is not text.
        OSError: it cannot be read.
    """
    with graph.open("rb") as file:
        if not file.read(1):  # an empty file cannot be mapped
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return {location.decode() for location in _locations(data, "model", 0, len(data), 0)}


def _locations(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[bytes]:
    """The locations in one message, which lies at `start` to `end`."""
    if depth > _DEEPEST:
        raise ValueError("its messages are nested too deep")
    inner = _MESSAGES[message]
    for field, first, last in _fields(data, start, end):
        kind = inner.get(field)
        if kind == "entry":
            yield from _location(data, first, last)
        # Most of a graph is nodes, and few hold a tensor. A search in C is much faster than the walk.
        elif kind is not None and (kind != "node" or data.find(_KEY, first, last) >= 0):
            yield from _locations(data, kind, first, last, depth + 1)


def _location(data: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    """The value in one pair of key and value, if the key is ours. A field may come twice; each counts."""
    found = [(field, data[first:last]) for field, first, last in _fields(data, start, end)]
    if (_ENTRY_KEY, _KEY) in found:
        yield from (value for field, value in found if field == _ENTRY_VALUE)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field that holds bytes, and where the bytes begin and end. Other fields are skipped."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise ValueError("a message is longer than what it lies in")
            yield tag >> 3, at, at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"it holds the wire type {kind}")
    if at != end:
        raise ValueError("a field is longer than what it lies in")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number in 7 bits a byte, the lowest first, and the place of the next byte."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
