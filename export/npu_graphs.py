"""Checks of a graph for an NPU without compiling it: all shapes are numbers, and all operators are known to run.

In: a graph file. Out: nothing, or an error that names the node and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import helper
from onnx.external_data_helper import uses_external_data
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

from voxrill.devices.qnn import OPERATORS
from voxrill.runtime.errors import BundleError

_REMEDY = "Export with --flavour npu"
_REMEDIES = {
    "DynamicQuantizeMatMul": "Quantise with --recipe npu-int4 or npu-a16w8",
    "DynamicQuantizeLinear": "Quantise with --recipe npu-int4 or npu-a16w8",
}


def check_graph(path: Path) -> None:
    """Refuse a graph that no NPU would run as it is.

    Raises:
        BundleError: a dimension is not a number, or an operator is not among those that are known to run.
    """
    proto = onnx.load(str(path), load_external_data=False)
    for node in proto.graph.node:
        if node.op_type not in OPERATORS:
            raise BundleError(
                f"{path.name}: node {node.name} is a {node.op_type}, which the NPU does not run",
                _REMEDIES.get(node.op_type, _REMEDY),
            )
    for value in (*proto.graph.input, *proto.graph.output):
        _check_shape(path, f"{value.name}", value)
    known = _inferred(path, proto)
    for node in proto.graph.node:
        for output in node.output:
            if output not in known:
                raise BundleError(f"{path.name}: the shape of {output}, of node {node.name}, is not known", _REMEDY)
            _check_shape(path, f"{output}, of node {node.name},", known[output])


def _inferred(path: Path, proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Strict shape inference, by onnxruntime: onnx's own knows neither 4-bit products nor 16-bit QDQ."""
    try:
        inferred = SymbolicShapeInference.infer_shapes(_without_weights(proto))
    except Exception as error:  # it raises plain Exceptions, whose messages have several lines
        raise BundleError(f"{path.name}: its shapes contradict each other ({error})", _REMEDY) from None
    values: Iterator[onnx.ValueInfoProto] = iter((*inferred.graph.value_info, *inferred.graph.output))
    return {value.name: value for value in values if value.type.tensor_type.HasField("shape")}


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with the weights of data files as inputs: no shape depends on them, and they are not read."""
    copy: onnx.ModelProto = onnx.ModelProto.FromString(proto.SerializeToString())
    apart = [tensor for tensor in copy.graph.initializer if uses_external_data(tensor)]
    for tensor in apart:
        copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        copy.graph.initializer.remove(tensor)
    return copy


def _check_shape(path: Path, what: str, value: onnx.ValueInfoProto) -> None:
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if not size.HasField("dim_value"):
            symbol = size.dim_param or "unknown"
            raise BundleError(f"{path.name}: axis {axis} of {what} is dynamic ({symbol})", _REMEDY)
