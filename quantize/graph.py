"""One graph: its large weights are replaced by quantised ones, node by node.

In: a graph file and a recipe. Out: the quantised graph's file, and a report of what happened to every weight. Weights
are read one at a time from the graph's data file, so that even the largest graph needs little memory beside its result.
A weight that several nodes share is quantised once and stays shared. In 8 bits its numbers lie within 64, not 127, as
`EXACT_LIMIT` explains. If a weight has fewer rows than a block, the block shrinks to the largest size that fits, and
the report says so. So one recipe serves wide and narrow models.

onnxruntime's own quantisers are not used here. They copy a shared weight for every node (the depthformer uses each of
its weights eight times), and they cannot mix 4 and 8 bits in one graph. Their kernels and 4-bit rounding are used. For
3 bits onnxruntime has no kernel: see `three_bits`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from voxrill.quantize.exclude import FEW_NUMBERS, REASONS, STACKED
from voxrill.quantize.gptq import to_gptq
from voxrill.quantize.k_quant import to_k_quant
from voxrill.quantize.recipe import BLOCKS, GPTQ, K_QUANT, Recipe, Rule
from voxrill.quantize.three_bits import ACCURACY_LEVEL, DOMAIN, OPERATOR, three_bit_product
from voxrill.quantize.weights import EXACT_LIMIT, INT8_LIMIT, PackedMatrix, to_int8, to_nearest
from voxrill.runtime.bundle.contract import EXTERNAL_ABOVE
from voxrill.runtime.bundle.manifest import FLOAT32, GraphFile
from voxrill.runtime.errors import BundleError, DataError

Floats = NDArray[np.float32]
Moments = Callable[[str], Floats]
"""Takes a weight's name, and gives the second moments (rows, rows) of what the weight is multiplied with."""

CONTRIB = "com.microsoft"
_INT8_PRODUCT = "DynamicQuantizeMatMul"
FUNCTIONS_SINCE = 8
"""The ONNX IR version that brought functions."""


@dataclass(frozen=True)
class Weight:
    """A large weight of a graph, and the operators that use it."""

    name: str
    shape: tuple[int, ...]
    operators: frozenset[str]

    @property
    def may_have_few_bits(self) -> bool:
        """Whether it is a matrix that is only used in products. Tables that rows are gathered from have 8 bits."""
        products = self.operators in ({"MatMul"}, {"Gemm"})
        return products and len(self.shape) == 2 and self.product_shape[0] >= BLOCKS[0]

    @property
    def product_shape(self) -> tuple[int, int]:
        """(rows, columns) of x @ weight; the text head's Gemm stores its weight as (columns, rows)."""
        first, second = self.shape
        return (second, first) if self.operators == {"Gemm"} else (first, second)

    @property
    def may_have_8_bits(self) -> bool:
        """Whether it has a quantised form at all."""
        return self.operators <= {"MatMul", "Gemm", "Gather"} and len(self.shape) == 2


@dataclass
class QuantizeReport:
    """What happened to a graph. bits: of every large weight; kept: why a weight stayed in float32.

    nodes: how many quantised operators of each kind there are, so that skipped nodes show; methods: how weights of 2
    to 4 bits were rounded; smaller_blocks: the block size of weights that have fewer rows than the recipe's block.
    """

    bits: dict[str, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    smaller_blocks: dict[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """One word for the manifest: float32, int8, int4, int3, int2 or mixed."""
        found = sorted(set(self.bits.values()) - {32})
        return "mixed" if len(found) > 1 else f"int{found[0]}" if found else FLOAT32

    def entry(self, file: str) -> GraphFile:
        """The graph in the manifest, with its products: those of few bits are onnxruntime's or our own."""
        few = [f"{OPERATOR} {bits}" for bits in sorted(set(self.bits.values())) if bits < 8]
        products = (*few, f"{_INT8_PRODUCT} 8") if _INT8_PRODUCT in self.nodes else tuple(few)
        return GraphFile(file, self.precision, products or msgspec.UNSET)


def large_weights(path: Path) -> list[Weight]:
    """The weights of a graph that a recipe can name, in the order in which they are used."""
    proto = load_graph(path)
    large = _large_weights(proto)
    users: dict[str, set[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            if name in large:
                users.setdefault(name, set()).add(node.op_type)
    return [Weight(name, tuple(large[name].dims), frozenset(operators)) for name, operators in users.items()]


def small_weights(path: Path) -> list[str]:
    """Names of a graph's matrices that a recipe may name, and that stay in float32 because they are small."""
    return [
        tensor.name
        for tensor in load_graph(path).graph.initializer
        if len(tensor.dims) == 2 and np.prod(tensor.dims, dtype=np.int64) < FEW_NUMBERS
    ]


def fitting_block(block: int, rows: int) -> int:
    """The largest block size up to `block` that a weight of `rows` rows fills; 0 if even the smallest is too large."""
    return max((size for size in BLOCKS if size <= min(block, rows)), default=0)


def quantize_graph(
    graph: str,
    source: Path,
    target: Path,
    recipe: Recipe,
    external: bool = False,
    data_stays: bool = False,
    moments: Moments | None = None,
) -> QuantizeReport:
    """Write the quantised form of one graph.

    Args:
        graph: the graph's name in the contract and in recipes.
        source: its float32 file.
        target: the file to write (and `target`.data where weights are kept apart).
        recipe: how many bits each weight gets.
        external: write weights to a data file even if they are small.
        data_stays: leave float32 weights in the source's data file, which must then lie beside `target`, too.
        moments: gives gptq what it needs for each of its weights.

    Raises:
        DataError: the recipe asks for something impossible, such as 4 bits for an embedding table.
        BundleError: the file is not a readable graph.
    """
    proto = load_graph(source)
    work = _Work(graph, proto, source.parent, recipe, moments)
    work.run(data_stays)
    if data_stays:
        onnx.save_model(proto, str(target))
    else:
        _save(proto, target, external)
    return work.report


def external_place(tensor: onnx.TensorProto) -> tuple[str, int]:
    """The data file of an external weight, and the byte where the weight begins."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    return where["location"], int(where.get("offset", 0))


def load_graph(path: Path) -> onnx.ModelProto:
    """A graph without its external weights."""
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's error classes differ between its versions
        raise BundleError(f"{path.name} is not a readable graph ({error})", "Export the bundle again") from None


def _large_weights(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {
        tensor.name: tensor
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims, dtype=np.int64) >= FEW_NUMBERS
    }


class _Work:
    """The quantisation of one graph, while it runs."""

    def __init__(
        self, graph: str, proto: onnx.ModelProto, folder: Path, recipe: Recipe, moments: Moments | None
    ) -> None:
        self.graph, self.proto, self.folder, self.recipe, self.moments = graph, proto, folder, recipe, moments
        self.report = QuantizeReport()
        self._new: dict[str, onnx.TensorProto] = {}
        products = [node for node in proto.graph.node if node.op_type in ("MatMul", "Gemm")]
        self._uses = Counter(name for node in products for name in node.input)

    def run(self, data_stays: bool) -> None:
        large = _large_weights(self.proto)
        nodes: list[onnx.NodeProto] = []
        for node in self.proto.graph.node:
            weight = next((name for name in node.input if name in large), None)
            nodes += [node] if weight is None else self._replaced(node, large[weight])
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.proto.graph.initializer if tensor.name in used]
        # Weights are read by their place in the source's data file, which `target` does not have beside it.
        for tensor in [] if data_stays else kept:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(numpy_helper.from_array(self._read(tensor), tensor.name))
        del self.proto.graph.initializer[:]
        self.proto.graph.initializer.extend([*kept, *self._new.values()])
        self._import(CONTRIB)
        if 3 in self.report.bits.values():
            self._import(DOMAIN)
            self.proto.functions.append(three_bit_product(self._opset("")))
            self.proto.ir_version = max(self.proto.ir_version, FUNCTIONS_SINCE)

    def _opset(self, domain: str) -> int:
        return next((int(entry.version) for entry in self.proto.opset_import if entry.domain == domain), 0)

    def _import(self, domain: str) -> None:
        if not self._opset(domain):
            self.proto.opset_import.append(helper.make_opsetid(domain, 1))

    def _replaced(self, node: onnx.NodeProto, weight: onnx.TensorProto) -> list[onnx.NodeProto]:
        """The nodes that replace one node with a large weight."""
        rule = self.recipe.rule(self.graph, weight.name)
        makers = {"MatMul": self._matmul, "Gemm": self._gemm, "Gather": self._gather}
        if len(weight.dims) > 2 and node.op_type in makers:
            self.report.kept[weight.name] = STACKED
        elif node.op_type not in makers:
            self.report.kept[weight.name] = REASONS.get(node.op_type, f"no quantised {node.op_type} is known")
        elif rule.bits == 32:
            self.report.kept[weight.name] = "the recipe says so"
        else:
            return makers[node.op_type](node, weight, rule)
        self.report.bits.setdefault(weight.name, 32)
        return [node]

    def _matmul(self, node: onnx.NodeProto, weight: onnx.TensorProto, rule: Rule) -> list[onnx.NodeProto]:
        return self._product(node, weight, rule, transposed=False)

    def _gemm(self, node: onnx.NodeProto, weight: onnx.TensorProto, rule: Rule) -> list[onnx.NodeProto]:
        """X @ weight.T without bias, as in the text head."""
        return self._product(node, weight, rule, transposed=True)

    def _product(
        self, node: onnx.NodeProto, weight: onnx.TensorProto, rule: Rule, transposed: bool
    ) -> list[onnx.NodeProto]:
        if rule.bits == 8:
            return [self._int8_product(node, weight, transposed)]
        return self._packed_product(node, weight, rule, transposed)

    def _gather(self, node: onnx.NodeProto, weight: onnx.TensorProto, rule: Rule) -> list[onnx.NodeProto]:
        """Rows of an embedding table: gather 8-bit rows and their scales, and multiply them."""
        name = weight.name
        if rule.bits != 8:
            raise DataError(
                f"the recipe gives {name} of {self.graph} {rule.bits} bits; but rows are gathered from it",
                "Add an entry at the end that gives this name 8 or 32",
            )
        # Rows and scales are gathered by themselves, and multiplied afterwards: only the rows in use become floats.
        if name + "_rows" not in self._new:
            matrix = to_int8(self._read(weight), axis=0)
            self._add(name + "_rows", matrix.values)
            self._add(name + "_row_scales", matrix.scales[:, None])
        self._note(name, 8, "Gather")
        ids, out = node.input[1], node.output[0]
        return [
            helper.make_node("Gather", [name + "_rows", ids], [out + "_int8"], f"{node.name}_int8"),
            helper.make_node("Gather", [name + "_row_scales", ids], [out + "_scale"], f"{node.name}_scale"),
            helper.make_node("Cast", [out + "_int8"], [out + "_cast"], f"{node.name}_cast", to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [out + "_cast", out + "_scale"], [out], f"{node.name}_scaled"),
        ]

    def _int8_product(self, node: onnx.NodeProto, weight: onnx.TensorProto, transposed: bool) -> onnx.NodeProto:
        name = weight.name
        if name + "_int8" not in self._new:
            values = self._read(weight)
            matrix = to_int8(values.T if transposed else values, limit=self._int8_limit(name))
            self._add(name + "_int8", matrix.values)
            self._add(name + "_scales", matrix.scales)
        self._note(name, 8, _INT8_PRODUCT)
        return helper.make_node(
            _INT8_PRODUCT,
            [node.input[0], name + "_int8", name + "_scales"],
            [node.output[0]],
            node.name,
            domain=CONTRIB,
        )

    def _int8_limit(self, name: str) -> int:
        """The largest number of an 8-bit weight.

        Where products of signed numbers overflow, onnxruntime makes them unsigned when it loads a graph (see
        `session_options`). If several nodes share them, it refuses the graph, unless they are small already.
        """
        return INT8_LIMIT if self._uses[name] == 1 else EXACT_LIMIT

    def _packed_product(
        self, node: onnx.NodeProto, weight: onnx.TensorProto, rule: Rule, transposed: bool
    ) -> list[onnx.NodeProto]:
        name = weight.name
        rows, columns = reversed(weight.dims) if transposed else weight.dims
        block = fitting_block(rule.block, rows)
        if not block:
            raise DataError(
                f"{name} of {self.graph} has {rows} rows, fewer than the smallest block, {BLOCKS[0]}",
                "Give that weight 8 bits in the recipe",
            )
        if block < rule.block:
            self.report.smaller_blocks[name] = block
        made = []
        if f"{name}_int{rule.bits}" not in self._new:
            made = self._add_packed(name, self._rounded(name, weight, rule, block, transposed))
        self._note(name, rule.bits, OPERATOR)
        factors = f"{name}_factors" if rule.bits == 2 else f"{name}_scales"
        product = helper.make_node(
            OPERATOR,
            [node.input[0], f"{name}_int{rule.bits}", factors, f"{name}_zero_points"],
            [node.output[0]],
            node.name,
            domain=DOMAIN if rule.bits == 3 else CONTRIB,
            K=rows,
            N=columns,
            bits=rule.bits,
            block_size=block,
        )
        if rule.bits != 3:
            product.attribute.append(helper.make_attribute("accuracy_level", ACCURACY_LEVEL))
        return [*made, product]

    def _add_packed(self, name: str, matrix: PackedMatrix) -> list[onnx.NodeProto]:
        """Keep a packed weight, and the nodes that it needs once."""
        self._add(f"{name}_int{matrix.bits}", matrix.packed)
        self._add(f"{name}_zero_points", matrix.zero_points)
        if matrix.bits == 4:
            self._add(f"{name}_scales", matrix.scales)
            return []
        # Blocks of few bits are small: scales of 32 bits would be a large part of them.
        self._add(f"{name}_scales", matrix.scales.astype(np.float16))
        if matrix.bits == 3:  # the function casts them
            return []
        float32 = onnx.TensorProto.FLOAT
        return [helper.make_node("Cast", [f"{name}_scales"], [f"{name}_factors"], f"{name}_factors", to=float32)]

    def _rounded(self, name: str, weight: onnx.TensorProto, rule: Rule, block: int, transposed: bool) -> PackedMatrix:
        self.report.methods[name] = rule.method
        values = self._read(weight)
        values = values.T if transposed else values
        if rule.method == GPTQ:
            assert self.moments is not None, "the caller calibrates what the recipe gives to gptq"
            return to_gptq(values, rule.bits, block, self.moments(name))
        return (to_k_quant if rule.method == K_QUANT else to_nearest)(values, rule.bits, block)

    def _note(self, weight: str, bits: int, operator: str) -> None:
        self.report.bits[weight] = bits
        self.report.nodes[operator] = self.report.nodes.get(operator, 0) + 1

    def _add(self, name: str, values: NDArray[Any]) -> None:
        self._new[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)

    def _read(self, tensor: onnx.TensorProto) -> NDArray[Any]:
        """A weight's numbers. Those in a data file are memory-mapped, and not read."""
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        file, offset = external_place(tensor)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.memmap(self.folder / file, dtype, "r", offset, tuple(tensor.dims))


def _save(proto: onnx.ModelProto, target: Path, external: bool) -> None:
    large = sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EXTERNAL_ABOVE
    if external or large:
        data = f"{target.name}.data"
        least = 0 if external else 1024  # what was asked for is read by its place, however small
        onnx.save_model(proto, str(target), save_as_external_data=True, location=data, size_threshold=least)
        target.with_name(data).chmod(target.stat().st_mode)  # onnx makes it readable for its owner only
    else:
        onnx.save_model(proto, str(target))
