"""Attention with an int8 KV cache where our own library is not: an ONNX function, which travels in the graph.

In: the opset of a graph. Out: the function `voxrill.attention.GroupQueryAttention`. Where Voxrill's own library is
registered, its kernel takes the node. Everywhere else onnxruntime puts the function's node in its place, which is its
own GroupQueryAttention: the same cache and factors, and the same result but for rounding.
"""

from __future__ import annotations

import onnx
from onnx import helper

DOMAIN, OPERATOR = "voxrill.attention", "GroupQueryAttention"
SIZES = ("num_heads", "kv_num_heads")
_INPUTS = ("query", "key", "value", "past_key", "past_value", "last", "total")
_SCALES = ("key_scales", "value_scales")
_OUTPUTS = ("mixed", "keys", "values")


def own_attention(opset: int) -> onnx.FunctionProto:
    """The function for a graph of this opset."""
    node = helper.make_node(OPERATOR, [*_INPUTS, "", "", "", "", "", *_SCALES], _OUTPUTS, domain="com.microsoft")
    for size in SIZES:
        node.attribute.append(onnx.AttributeProto(name=size, ref_attr_name=size, type=onnx.AttributeProto.INT))
    for side in "kv":
        node.attribute.append(helper.make_attribute(f"{side}_quant_type", "PER_CHANNEL"))
    node.attribute.append(helper.make_attribute("kv_cache_bit_width", 8))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_function(DOMAIN, OPERATOR, [*_INPUTS, *_SCALES], _OUTPUTS, [node], imports, SIZES)
