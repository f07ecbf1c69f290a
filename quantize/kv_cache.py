"""The KV cache in 8 bits: a factor for each channel, measured on real conversations, and the decoder that uses them.

In: a float32 model, with sounds or without; a decoder's file. Out: the factors; the same decoder with an int8 cache.

A step uses our own attention on the int8 cache, and onnxruntime's where our library is not (`own_attention`).
onnxruntime's kernel turns every key into a float once more for each query, so many positions at once took four times as
long as with a float32 cache. For those the graph has another branch: it makes floats of the cache once, attends as
before, and writes the new rows as integers. Both branches write the same bytes, in place, and their outputs differ by
rounding only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from voxrill.quantize.graph import load_graph
from voxrill.quantize.own_attention import DOMAIN, own_attention
from voxrill.runtime.audio.sinc_resampler import resample
from voxrill.runtime.bundle.contract import DECODER, KV_CAPACITY, present_name
from voxrill.runtime.engine.backbone import PREFILL_FROM
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.events import AudioEvent

Floats = NDArray[np.float32]
Scales = dict[str, Floats]
"""Factors (kv_heads, 1, head_dim) by the name of the state input, `past_key_values.N.key` or `.value`."""

MARGIN = 1.25
"""The cache holds numbers this much larger than the largest that was measured. Larger ones are cut off."""

_LARGEST = 127
_ANSWER = 64
"""Tokens and frames of a measured answer: some 5 s of sound."""
_SENTENCES = (
    "What is the weather like tomorrow?",
    "Please read me the second chapter, and the numbers 7, 18 and 1945.",
)
"""Said by the model itself if there are no sounds and it has no examples of its own."""

_GROUPED = "GroupQueryAttention"
_OPSET, _IR_VERSION = 24, 11
"""The first with TensorScatter, and the file format that goes with it."""
_OUT = ("mixed", "key", "value")
"""The outputs of an attention: the mixed values, and the next caches."""


def measure_scales(model: Engine, sounds: Sequence[Floats] = ()) -> Scales:
    """The factors of every cache: of the keys and values of conversations about `sounds` (samples,) at 16 kHz.

    Without sounds the model says a few sentences, and hears itself.
    """
    largest: Scales = {}
    # The rows of a sliding window keep their type: there are few of them, however long the conversation is.
    caches = {tensor.name for tensor in model.manifest.specs()[DECODER].state if KV_CAPACITY in tensor.shape}
    for conversation in _conversations(model, sounds):
        for name, rows in conversation.context.content().items():
            if name in caches:
                largest[name] = np.maximum(largest.get(name, 0), channel_sizes(name, rows[0]))
    smallest = np.finfo(np.float32).tiny  # a channel that is always zero
    return {name: np.maximum(MARGIN / _LARGEST * found, smallest) for name, found in largest.items()}


def channel_sizes(name: str, rows: Floats) -> Floats:
    """How large the numbers of each channel of a cache become: (heads, 1, d) of `rows` (heads, S, d).

    A pair (i, i + d / 2) of a key's channels turns with the position, some by less than a degree in the sounds that are
    measured. Later its whole length may lie in either channel, so both have the pair's length.
    """
    if name.endswith(".key"):
        lengths = np.hypot(*np.split(rows, 2, axis=-1))
        rows = np.concatenate([lengths, lengths], axis=-1)
    largest: Floats = np.abs(rows).max(1, keepdims=True)
    return largest


def _conversations(model: Engine, sounds: Sequence[Floats]) -> Iterator[Conversation]:
    """Conversations whose state is filled: spoken sentences if there are no sounds, answers, and what was heard."""
    tasks, trim = model.manifest.tasks, None if sounds else False
    spoken = [] if sounds else [_say(model, sentence) for sentence in model.manifest.taught.examples[:2] or _SENTENCES]
    yield from (conversation for conversation, _ in spoken)
    own = [sound for _, sound in spoken if len(sound)]
    for sound in sounds or own or [_noise(model.parts.encoder.sample_rate)]:
        for task in (tasks.chat, tasks.transcribe):
            conversation = Conversation(model.parts, task)
            for _ in conversation.steps(audio=sound, trim=trim, max_new_tokens=_ANSWER, seed=0):
                pass
            yield conversation


def _say(model: Engine, sentence: str) -> tuple[Conversation, Floats]:
    """A conversation in which the model says a sentence, and the sound (samples,) as the model hears it."""
    conversation = model.reciting()
    events = conversation.ask(text=sentence, max_new_tokens=_ANSWER, seed=0)
    parts = [event.samples for event in events if isinstance(event, AudioEvent)]
    sound = np.concatenate([np.zeros(0, np.float32), *parts])
    return conversation, resample(sound, model.sample_rate, model.parts.encoder.sample_rate) if len(sound) else sound


def _noise(rate: int) -> Floats:
    """Two seconds (samples,), for a model that says nothing, such as one that was never trained."""
    return 0.1 * np.random.default_rng(0).standard_normal(2 * rate).astype(np.float32)


def hold_cache_in_int8(path: Path, scales: Scales) -> None:
    """Rewrite a decoder's file so that its KV cache is int8, with these factors."""
    proto = load_graph(path)
    graph = proto.graph
    state = {*scales, *map(present_name, scales)}
    for tensor in (*graph.input, *graph.output):
        if tensor.name in state:
            tensor.type.tensor_type.elem_type = TensorProto.INT8
    nodes = list(graph.node)
    first = next(index for index, node in enumerate(nodes) if node.op_type == _GROUPED)
    new = [_branched(node) if node.op_type == _GROUPED else node for node in nodes]
    new[first:first] = _conditions(nodes[first])
    del graph.node[:]
    graph.node.extend(new)
    graph.initializer.extend(_constants(scales))
    for entry in proto.opset_import:
        if not entry.domain:
            entry.version = max(entry.version, _OPSET)
            proto.functions.append(own_attention(entry.version))
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    proto.ir_version = max(proto.ir_version, _IR_VERSION)
    onnx.save_model(proto, str(path))


def _constants(scales: Scales) -> Iterator[TensorProto]:
    """The factors, as the kernel wants them and as one row of all heads, and what the nodes below count with."""
    kv_heads, _, width = next(iter(scales.values())).shape
    for name, factors in scales.items():
        yield numpy_helper.from_array(factors, f"{name}.scale")
        yield numpy_helper.from_array(factors.reshape(-1), f"{name}.scales")
    yield numpy_helper.from_array(np.zeros(kv_heads * width, np.int8), "kv_zero_points")
    yield numpy_helper.from_array(np.array(1, np.float32), "kv_one")
    yield numpy_helper.from_array(np.array(0, np.int8), "kv_zero")
    for name, numbers in {
        "kv_begin": [0],
        "kv_axis": [2],
        "kv_many": [PREFILL_FROM],
        "kv_shape": [1, -1, kv_heads, width],
    }.items():
        yield numpy_helper.from_array(np.array(numbers, np.int64), name)


def _conditions(node: NodeProto) -> list[NodeProto]:
    """Before the first attention: whether this call has few positions, and how many are in the cache already."""
    query, total = node.input[0], node.input[6]
    return [
        helper.make_node("Shape", [query], ["kv_new"], start=1, end=2),
        helper.make_node("Less", ["kv_new", "kv_many"], ["kv_few"]),
        helper.make_node("Cast", [total], ["kv_total"], to=TensorProto.INT64),
        helper.make_node("Sub", ["kv_total", "kv_new"], ["kv_known"]),
    ]


def _branched(node: NodeProto) -> NodeProto:
    """The attention of one layer with an int8 cache."""
    layer = node.output[1].removesuffix(".key")
    return helper.make_node(
        "If",
        ["kv_few"],
        node.output,
        node.name,
        then_branch=_branch(f"{layer}.few", _few(node, f"{layer}.few")),
        else_branch=_branch(f"{layer}.many", _many(node, f"{layer}.many")),
    )


def _branch(name: str, nodes: list[NodeProto]) -> GraphProto:
    types = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8)
    outputs = [
        helper.make_tensor_value_info(f"{name}.{out}", kind, None) for out, kind in zip(_OUT, types, strict=True)
    ]
    return helper.make_graph(nodes, name, [], outputs)


def _few(node: NodeProto, name: str) -> list[NodeProto]:
    made = NodeProto()
    made.CopyFrom(node)
    made.domain = DOMAIN
    made.input.extend([f"{node.input[3]}.scale", f"{node.input[4]}.scale"])
    made.output[:] = [f"{name}.{out}" for out in _OUT]
    return [made]


def _many(node: NodeProto, name: str) -> list[NodeProto]:
    nodes: list[NodeProto] = []
    floats = {}
    for new, past, out in zip(node.input[1:3], node.input[3:5], _OUT[1:], strict=True):
        own, scales = f"{name}.{out}", [f"{past}.scales", "kv_zero_points"]
        floats[new], floats[past] = f"{own}_new", f"{own}_past"
        nodes += [
            # QuantizeLinear with a factor for each channel takes one number at a time: 6 % of a prefill.
            helper.make_node("Div", [new, scales[0]], [f"{own}_scaled"]),
            helper.make_node("QuantizeLinear", [f"{own}_scaled", "kv_one", "kv_zero"], [f"{own}_int8"]),
            helper.make_node("DequantizeLinear", [f"{own}_int8", *scales], [floats[new]], axis=2),
            helper.make_node("Slice", [past, "kv_begin", "kv_known", "kv_axis"], [f"{own}_filled"]),
            helper.make_node("Cast", [f"{own}_filled"], [f"{own}_cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{own}_cast", f"{past}.scale"], [floats[past]]),
            helper.make_node("Reshape", [f"{own}_int8", "kv_shape"], [f"{own}_split"]),
            helper.make_node("Transpose", [f"{own}_split"], [f"{own}_rows"], perm=[0, 2, 1, 3]),
            helper.make_node("TensorScatter", [past, f"{own}_rows", "kv_known"], [own], axis=2),
        ]
    attention = NodeProto()
    attention.CopyFrom(node)
    attention.input[:] = [floats.get(given, given) for given in node.input]
    attention.output[:] = [f"{name}.{_OUT[0]}", f"{name}.all_keys", f"{name}.all_values"]
    return [*nodes, attention]
