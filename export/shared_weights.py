"""One data file for graphs with the same weights: the step and every width of prefill.

In: graph files in one folder; the first has its weights in a data file. Out: the others, which use that file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from voxrill.devices.providers import data_file
from voxrill.runtime.bundle.contract import EXTERNAL_ABOVE

Bytes = NDArray[np.uint8]


def share_weights(first: Path, others: Iterable[Path]) -> None:
    """Let `others` take their weights from the data file of `first`, and remove their own.

    A graph stays as it is if it has no data file, or more than `EXTERNAL_ABOVE` bytes of weights that `first` lacks. If
    it has fewer, they move into the graph's own file.
    """
    if not data_file(first).is_file():
        return
    known = {tensor.name: tensor for tensor in _external(onnx.load(str(first), load_external_data=False))}
    for other in others:
        if data_file(other).is_file():
            _share(first, known, other)


def weights_size(graph: Path) -> int:
    """Bytes of a graph's file and of its weights in data files."""
    proto = onnx.load(str(graph), load_external_data=False)
    return graph.stat().st_size + sum(int(ExternalDataInfo(tensor).length or 0) for tensor in _external(proto))


def _share(first: Path, known: dict[str, onnx.TensorProto], other: Path) -> None:
    proto = onnx.load(str(other), load_external_data=False)
    # Equal names are not enough: the bytes decide.
    same = [tensor for tensor in _external(proto) if _is_known(first, known.get(tensor.name), _bytes(other, tensor))]
    own = [tensor for tensor in _external(proto) if tensor not in same]
    if sum(len(_bytes(other, tensor)) for tensor in own) > EXTERNAL_ABOVE:
        return
    for tensor in own:
        values = _bytes(other, tensor).tobytes()
        del tensor.external_data[:]
        tensor.data_location, tensor.raw_data = onnx.TensorProto.DEFAULT, values
    for tensor in same:
        del tensor.external_data[:]
        tensor.external_data.extend(known[tensor.name].external_data)
    onnx.save_model(proto, str(other))
    data_file(other).unlink()  # only now: until the graph is saved it needs the file


def _is_known(first: Path, tensor: onnx.TensorProto | None, values: Bytes) -> bool:
    return tensor is not None and np.array_equal(_bytes(first, tensor), values)


def _external(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]


def _bytes(graph: Path, tensor: onnx.TensorProto) -> Bytes:
    """A weight's bytes in its data file, memory-mapped."""
    where = ExternalDataInfo(tensor)
    return np.memmap(graph.parent / where.location, np.uint8, "r", int(where.offset or 0), (int(where.length or 0),))
