"""The graphs that onnxruntime-genai's LFM2-Audio wants beside the decoder that its own model builder makes.

In: a checkpoint and an encoder graph. Out: `embeddings.onnx`, `vocoder_depthformer.onnx`, `audio_embedding.onnx` and
`audio_encoder.onnx` in a model folder, with the names and shapes that its `lfm2_audio` pipeline asks for. The weights
of the depthformer are random, in 4 bits with a scale for 32 rows, like those of Liquid's own export. Each codebook's
head is chosen by branches, so that no weight is copied. Source: onnxruntime-genai, examples/python/lfm2-audio.md.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.llama import backbone_weights

AUDIO_TOKEN = 133
"""A reserved token, which stands for sound in a prompt."""
BLOCK = 32
EPS, THETA = 1e-5, 1_000_000.0
HEADS, KV_HEADS = 32, 8
CODEBOOKS, CODES = 8, 2049
_CONTRIB = "com.microsoft"
_OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid(_CONTRIB, 1)]

Shape = Sequence[int | str]


def write_graphs(checkpoint: Path, encoder: Path, folder: Path) -> None:
    """Write all four graphs.

    Args:
        checkpoint: where the sizes and the table of text embeddings come from.
        encoder: a graph with its data file; the encoder of any bundle has the inputs and outputs that are wanted.
        folder: of the model.
    """
    shapes = _shapes(checkpoint / "model.safetensors")
    table = next(values for key, values in backbone_weights(checkpoint / "model.safetensors") if "embed_tokens" in key)
    onnx.save(_embeddings(table.astype(np.float16)), folder / "embeddings.onnx")
    onnx.save(_audio_embedding(table.shape[1]), folder / "audio_embedding.onnx")
    onnx.save(_Depthformer(shapes).model(), folder / "vocoder_depthformer.onnx")
    for file in (encoder, encoder.with_name(f"{encoder.name}.data")):
        shutil.copy(file, folder / file.name)


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a safetensors file."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}


class _Builder:
    """Nodes and weights of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        self._count = 0

    def node(
        self, operator: str, *inputs: str, outputs: int | list[str] = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Add a node; the name of its output, or the names of several."""
        names = outputs if isinstance(outputs, list) else [self._name(operator) for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def constant(self, values: NDArray[Any]) -> str:
        """Add a weight; its name."""
        name = self._name("weight")
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        """A vector of integers as a weight."""
        return self.constant(np.array(values, np.int64))

    def random_product(self, x: str, rows: int, columns: int) -> str:
        """The product of x with random weights in 4 bits."""
        blocks = rows // BLOCK
        packed = self.random.integers(0, 256, (columns, blocks, BLOCK // 2), np.uint8)
        scales = np.full(columns * blocks, 0.1 / math.sqrt(rows), np.float32)
        sizes = {"K": rows, "N": columns, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
        return str(self.node("MatMulNBits", x, self.constant(packed), self.constant(scales), domain=_CONTRIB, **sizes))

    def norm(self, x: str, weight: str) -> str:
        """Root-mean-square normalisation over the last axis."""
        return str(self.node("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=EPS))

    def model(self, inputs: dict[str, tuple[int, Shape]], outputs: dict[str, tuple[int, Shape]]) -> onnx.ModelProto:
        """The graph with these inputs and outputs: type and shape by name."""
        heard, said = (
            [helper.make_tensor_value_info(name, *kind) for name, kind in end.items()] for end in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "graph", heard, said, self.weights)
        return helper.make_model(graph, opset_imports=_OPSETS, ir_version=10)

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what}_{self._count}"


def _embeddings(table: NDArray[np.float16]) -> onnx.ModelProto:
    """Tokens to their rows of the table; the rows of sound take the place of AUDIO_TOKEN."""
    made, width = _Builder(), table.shape[1]
    rows = made.node("Cast", made.node("Gather", made.constant(table), "input_ids"), to=TensorProto.FLOAT)
    flat = made.node("Reshape", rows, made.integers(-1, width))
    sound = made.node("Equal", made.node("Reshape", "input_ids", made.integers(-1)), made.integers(AUDIO_TOKEN))
    places = made.node("Transpose", made.node("NonZero", sound), perm=[1, 0])
    merged = made.node("ScatterND", flat, places, "audio_features")
    made.node("Reshape", merged, made.node("Shape", rows), outputs=["inputs_embeds"])
    return made.model(
        {
            "input_ids": (TensorProto.INT64, ["batch", "length"]),
            "audio_features": (TensorProto.FLOAT, ["sound", width]),
        },
        {"inputs_embeds": (TensorProto.FLOAT, ["batch", "length", width])},
    )


def _audio_embedding(width: int) -> onnx.ModelProto:
    """Codes to their rows."""
    made = _Builder()
    table = made.random.standard_normal((CODEBOOKS * CODES, width), np.float32) / math.sqrt(width)
    made.node("Gather", made.constant(table.astype(np.float32)), "audio_codes", outputs=["audio_embeds"])
    return made.model(
        {"audio_codes": (TensorProto.INT64, ["batch", "length"])},
        {"audio_embeds": (TensorProto.FLOAT, ["batch", "length", width])},
    )


class _Depthformer(_Builder):
    """One step of one codebook, with the sizes of a checkpoint."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        self._hidden = shapes["depth_linear.weight"][1]
        self._inner, self._dim = shapes["depthformer.layers.0.feed_forward.w1.weight"]
        self._layers = sum(key.endswith("operator.qkv_proj.weight") for key in shapes if key.startswith("depthformer."))
        self._head = self._dim // HEADS
        angles = np.outer(np.arange(CODEBOOKS), 1.0 / THETA ** (np.arange(0, self._head, 2) / self._head))
        self._rotary = [self.constant(wave(angles).astype(np.float32)) for wave in (np.cos, np.sin)]

    def model(self, *_: Any) -> onnx.ModelProto:
        """The whole graph."""
        dim = self._dim
        cache: list[int | str] = [self._layers, 1, KV_HEADS, "past", self._head]
        self._slices()
        x = self._input()
        presents: list[list[str]] = []
        for layer in range(self._layers):
            x, *present = self._layer(x, layer)
            presents.append(present)
        for name, parts in zip(("new_keys", "new_values"), zip(*presents, strict=True), strict=True):
            self.node(
                "Concat", *(self.node("Unsqueeze", part, self.integers(0)) for part in parts), axis=0, outputs=[name]
            )
        norms = self.constant(np.ones((CODEBOOKS, dim), np.float32))
        flat = self.node("Reshape", x, self.integers(1, dim))
        self._normed = self.norm(flat, self.node("Gather", norms, "step_idx"))
        self.node("Identity", self._chosen_head(0, CODEBOOKS), outputs=["logits"])
        after: list[int | str] = [*cache[:3], "total", self._head]
        return super().model(
            {
                "hidden_states": (TensorProto.FLOAT, [1, self._hidden]),
                "depth_slices_in": (TensorProto.FLOAT, [1, CODEBOOKS, dim]),
                "step_idx": (TensorProto.INT64, []),
                "prev_token": (TensorProto.INT64, [1]),
                "past_keys": (TensorProto.FLOAT, cache),
                "past_values": (TensorProto.FLOAT, cache),
                "seqlens_k": (TensorProto.INT32, [1]),
                "total_seq_len": (TensorProto.INT32, []),
            },
            {
                "logits": (TensorProto.FLOAT, [1, CODES]),
                "depth_slices": (TensorProto.FLOAT, [1, CODEBOOKS, dim]),
                "new_keys": (TensorProto.FLOAT, after),
                "new_values": (TensorProto.FLOAT, after),
            },
        )

    def _slices(self) -> None:
        """The projection of the hidden state is computed in the first step and handed back in the others."""
        first, other = _Builder(), _Builder()
        first._count = 1_000_000  # names of a branch must not be those of the graph around it
        made = first.random_product("hidden_states", self._hidden, CODEBOOKS * self._dim)
        first.node("Reshape", made, first.integers(1, CODEBOOKS, self._dim), outputs=["first_slices"])
        other.node("Identity", "depth_slices_in", outputs=["other_slices"])
        self.weights += first.weights
        is_first = self.node("Equal", "step_idx", self.constant(np.array(0, np.int64)))
        self._if(is_first, (first.nodes, "first_slices"), (other.nodes, "other_slices"), "depth_slices")

    def _if(self, condition: str, then: tuple[Any, str], other: tuple[Any, str], output: str) -> None:
        branches = [
            helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
            for nodes, name in (then, other)
        ]
        self.node("If", condition, outputs=[output], then_branch=branches[0], else_branch=branches[1])

    def _input(self) -> str:
        """The step's slice of the projection; from the second step on, with the embedding of the code before."""
        table = self.random.standard_normal((CODEBOOKS * CODES, self._dim), np.float32).astype(np.float32)
        one = self.constant(np.array(1, np.int64))
        book = self.node("Max", self.node("Sub", "step_idx", one), self.constant(np.array(0, np.int64)))
        row = self.node("Add", "prev_token", self.node("Mul", book, self.constant(np.array(CODES, np.int64))))
        later = self.node("Cast", self.node("Min", "step_idx", one), to=TensorProto.FLOAT)
        code = self.node("Mul", self.node("Gather", self.constant(table), row), later)
        part = self.node("Gather", "depth_slices", "step_idx", axis=1)
        return str(self.node("Reshape", self.node("Add", part, code), self.integers(1, 1, self._dim)))

    def _layer(self, x: str, layer: int) -> tuple[str, str, str]:
        """One layer: its output, keys and values."""
        dim, kv, place = self._dim, KV_HEADS * self._head, self.constant(np.array(layer, np.int64))
        ones = self.constant(np.ones(dim, np.float32))
        qkv = self.random_product(self.norm(x, ones), dim, dim + 2 * kv)
        query, key, value = self.node("Split", qkv, self.integers(dim, kv, kv), axis=-1, outputs=3)
        query, key = (self._normed_heads(part, width) for part, width in ((query, dim), (key, kv)))
        pasts: list[str] = [self.node("Gather", name, place, axis=0) for name in ("past_keys", "past_values")]
        ends = [query, key, value, *pasts, "seqlens_k", "total_seq_len", *self._rotary]
        sizes = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1, "rotary_interleaved": 1}
        heard, keys, values = self.node("GroupQueryAttention", *ends, outputs=3, domain=_CONTRIB, **sizes)
        x = self.node("Add", x, self.random_product(heard, dim, dim))
        normed = self.norm(x, ones)
        gate, up = (self.random_product(normed, dim, self._inner) for _ in range(2))
        silu = self.node("Mul", gate, self.node("Sigmoid", gate))
        fed = self.random_product(self.node("Mul", silu, up), self._inner, dim)
        return self.node("Add", x, fed), keys, values

    def _normed_heads(self, x: str, width: int) -> str:
        """Queries or keys, each head normalised by itself."""
        heads = self.node("Reshape", x, self.integers(1, 1, -1, self._head))
        normed = self.norm(heads, self.constant(np.ones(self._head, np.float32)))
        return str(self.node("Reshape", normed, self.integers(1, 1, width)))

    def _chosen_head(self, first: int, behind: int) -> str:
        """The logits of the step's codebook: one head, or a choice between two halves of the heads."""
        if behind - first == 1:
            return self.random_product(self._normed, self._dim, CODES)
        middle, outside, branches = (first + behind) // 2, self.nodes, []
        condition_at = self.constant(np.array(middle, np.int64))
        for half in ((first, middle), (middle, behind)):
            self.nodes = []
            branches.append((self._chosen_head(*half), self.nodes))
        self.nodes = outside
        output = self._name("logits")
        (low, low_nodes), (high, high_nodes) = branches
        self._if(self.node("Less", "step_idx", condition_at), (low_nodes, low), (high_nodes, high), output)
        return output
