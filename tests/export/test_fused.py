"""onnxruntime's fused operators: written for the CPU only, and equal to the plain layers."""

import collections

import onnx
import pytest

pytest.importorskip("torch")

import torch

from voxrill.export.depthformer import DepthformerConfig, DepthformerModule
from voxrill.export.graphs import FIXED, GraphPlan
from voxrill.export.layers import linears_to_matmuls
from voxrill.export.write import write_graph
from voxrill.runtime.bundle.contract import DEPTHFORMER, GraphSpec, TensorSpec

LAYERS, BOOKS, VOCAB = 2, 3, 70
SPEC = GraphSpec(
    DEPTHFORMER,
    (
        TensorSpec("hidden_state", "float32", (1, 48)),
        TensorSpec("temperature", "float32", (1,)),
        TensorSpec("top_k", "int64", (1,)),
        TensorSpec("gumbel", "float32", (BOOKS, VOCAB)),
    ),
    (TensorSpec("codes", "int64", (BOOKS,)), TensorSpec("logits", "float32", (BOOKS, VOCAB))),
)


@pytest.mark.parametrize("fused", [True, False])
def test_a_depthformer_with_fused_operators_says_the_same(fused, tmp_path):
    """`write_graph` compares the graph with its module, which has none. Heads of the published width are attended to
    by one operator a layer and code.
    """

    def build():
        torch.manual_seed(0)
        config = DepthformerConfig(LAYERS, 128, 4, 2, 64, 48, BOOKS, VOCAB, fused)
        return linears_to_matmuls(DepthformerModule(config)).eval()

    write_graph(GraphPlan(SPEC, build, {}, FIXED), tmp_path)
    nodes = onnx.load(tmp_path / f"{DEPTHFORMER}.onnx").graph.node
    found = collections.Counter(node.op_type for node in nodes if node.domain == "com.microsoft")
    wanted = {"GroupQueryAttention": LAYERS * BOOKS, "SkipSimplifiedLayerNormalization": 2 * LAYERS * BOOKS}
    assert found == (wanted if fused else {})
