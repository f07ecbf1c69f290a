"""A graph of our own attention alone, and what goes into it."""

import numpy as np
from onnx import TensorProto, helper

from voxrill.quantize.own_attention import DOMAIN, OPERATOR, own_attention

NAMES = ("query", "key", "value", "past_key", "past_value", "last", "total", "key_scales", "value_scales")
OUTPUTS = ("mixed", "keys", "values")
HEADS = ((32, 8, 64), (5, 5, 32), (4, 2, 8), (7, 1, 16), (6, 2, 48), (3, 1, 256))
"""Heads, those of keys and values, and their width: LFM2.5, Pebble, and what fills no vector."""


def attention_model(sizes):
    """The bytes of a graph: the operator, and the function that stands for it where the library is not registered."""
    kinds = [TensorProto.FLOAT] * 3 + [TensorProto.INT8] * 2 + [TensorProto.INT32] * 2 + [TensorProto.FLOAT] * 2
    ins = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(NAMES, kinds, strict=True)]
    kinds = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8)
    outs = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(OUTPUTS, kinds, strict=True)]
    node = helper.make_node(OPERATOR, NAMES, OUTPUTS, domain=DOMAIN, num_heads=sizes[0], kv_num_heads=sizes[1])
    opsets = [helper.make_opsetid(*domain) for domain in (("", 24), ("com.microsoft", 1), (DOMAIN, 1))]
    graph = helper.make_graph([node], "g", ins, outs)
    model = helper.make_model(graph, opset_imports=opsets, functions=[own_attention(24)], ir_version=11)
    return model.SerializeToString()


def inputs(sizes, known, new):
    """Random inputs: `known` positions in the cache, `new` ones, and room for three more."""
    heads, kv_heads, width = sizes
    random, total = np.random.default_rng(0), known + new
    rows = [random.standard_normal((1, new, count * width)).astype(np.float32) for count in (heads, kv_heads, kv_heads)]
    cache = [random.integers(-128, 128, (1, kv_heads, total + 3, width)).astype(np.int8) for _ in range(2)]
    counts = [np.array([total - 1], np.int32), np.array([total], np.int32)]
    scales = [random.uniform(0.01, 0.05, (kv_heads, 1, width)).astype(np.float32) for _ in range(2)]
    return dict(zip(NAMES, (*rows, *cache, *counts, *scales), strict=True))
