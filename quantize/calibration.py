"""What matrices are multiplied with on real turns, for GPTQ.

In: a float32 model, one of its graphs and recorded turns. Out: for each weight, the second moments of the inputs of its
products. They are gathered by a copy of the graph that has those inputs as additional outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from voxrill.devices.providers import CPU, data_file, session_options
from voxrill.quantize.graph import Weight, load_graph
from voxrill.quantize.turns import CapturedTurn
from voxrill.runtime.bundle.bundle import Bundle, link_file
from voxrill.runtime.bundle.contract import DECODER, DEPTH_DECODER, DEPTHFORMER, KV_CAPACITY
from voxrill.runtime.engine.depthformer import forced_noise
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Frame
from voxrill.runtime.errors import DataError, UsageError

Array = NDArray[Any]
Floats = NDArray[np.float32]

CALIBRATED = (DECODER, DEPTHFORMER, DEPTH_DECODER)
"""Graphs that can be calibrated. No shipped recipe gives 4 bits to the others."""

AT_ONCE = 1 << 30
"""Bytes of second moments to gather in one pass over the turns."""


class Calibration:
    """Second moments of the inputs of one graph's products.

    Weights are asked for in order. One pass gathers the moments of as many following weights as fit into `AT_ONCE`.

    Args:
        model: the float32 model.
        graph: the graph's name.
        weights: the weights that will be asked for, in that order.
        turns: what to run the graph on.

    Raises:
        DataError: the recipe names a graph that cannot be calibrated.
        UsageError: no step of the turns runs the graph.
    """

    def __init__(self, model: Engine, graph: str, weights: Sequence[Weight], turns: Sequence[CapturedTurn]) -> None:
        if graph not in CALIBRATED:
            raise DataError(
                f"the recipe asks for gptq in {graph}", f"It works in {', '.join(CALIBRATED)}; use k_quant there"
            )
        self._bundle, self._graph, self._weights = model.bundle, graph, list(weights)
        self._feeds = list((_decoder_feeds if graph == DECODER else _depthformer_feeds)(model, turns))
        if not self._feeds:
            raise UsageError(f"the sounds of --audio never make {graph} run", "Give sounds that the model answers")
        self._known: dict[str, Floats] = {}

    def moments(self, name: str) -> Floats:
        """Second moments (rows, rows) of one weight's inputs."""
        if name not in self._known:
            self._known = self._gather(self._next(name))
        return self._known[name]

    def _next(self, name: str) -> list[str]:
        """This weight, and as many following ones as fit into `AT_ONCE`."""
        names = [weight.name for weight in self._weights]
        chosen, size = [name], 0
        for weight in self._weights[names.index(name) :]:
            size += 4 * weight.shape[0] ** 2
            if size > AT_ONCE:
                break
            chosen.append(weight.name)
        return list(dict.fromkeys(chosen))

    def _gather(self, names: Sequence[str]) -> dict[str, Floats]:
        with tempfile.TemporaryDirectory(prefix=".calibration-", dir=self._bundle.directory.parent) as folder:
            path, inputs = _exposed(self._bundle, self._graph, set(names), Path(folder))
            session = ort.InferenceSession(str(path), session_options(), providers=[CPU])
            sums: dict[str, Floats] = {}
            for feed in self._feeds:
                for weight, given in zip(inputs.values(), session.run(list(inputs), feed), strict=True):
                    rows = given.reshape(-1, given.shape[-1])
                    sums[weight] = sums.get(weight, 0) + rows.T @ rows  # over all its nodes
        return sums


def _exposed(bundle: Bundle, graph: str, weights: set[str], folder: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the graph with the inputs of those products as outputs; and the weight of each such output."""
    source = bundle.path(bundle.manifest.graphs[graph].file)
    proto = load_graph(source)
    # A weight may be used by several nodes (the depthformer's by eight), and each has an input of its own. Two products
    # of one input (query and key) would give two outputs of one name, so the name has both.
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


def _decoder_feeds(model: Engine, turns: Sequence[CapturedTurn]) -> Iterator[dict[str, Array]]:
    """Every turn as one call, from an empty state."""
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


def _depthformer_feeds(model: Engine, turns: Sequence[CapturedTurn]) -> Iterator[dict[str, Array]]:
    """Every spoken frame, with the hidden state that it came from."""
    backbone, codes = model.parts.backbone, model.manifest.model.codes
    for turn in turns:
        hidden = backbone.forward(turn.rows, backbone.new_state())
        for step, state in turn.answered(hidden):
            if isinstance(step, Frame):
                feed: dict[str, Array] = {
                    "hidden_state": state[None],
                    "temperature": np.ones(1, np.float32),
                    "top_k": np.full(1, codes.vocab_size, np.int64),
                    "gumbel": forced_noise(step.codes, codes),
                }
                if model.manifest.model.frame_decoder == DEPTH_DECODER:
                    feed["permutation"] = np.arange(codes.codebooks)
                    feed["penalty"] = np.ones(feed["gumbel"].shape, np.float32)
                yield feed
