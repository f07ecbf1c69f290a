"""One graph from module to file: trace, name, check, strip.

In: a `GraphPlan`. Out: `NAME.onnx` (and `NAME.onnx.data` for large weights) whose inputs and outputs are the
contract's, and the parity report.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript.optimizer import fold_constants
from torch import nn

from voxrill.export.checkpoint import sensible_config
from voxrill.export.graphs import GraphPlan
from voxrill.export.onnx_config import check_parity, example_inputs
from voxrill.runtime.bundle.contract import EXTERNAL_ABOVE, TensorSpec

OPSET = 20
_ANY_SIZE = 1 << 30
"""With fixed shapes, everything that no input changes is computed at export: angles need more than an NPU's float16."""


def write_graph(plan: GraphPlan, directory: Path) -> list[dict[str, Any]]:
    """Build, trace, check and write one graph; returns the parity report.

    Raises:
        CheckpointError: the weights do not fit the config.
        ExportError: the graph differs from its module.
    """
    with sensible_config():
        module = plan.build()
    path = directory / f"{plan.spec.name}.onnx"
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    _trace(plan, module, path, external=plan.external or weights > EXTERNAL_ABOVE)
    _finish(plan, path)
    return check_parity(plan, module, path)


def _trace(plan: GraphPlan, module: nn.Module, path: Path, external: bool) -> None:
    inputs = example_inputs(plan, plan.trace)
    dynamic = {
        t.name: {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(t.shape) if isinstance(size, str)}
        for t in plan.spec.inputs
    }
    shapes = tuple(dynamic[t.name] for t in plan.spec.inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=[t.name for t in plan.spec.inputs],
            output_names=[t.name for t in plan.spec.outputs],
            dynamic_shapes=_by_parameter(module, shapes) if any(shapes) else None,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        if not any(shapes):
            fold_constants(program.model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
        program.save(str(path), external_data=external)


def _by_parameter(module: nn.Module, shapes: tuple[dict[int, Any], ...]) -> tuple[Any, ...]:
    """Dynamic shapes as `torch.export` wants them: positional, variadic inputs in a tuple of their own."""
    code = module.forward.__code__
    if not code.co_flags & 0x04:  # CO_VARARGS
        return shapes
    fixed = code.co_argcount - 1
    return (*shapes[:fixed], tuple(shapes[fixed:]))


def _finish(plan: GraphPlan, path: Path) -> None:
    """Put the contract's symbolic shapes on inputs and outputs, and drop what only the tracer needed."""
    proto = onnx.load(str(path), load_external_data=False)
    by_name = {t.name: t for t in (*plan.spec.inputs, *plan.spec.outputs)}
    for value in (*proto.graph.input, *proto.graph.output):
        _set_shape(value, by_name[value.name])
    # The tracer notes on every node where it came from, with paths of this machine.
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    proto.graph.doc_string = ""
    del proto.graph.metadata_props[:]
    for node in _all_nodes(proto.graph):
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    proto.producer_version = ""
    onnx.save_model(proto, str(path))


def _set_shape(value: onnx.ValueInfoProto, spec: TensorSpec) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in spec.shape:
        dim = shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                nodes += _all_nodes(attribute.g)
    return nodes
