"""What matrices are multiplied with on real turns: the inputs that GPTQ wants to know.

In: a float32 bundle's graph, the names of weights, recorded turns. Out: the inputs (n, rows) of each weight's product,
gathered by running the graph with those inputs as further outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from voxrill.devices.providers import CPU, data_file, session_options
from voxrill.quantize.graph import load_graph
from voxrill.quantize.turns import Turn
from voxrill.runtime.bundle import Bundle, link_file
from voxrill.runtime.contract import DECODER, DEPTHFORMER, KV_CAPACITY
from voxrill.runtime.depthformer import forced_noise
from voxrill.runtime.errors import UsageError
from voxrill.runtime.generate import Frame
from voxrill.runtime.model import Model

Array = NDArray[Any]
Floats = NDArray[np.float32]

CALIBRATED = (DECODER, DEPTHFORMER)
"""Graphs that can be calibrated: the others are not given 4 bits by any recipe that ships."""


def collect(model: Model, graph: str, weights: Sequence[str], turns: Sequence[Turn]) -> dict[str, Floats]:
    """Inputs of the products with `weights` of one graph of a float32 model.

    Raises:
        UsageError: a weight is in no product that runs, or the graph cannot be calibrated.
    """
    if graph not in CALIBRATED:
        raise UsageError(f"the recipe asks for gptq in {graph}", f"It works in {', '.join(CALIBRATED)}; use k_quant there")
    feeds = _decoder_feeds(model, turns) if graph == DECODER else _depthformer_feeds(model, turns)
    with tempfile.TemporaryDirectory() as folder:
        path, inputs = _exposed(model.bundle, graph, set(weights), Path(folder))
        missing = set(weights) - set(inputs.values())
        if missing:
            raise UsageError(f"gptq finds no product with {min(missing)} of {graph}", "Give that weight k_quant or round")
        return _gathered(path, inputs, feeds)


def _exposed(bundle: Bundle, graph: str, weights: set[str], folder: Path) -> tuple[Path, dict[str, str]]:
    """The graph with the inputs of those products as outputs, and which weight each of these is for."""
    source = bundle.path(bundle.manifest.graphs[graph].file)
    proto = load_graph(source)
    inputs = {
        f"{node.input[0]}|{node.input[1]}": (node.input[0], node.input[1])
        for node in proto.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    }
    for name, (given, _) in inputs.items():
        proto.graph.node.append(helper.make_node("Identity", [given], [name]))
        proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    path = folder / source.name
    onnx.save_model(proto, str(path))
    if data_file(source).is_file():
        link_file(data_file(source), data_file(path))
    return path, {name: weight for name, (_, weight) in inputs.items()}


def _gathered(path: Path, inputs: Mapping[str, str], feeds: Iterator[dict[str, Array]]) -> dict[str, Floats]:
    session = ort.InferenceSession(str(path), session_options(), providers=[CPU])
    found: dict[str, list[Floats]] = {weight: [] for weight in inputs.values()}
    for feed in feeds:
        for weight, rows in zip(inputs.values(), session.run(list(inputs), feed), strict=True):
            found[weight].append(rows.reshape(-1, rows.shape[-1]))
    return {weight: np.concatenate(rows) for weight, rows in found.items()}


def _decoder_feeds(model: Model, turns: Sequence[Turn]) -> Iterator[dict[str, Array]]:
    """Every turn whole, from an empty state."""
    for turn in turns:
        count = len(turn.rows)
        feed: dict[str, Array] = {
            "inputs_embeds": turn.rows[None],
            "attention_mask": np.ones((1, count), np.int64),
        }
        for tensor in model.manifest.specs()[DECODER].state:
            shape = [count if size == KV_CAPACITY else int(size) for size in tensor.shape]
            feed[tensor.name] = np.zeros(shape, np.float32)
        yield feed


def _depthformer_feeds(model: Model, turns: Sequence[Turn]) -> Iterator[dict[str, Array]]:
    """Every frame that was spoken, from the hidden state it came from."""
    backbone, codes = model.parts.backbone, model.manifest.model.codes
    for turn in turns:
        hidden = backbone.forward(turn.rows, backbone.new_state())
        for step, state in turn.answered(hidden):
            if isinstance(step, Frame):
                yield {
                    "hidden_state": state[None],
                    "temperature": np.ones(1, np.float32),
                    "top_k": np.full(1, codes.vocab_size, np.int64),
                    "gumbel": forced_noise(step.codes, codes),
                }
