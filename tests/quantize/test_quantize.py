"""INT8 and INT4 bundles: every large weight is quantised or its reason is written, and the model stays the model.

The weights here are random, so nothing is said about quality: what is shown is that the arithmetic is right.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import voxrill
from tests import signals
from tests.command_line import contents
from voxrill.runtime.bundle.bundle import open_bundle, verify_files
from voxrill.runtime.bundle.manifest import QUANTIZE_REPORT_FILE
from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.upkeep.smoke import smoke_run

onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from onnx import numpy_helper  # noqa: E402

from voxrill.quantize.bundle import quantize_bundle  # noqa: E402
from voxrill.quantize.graph import FEW_NUMBERS, quantize_graph  # noqa: E402
from voxrill.quantize.recipe import KvCache, Recipe, Rule, read_recipe, shipped_recipes  # noqa: E402
from voxrill.quantize.weights import to_int8, to_nearest  # noqa: E402

FAMILIES = ("lfm2", "lfm2.5")
RULES = (Rule(8), Rule(4, "decoder*", block=32), Rule(4, "depthformer", "depthformer.layers.*", 32))
INT4 = Recipe("test", RULES, kv_cache=KvCache(8))
RECIPES = {"int8": read_recipe("int8"), "int4": INT4}


@pytest.fixture(scope="module")
def quantized(bundles, tmp_path_factory):
    """Quantised bundles by (family, recipe)."""
    folder = tmp_path_factory.mktemp("quantized")
    return {
        (family, name): quantize_bundle(open_bundle(bundles[family]), folder / f"{family}-{name}", recipe)
        for family in FAMILIES
        for name, recipe in RECIPES.items()
    }


def graph(bundle, name):
    return onnx.load(str(bundle.path(bundle.manifest.graphs[name].file)))


def report(bundle):
    return json.loads(bundle.path(QUANTIZE_REPORT_FILE).read_text())["graphs"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_large_weight_is_quantised_or_has_its_reason(quantized, family, recipe):
    bundle = quantized[family, recipe]
    for name, about in report(bundle).items():
        proto = graph(bundle, name)
        large = {
            t.name
            for t in proto.graph.initializer
            if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) >= FEW_NUMBERS
        }
        weights = {weight for weight in large if not weight.endswith("_scales")}
        assert weights == set(about["kept"]), name
        assert {weight for weight, bits in about["bits"].items() if bits == 32} == set(about["kept"])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_quantised_nodes(quantized, bundles, family, recipe):
    """No product with a constant matrix is left, and none has vanished. The recipes keep LFM2.5's codec as it is."""
    products = ("MatMul", "Gemm", "DynamicQuantizeMatMul", "MatMulNBits")
    for name in set(quantized[family, recipe].manifest.graphs) - {"audio_detokenizer"}:
        before, after = graph(open_bundle(bundles[family]), name), graph(quantized[family, recipe], name)
        large = {t.name for t in before.graph.initializer if np.prod(t.dims) >= FEW_NUMBERS}
        used = [n for n in before.graph.node if n.op_type in products and large & set(n.input)]
        quantised = [n for n in after.graph.node if n.op_type in products[2:]]
        assert len(quantised) == len(used)
        counted = report(quantized[family, recipe])[name]["nodes"]
        assert sum(counted.get(operator, 0) for operator in products[2:]) == len(used)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_shared_weight_stays_shared(quantized, recipe):
    """The unrolled depthformer uses each matrix of its layers once a codebook."""
    bundle = quantized["lfm2", recipe]
    proto = graph(bundle, "depthformer")
    names = [tensor.name for tensor in proto.graph.initializer]
    assert len(names) == len(set(names))
    uses = Counter(n.input[1] for n in proto.graph.node if "qkv_proj" in "".join(n.input))
    assert uses and set(uses.values()) == {bundle.manifest.model.codes.codebooks}


def test_only_a_shared_weight_has_small_numbers(quantized):
    """Up to 64 its products are exact on every processor as they are; the others, onnxruntime changes where it must."""
    found = {False: set(), True: set()}
    for name in ("decoder", "depthformer"):
        proto = graph(quantized["lfm2", "int8"], name)
        uses = Counter(n.input[1] for n in proto.graph.node if n.op_type == "DynamicQuantizeMatMul")
        for tensor in proto.graph.initializer:
            if tensor.name in uses:
                found[uses[tensor.name] > 1].add(int(np.abs(numpy_helper.to_array(tensor)).max()))
    assert found == {False: {127}, True: {64}}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantised_bundle_is_whole_runs_and_is_smaller(quantized, bundles, family, recipe):
    bundle = quantized[family, recipe]
    verify_files(bundle)
    assert smoke_run(bundle)
    codec = bundle.manifest.graphs.get("audio_detokenizer")
    kept = bundle.manifest.files[codec.file].size if codec else 0
    assert bundle.manifest.size - kept < 0.45 * (open_bundle(bundles[family]).manifest.size - kept)
    wanted = {"int8": {"int8"}, "int4": {"int8", "int4", "mixed"}}[recipe]
    assert {g.precision for name, g in bundle.manifest.graphs.items() if name != "audio_detokenizer"} == wanted
    assert codec is None or codec.precision == {"int8": "float32", "int4": "int8"}[recipe]  # INT4 is this test's own


def cosine(a, b):
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize(("recipe", "least"), [("int8", 0.99), ("int4", 0.85)])
@pytest.mark.parametrize("family", FAMILIES)
def test_stages_stay_close_to_float32(quantized, models, family, recipe, least):
    """Random weights 64 wide are far harder on 4 bits than trained ones: this finds wrong arithmetic only."""
    wanted, got = models[family].parts, voxrill.load(quantized[family, recipe].directory, threads=1).parts
    sound = signals.speech_like(40_000, 2)
    assert cosine(wanted.encoder.encode(sound), got.encoder.encode(sound)) > 0.998
    rows = wanted.embed_tokens(list(range(40, 80)))
    assert cosine(rows, got.embed_tokens(list(range(40, 80)))) > 0.9999
    frames = signals.codes(7, 3) % wanted.spec.codes.end_of_audio
    assert cosine(wanted.embed_frames(frames), got.embed_frames(frames)) > 0.9999
    hidden = wanted.backbone.forward(rows, wanted.backbone.new_state())
    assert cosine(hidden, got.backbone.forward(rows, got.backbone.new_state())) > least
    assert cosine(wanted.backbone.logits(hidden[-1]), got.backbone.logits(hidden[-1])) > 0.999
    logits = [parts.depthformer.logits(hidden[-1], frames[:, 0]) for parts in (wanted, got)]
    assert cosine(*logits) > least


def test_prefill_may_have_a_graph_of_its_own(bundles, quantized, npu_models, tmp_path, without_library):
    """Many positions go through the 8-bit graph, few through the decoder, and both write one KV cache."""
    without_library()
    made = quantize_bundle(open_bundle(bundles["lfm2.5"]), tmp_path / "fast", INT4, fast_prefill=True)
    precisions = {name: file.precision for name, file in made.manifest.graphs.items()}
    assert (precisions["decoder"], precisions["decoder_prefill"]) == ("int4", "int8")
    assert made.manifest.model.backbone.kv_cache == "int8"
    verify_files(made)
    fast, int8 = voxrill.load(made.directory), voxrill.load(quantized["lfm2.5", "int8"].directory)
    rows = fast.parts.embed_tokens(list(range(40, 80)))
    states = fast.parts.backbone.new_state(), int8.parts.backbone.new_state()
    hidden = [model.parts.backbone.forward(rows[:30], state) for model, state in zip((fast, int8), states, strict=True)]
    assert np.array_equal(*hidden)
    fast.parts.backbone.forward(rows[30:33], states[0])
    calls = {name: stage.calls for name, stage in fast.times.stages.items()}
    assert calls == {"decoder_prefill": 1, "decoder": 1}
    assert states[0].length == 33
    with pytest.raises(UsageError, match="prefill graph of its own"):
        quantize_bundle(npu_models["lfm2"].bundle, tmp_path / "npu", INT4, fast_prefill=True)


def test_int8_rounds_to_the_nearest_of_255_steps():
    weight = np.random.default_rng(0).standard_normal((70, 30)).astype(np.float32)
    weight[:, 3] = 0
    for axis in (0, 1):
        matrix = to_int8(weight, axis)
        scales = matrix.scales[None] if axis else matrix.scales[:, None]
        assert np.abs(matrix.values * scales - weight).max() <= scales.max() / 2 * 1.001
        assert np.abs(matrix.values).max() == 127


def test_int4_is_what_the_kernel_multiplies_with(tmp_path):
    """A MatMulNBits node against the numbers unpacked by hand."""
    import onnxruntime as ort
    from onnx import helper

    chance = np.random.default_rng(1)
    rows, columns, block = 96, 24, 32
    weight = chance.standard_normal((rows, columns)).astype(np.float32)
    matrix = to_nearest(weight, 4, block)
    nibbles = np.stack([matrix.packed & 15, matrix.packed >> 4], -1).reshape(columns, rows // block, block)
    zeros = np.stack([matrix.zero_points & 15, matrix.zero_points >> 4], -1).reshape(columns, -1)[:, : rows // block]
    unpacked = ((nibbles.astype(np.float32) - zeros[..., None]) * matrix.scales[..., None]).reshape(columns, rows).T
    assert np.abs(unpacked - weight).max() <= np.abs(matrix.scales).max() * 1.01
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s", "z"], ["y"], domain="com.microsoft", K=rows, N=columns, bits=4, block_size=block
    )
    stored = {"w": matrix.packed, "s": matrix.scales, "z": matrix.zero_points}
    proto = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5, rows])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [5, columns])],
            [numpy_helper.from_array(values, name) for name, values in stored.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    x = chance.standard_normal((5, rows)).astype(np.float32)
    (y,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    assert np.abs(y - x @ unpacked).max() <= 1e-3


# The command, and what is refused


def test_the_command(cli, bundles, tmp_path):
    ran = cli("quantize", bundles["lfm2"], "-o", tmp_path / "small", "--recipe", "int8")
    assert ran.status == 0 and ran.out == "" and "times smaller" in ran.err
    assert cli("verify", tmp_path / "small").status == 0


def test_the_same_recipe_gives_the_same_bundle(quantized, bundles, tmp_path):
    again = quantize_bundle(open_bundle(bundles["lfm2"]), tmp_path / "again", RECIPES["int8"])
    assert contents(again.directory) == contents(quantized["lfm2", "int8"].directory)


def test_shipped_recipes_can_be_read():
    assert {"int8", "int4"} <= set(shipped_recipes())
    assert all(read_recipe(name).about for name in shipped_recipes())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ('about = "x"\n[[weights]]\nbits = 5\n', "bits"),
        ('about = "x"\n[[weights]]\nbits = 4\nblock = 48\n', "48"),
        ('about = "x"\n[[weights]]\nbits = 8\ngraph = "dekoder"\n', "dekoder"),
        ('about = "x"\n[[weights]]\nbits = 8\nname = "lfm.layers.99.*"\n', "layers.99"),
        ('about = "x"\n[[weights]]\nbits = 4\ngraph = "audio_embeddings"\n', "audio_embeddings"),
        ("about = 3", "about"),
        ("[[weights", "recipe.toml cannot be read"),
        ("weights = []", "about"),
    ],
    ids=["bits", "block", "graph", "name", "table", "type", "toml", "no-about"],
)
def test_a_recipe_that_cannot_be_followed(cli, bundles, tmp_path, recipe, words):
    (tmp_path / "recipe.toml").write_text(recipe)
    cli.refuses("quantize", bundles["lfm2"], "-o", "out", "--recipe", "recipe.toml", saying=words)


def test_what_cannot_be_quantised(cli, quantized, bundles):
    cli.refuses("quantize", bundles["lfm2"], "-o", "out", "--recipe", "int7", saying="int4, int8")
    small = quantized["lfm2", "int8"].directory
    cli.refuses("quantize", small, "-o", "out", saying="Start from the float32 bundle")
    cli.refuses("quantize", bundles["lfm2"], "-o", bundles["lfm2"], saying="another folder")
    cli.refuses("quantize", "none", "-o", "out", saying="no bundle")


def test_a_failure_leaves_nothing_behind(bundles, tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("voxrill.quantize.bundle.write_manifest", no_space)
    with pytest.raises(voxrill.VoxrillError, match="No space left"):
        quantize_bundle(open_bundle(bundles["lfm2"]), tmp_path / "out", RECIPES["int8"])
    assert list(tmp_path.iterdir()) == []


def test_blocks_shrink_to_weights_that_are_smaller(bundles, tmp_path):
    recipe = Recipe("test", (Rule(8), Rule(4, "decoder", block=256)))
    made = quantize_bundle(open_bundle(bundles["lfm2"]), tmp_path / "out", recipe)
    smaller = report(made)["decoder"]["smaller_blocks"]
    nodes = {n.input[1]: n for n in graph(made, "decoder").graph.node if n.op_type == "MatMulNBits"}
    sizes = {name: {a.name: a.i for a in nodes[f"{name}_int4"].attribute} for name in smaller}
    assert smaller and all(sizes[name]["block_size"] == block <= sizes[name]["K"] for name, block in smaller.items())
    assert smoke_run(made)


def test_a_weight_smaller_than_every_block_is_refused(tmp_path):
    from onnx import helper

    weight = numpy_helper.from_array(np.ones((8, 600), np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy")
    small = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save_model(helper.make_model(small, ir_version=9), str(tmp_path / "g.onnx"))
    with pytest.raises(DataError, match="fewer than the smallest block, 16"):
        quantize_graph("g", tmp_path / "g.onnx", tmp_path / "out.onnx", Recipe("test", (Rule(4),)))


def test_fixed_shapes_can_be_quantised(npu_models, tmp_path):
    """Of the npu flavour: tables of positions that were folded are matrices for each head, and stay."""
    made = quantize_bundle(npu_models["lfm2"].bundle, tmp_path / "out", read_recipe("int8"))
    kept = report(made)["audio_encoder"]["kept"]
    assert any("attention head" in reason for reason in kept.values())
    assert smoke_run(made)


def test_the_head_may_stay_float32(bundles, models, tmp_path):
    recipe = Recipe("test", (Rule(8), Rule(32, "text_head"), Rule(32, "audio_embeddings")))
    made = quantize_bundle(open_bundle(bundles["lfm2"]), tmp_path / "out", recipe)
    rows = voxrill.load(made.directory, threads=1).parts.embed_tokens([5, 9])
    assert np.array_equal(rows, models["lfm2"].parts.embed_tokens([5, 9]))


def test_unusable_rules_are_named():
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe("nothing-of-the-kind")


def test_two_at_once_into_one_folder_leave_a_whole_bundle(bundles, tmp_path):
    """Each writes into a hidden folder of its own; the last one to finish stays."""
    target, recipe = tmp_path / "small", read_recipe("int8")
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(quantize_bundle, open_bundle(bundles["lfm2.5"]), target, recipe, force=True) for _ in range(2)
        ]
    for one in made:
        one.result()
    verify_files(open_bundle(target))
    assert list(tmp_path.iterdir()) == [target]
