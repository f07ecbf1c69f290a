"""4-bit rounding: what is stored is what the kernel multiplies with, and each method is better at what it is for."""

import json

import numpy as np
import pytest
import soundfile

import voxrill
from tests import signals
from voxrill.runtime.bundle.bundle import open_bundle, verify_files
from voxrill.runtime.bundle.manifest import QUANTIZE_REPORT_FILE
from voxrill.runtime.errors import UsageError

onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from onnx import helper, numpy_helper  # noqa: E402

from voxrill.quantize.bundle import quantize_bundle  # noqa: E402
from voxrill.quantize.calibration import Calibration  # noqa: E402
from voxrill.quantize.gptq import to_gptq  # noqa: E402
from voxrill.quantize.graph import large_weights  # noqa: E402
from voxrill.quantize.k_quant import to_k_quant  # noqa: E402
from voxrill.quantize.recipe import Recipe, Rule  # noqa: E402
from voxrill.quantize.turns import record  # noqa: E402
from voxrill.quantize.weights import to_int4  # noqa: E402

ROWS, COLUMNS, BLOCK = 90, 24, 32
GPTQ = Recipe("test", (Rule(8), Rule(4, "decoder", "*.w2.*", 32, "gptq"), Rule(4, "depthformer", "*.w1.*", 32, "gptq")))


def numbers():
    """A weight with heavy tails, and correlated inputs of its product."""
    chance = np.random.default_rng(0)
    weight = chance.standard_t(3, (ROWS, COLUMNS)).astype(np.float32)
    inputs = chance.standard_normal((400, 12)) @ chance.standard_normal((12, ROWS))
    inputs += 0.1 * chance.standard_normal((400, ROWS))
    return weight, inputs.astype(np.float32)


def rounded(method):
    weight, inputs = numbers()
    if method == "gptq":
        return to_gptq(weight, BLOCK, inputs.T @ inputs)
    return (to_k_quant if method == "k_quant" else to_int4)(weight, BLOCK)


def shown(matrix):
    """(rows, columns): the numbers that a packed matrix stands for."""
    blocks = matrix.scales.reshape(COLUMNS, -1).shape[1]
    nibbles = np.stack([matrix.packed & 15, matrix.packed >> 4], -1).reshape(COLUMNS, blocks, BLOCK)
    zeros = np.stack([matrix.zero_points & 15, matrix.zero_points >> 4], -1).reshape(COLUMNS, -1)[:, :blocks]
    scales = matrix.scales.reshape(COLUMNS, blocks)
    steps = nibbles.astype(np.float32) - zeros[..., None]
    return (steps * scales[..., None]).reshape(COLUMNS, -1)[:, :ROWS].T


@pytest.mark.parametrize("method", ["round", "k_quant", "gptq"])
def test_the_kernel_multiplies_with_what_was_rounded_to(method):
    """An odd number of blocks, the last one not full."""
    import onnxruntime as ort

    matrix = rounded(method)
    stored = {"w": matrix.packed, "s": matrix.scales, "z": matrix.zero_points}
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s", "z"],
        ["y"],
        domain="com.microsoft",
        K=ROWS,
        N=COLUMNS,
        bits=4,
        block_size=BLOCK,
    )
    proto = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5, ROWS])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [5, COLUMNS])],
            [numpy_helper.from_array(values, name) for name, values in stored.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    x = np.random.default_rng(1).standard_normal((5, ROWS)).astype(np.float32)
    (y,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    assert np.abs(y - x @ shown(matrix)).max() <= 1e-3
    weight, _ = numbers()
    assert np.abs(shown(matrix) - weight).mean() < 0.25 * np.abs(weight).mean()


def test_k_quant_is_closer_where_tails_are_heavy():
    """Large numbers count more, as in its search."""
    weight, _ = numbers()
    errors = {name: (np.abs(weight) * (shown(rounded(name)) - weight) ** 2).mean() for name in ("round", "k_quant")}
    assert errors["k_quant"] < 0.9 * errors["round"]


def test_gptq_is_closer_in_the_product():
    weight, inputs = numbers()
    errors = {name: ((inputs @ (shown(rounded(name)) - weight)) ** 2).mean() for name in ("round", "gptq")}
    assert errors["gptq"] < 0.5 * errors["round"]


def test_columns_of_zeros_stay_zeros():
    weight = np.zeros((ROWS, COLUMNS), np.float32)
    eye = np.eye(ROWS, dtype=np.float32)
    for matrix in (to_int4(weight, BLOCK), to_k_quant(weight, BLOCK), to_gptq(weight, BLOCK, eye)):
        assert not shown(matrix).any()


@pytest.mark.parametrize("family", ["lfm2", "lfm2.5"])
def test_calibration_sees_what_the_products_are_given(models, family):
    """Asked weight by weight or all at once, and as large as rows that were normed can be."""
    model = models[family]
    turns = [record(model, signals.speech_like(20_000, 3), model.manifest.tasks.chat)]
    weights = large_weights(model.bundle.path(model.manifest.graphs["decoder"].file))
    calibration = Calibration(model, "decoder", weights, turns)
    first = next(weight for weight in weights if ".w1." in weight.name)
    moments = calibration.moments(first.name)
    assert np.allclose(moments, moments.T, rtol=1e-3, atol=1e-3 * np.abs(moments).max())
    assert np.linalg.eigvalsh(moments.astype(np.float64)).min() > -1e-3 * np.trace(moments)
    same_input = first.name.replace(".w1.", ".w3.")
    assert np.array_equal(calibration.moments(same_input), moments)
    again = Calibration(model, "decoder", [first], turns)
    assert np.array_equal(again.moments(first.name), moments)


@pytest.fixture
def questions(tmp_path):
    folder = tmp_path / "questions"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", signals.speech_like(16_000, number), 16_000)
    return folder


def test_a_bundle_rounded_by_gptq(bundles, tmp_path):
    sounds = [signals.speech_like(16_000, 1)]
    made = quantize_bundle(open_bundle(bundles["lfm2"]), tmp_path / "gptq", GPTQ, sounds=sounds)
    verify_files(made)
    methods = json.loads(made.path(QUANTIZE_REPORT_FILE).read_text())["graphs"]
    assert set(methods["decoder"]["methods"].values()) == {"gptq"}
    assert all(".w2." in name for name in methods["decoder"]["methods"])
    assert voxrill.load(made.directory).transcribe(sounds[0], max_new_tokens=3, sample_rate=16_000) is not None


def test_gptq_wants_sounds(cli, bundles, questions, tmp_path):
    recipe = tmp_path / "gptq.toml"
    entry = '[[weights]]\nbits = 4\nblock = 32\ngraph = "{}"\nmethod = "gptq"\n'
    recipe.write_text('about = "x"\n' + entry.format("decoder"))
    cli.refuses("quantize", bundles["lfm2.5"], "-o", "out", "--recipe", recipe, saying="--audio")
    ran = cli("quantize", bundles["lfm2.5"], "-o", tmp_path / "out", "--recipe", recipe, "--audio", questions)
    assert ran.status == 0 and "times smaller" in ran.err
    recipe.write_text('about = "x"\n' + entry.format("audio_encoder"))
    cli.refuses("quantize", bundles["lfm2.5"], "-o", "new", "--recipe", recipe, "--audio", questions, saying="k_quant")


def test_methods_are_for_4_bits(cli, bundles, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('about = "x"\n[[weights]]\nbits = 8\nmethod = "k_quant"\n')
    cli.refuses("quantize", bundles["lfm2"], "-o", "out", "--recipe", recipe, saying=("8 bits", "bits = 4"))
    recipe.write_text('about = "x"\n[[weights]]\nbits = 4\nmethod = "awq"\n')
    cli.refuses("quantize", bundles["lfm2"], "-o", "out", "--recipe", recipe, saying="method")


def test_a_model_that_never_speaks_cannot_calibrate_the_depthformer(models):
    model = models["lfm2"]
    weights = large_weights(model.bundle.path(model.manifest.graphs["depthformer"].file))
    with pytest.raises(UsageError, match="never make depthformer run"):
        Calibration(model, "depthformer", weights, [])
