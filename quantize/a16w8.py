"""Activations in 16 bits, weights in 8 bits, by static QDQ: the form for NPUs that compute with integers only.

In: a float32 bundle of the npu flavour, and sounds to calibrate it with. Out: its NPU graphs with QuantizeLinear and
DequantizeLinear around every operator; the ranges come from real turns. onnxruntime does the work, with its QNN
settings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

from voxrill.quantize.turns import CapturedTurn, record
from voxrill.runtime.bundle import contract
from voxrill.runtime.bundle.contract import GraphSpec
from voxrill.runtime.engine.audio_encoder import AudioEncoder
from voxrill.runtime.engine.backbone import Backbone
from voxrill.runtime.engine.codec import Codec
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Frame

Array = NDArray[Any]
Floats = NDArray[np.float32]
Feeds = list[dict[str, Array]]

A16W8 = "a16w8"
MASK_DEPTH = 60.0
"""Range of attention scores on both sides of 0; in 16 bits a step is 0.002. If the range held masks of -1e4, a step
would be 0.15. A score that is this much lower than another weighs e^-60, which is nothing."""
PLACES = 8
"""At so many places of the context, evenly apart, words in random order are read for calibration."""
STEPS = 8
"""How many words are read one by one at each of them."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives onnxruntime one feed after the other."""

    def __init__(self, feeds: Iterable[dict[str, Array]]) -> None:
        self._feeds = list(feeds)
        self.rewind()

    def get_next(self) -> dict[str, Array] | None:
        """The next feed; None after the last."""
        return next(self._left, None)

    def rewind(self) -> None:
        """Begin again."""
        self._left = iter(self._feeds)


class FeedRecorder:
    """Keeps all feeds of a graph. The runtime's stages use it like a `Graph`."""

    def __init__(self, graph: Any, feeds: Feeds) -> None:
        self._graph, self._feeds = graph, feeds
        self.spec: GraphSpec = graph.spec

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, and keep a copy of the feeds."""
        self._feeds.append({name: array.copy() for name, array in feeds.items()})
        outputs: dict[str, Array] = self._graph.run(feeds)
        return outputs


def record_feeds(model: Engine, sounds: Sequence[Floats]) -> dict[str, Feeds]:
    """The feeds of each graph without sampling while `model` answers `sounds`, each (samples,) at 16 kHz, in speech.

    Sounds and their answers hold few of the words that may be typed: each graph of the backbone reads others too.
    """
    spec, static = model.manifest.model, model.manifest.static
    assert static is not None, "the caller checks that it is of the npu flavour"
    names = (contract.AUDIO_ENCODER, contract.DECODER, *static.prefills, spec.codec.graph)
    feeds: dict[str, Feeds] = {name: [] for name in names}
    graphs: dict[str, Any] = {name: FeedRecorder(model.graphs[name], kept) for name, kept in feeds.items()}
    encoder = AudioEncoder(graphs[contract.AUDIO_ENCODER], spec.log_mel, model.times, static.mel_frames, spec.encoder)
    backbones = [
        Backbone(
            graphs[contract.DECODER],
            model.graphs[contract.TEXT_HEAD],
            [graphs[name]],
            static.context,
            spec.backbone.max_positions,
        )
        for name in static.prefills
    ]
    codec = Codec(graphs[spec.codec.graph], spec.codec, spec.codes, static.frames)
    for sound in sounds:
        encoder.encode(sound)
        _replay(record(model, sound, model.manifest.tasks.chat), backbones, codec)
    _read_words(model, backbones)
    return feeds


def _replay(turn: CapturedTurn, backbones: Sequence[Backbone], codec: Codec) -> None:
    """Run a recorded turn: the prompt through each prefill graph, and after the last one the answer."""
    for backbone in backbones:
        state = backbone.new_state()
        backbone.forward(turn.rows[: turn.prompt], state)
    # The backbone of the last prefill graph has read the prompt: it goes on with its state.
    stream = codec.stream()
    for row in turn.rows[turn.prompt :]:
        backbone.forward(row[None], state)
    for step in turn.steps:
        if isinstance(step, Frame) and codec.decodes(step.codes):
            stream.push(step.codes[:, None])


def _read_words(model: Engine, backbones: Sequence[Backbone]) -> None:
    """Run random words: at each place, those before it through each prefill graph, and some after it one by one."""
    table, static, chance = model.manifest.text_embeddings, model.manifest.static, np.random.default_rng(1)
    assert static is not None, "the caller checks that it is of the npu flavour"
    for start in np.linspace(0, static.context - STEPS, PLACES, dtype=int):
        rows = model.bundle.table(table).rows(chance.integers(0, table.shape[0], start + STEPS))
        for backbone in backbones:
            state = backbone.new_state()
            if start:
                backbone.forward(rows[:start], state)
        for row in rows[start:]:
            backbone.forward(row[None], state)


def to_a16w8(source: Path, target: Path, feeds: Feeds) -> None:
    """Write a graph's a16w8 form.

    Args:
        source: its float32 file.
        target: the file to write.
        feeds: what to calibrate it with.
    """
    try:
        config = get_qnn_qdq_config(
            str(source),
            _Reader(feeds),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
            activation_symmetric=True,  # a v68 HTP multiplies matrices with less error where 0 is in the middle
            init_overrides=_exceptions(onnx.load(str(source), load_external_data=False)),
        )
        logging.disable(logging.WARNING)  # its advice on the root logger does not apply here
        quantize(str(source), str(target), config)
    finally:
        logging.disable(logging.NOTSET)


def _exceptions(proto: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """Fixed ranges for attention scores and the masks added to them; unsigned gains of norms, as the HTP wants them."""
    made_by = {name: node for node in proto.graph.node for name in node.output}
    scores = {node.input[0] for node in proto.graph.node if node.op_type == "Softmax"}
    masks = {name for score in scores if made_by[score].op_type == "Add" for name in made_by[score].input}
    gains = {node.input[1] for node in proto.graph.node if node.op_type == "LayerNormalization"}
    deep = np.float32(MASK_DEPTH)
    return {
        **{name: [{"rmin": -deep, "rmax": deep}] for name in scores | masks},
        **{name: [{"quant_type": QuantType.QUInt8, "symmetric": False}] for name in gains},
    }
