"""8-bit products are exact on every processor, also on x86 without VNNI, where two products are added in 16 bits."""

import warnings

import numpy as np
import pytest

import voxrill
from voxrill.devices import overflow
from voxrill.devices.providers import CPU, EXACT_ENTRY, open_foreign, session_options
from voxrill.runtime.engine.engine import Inexact

onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from onnx import helper, numpy_helper  # noqa: E402

from voxrill.quantize.weights import EXACT_LIMIT  # noqa: E402

ROWS, COLUMNS = 64, 24


def large_numbers(limit):
    """Inputs that become bytes near 255, and a weight of +-limit: two products are 64,770 for 127, beyond 16 bits."""
    chance = np.random.default_rng(0)
    x = chance.uniform(0.9, 1, (5, ROWS)).astype(np.float32)
    x[:, 0] = 1
    x[:, 1] = 0
    return x, (limit * chance.choice([1, 1, 1, -1], (ROWS, COLUMNS))).astype(np.int8)


def written(path, weight, products=1):
    """A graph of so many products with one weight."""
    outputs = [f"y{i}" for i in range(products)]
    nodes = [helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], [y], domain="com.microsoft") for y in outputs]
    stored = {"w": weight, "s": np.full(COLUMNS, 0.01, np.float32)}
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "products",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5, ROWS])],
            [helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, [5, COLUMNS]) for y in outputs],
            [numpy_helper.from_array(values, name) for name, values in stored.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    onnx.save_model(proto, str(path))
    return path


def exact(x, weight):
    return np.rint(x * 255.0).astype(np.int64) @ weight.astype(np.int64) / 255 * 0.01


def test_whether_products_overflow_is_what_they_do(tmp_path):
    """Only where they overflow are exact ones asked for: they are slower with VNNI, which needs none."""
    import onnxruntime as ort

    x, weight = large_numbers(127)
    options = session_options(threads=1, exact=False)
    (y,) = ort.InferenceSession(str(written(tmp_path / "one.onnx", weight)), options, providers=[CPU]).run(
        None, {"x": x}
    )
    overflows = not np.allclose(y, exact(x, weight), rtol=1e-5)
    assert overflow.products_overflow() == overflows
    assert session_options().get_session_config_entry(EXACT_ENTRY) == str(int(overflows))


@pytest.mark.parametrize("limit", [64, 65, 127])
@pytest.mark.parametrize("repack", [False, True])
def test_products_beyond_16_bits(tmp_path, limit, repack):
    import onnxruntime as ort

    x, weight = large_numbers(limit)
    graph = written(tmp_path / "one.onnx", weight)
    session = ort.InferenceSession(str(graph), session_options(threads=1, repack=repack), providers=[CPU])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], exact(x, weight), rtol=1e-5)


def test_a_shared_weight_of_small_numbers(tmp_path):
    """What `voxrill quantize` makes: it opens, and is exact."""
    import onnxruntime as ort

    x, weight = large_numbers(EXACT_LIMIT)
    graph = written(tmp_path / "two.onnx", weight, 2)
    session = ort.InferenceSession(str(graph), session_options(threads=1, repack=True), providers=[CPU])
    for y in session.run(None, {"x": x}):
        np.testing.assert_allclose(y, exact(x, weight), rtol=1e-5)


def test_a_graph_of_others_opens_whatever_it_shares(tmp_path, capfd):
    x, weight = large_numbers(127)
    session = open_foreign(written(tmp_path / "two.onnx", weight, 2), threads=1)
    assert [y.shape for y in session.run(None, {"x": x})] == [(5, COLUMNS)] * 2
    assert capfd.readouterr() == ("", "")


def test_an_old_bundle_loads_and_one_warning_says_what_mends_it(refuses_exact_products):
    """Voxrill 0.2 gave shared weights numbers up to 127, with which onnxruntime has no exact products."""
    refuses_exact_products("depthformer.onnx", "decoder.onnx")
    with pytest.warns(Inexact, match=r"no VNNI.*products of decoder, depthformer .*quantise the bundle again") as told:
        model = voxrill.load(threads=1)
    assert len(told) == 1
    assert [name for name, graph in model.graphs.items() if not graph.exact] == ["decoder", "depthformer"]


@pytest.mark.parametrize(("version", "asked"), [("1.20.1", "0"), ("1.29.0", "0"), ("1.30.0", "1"), ("2.0.0", "1")])
def test_an_old_onnxruntime_is_not_asked_for_exact_products(monkeypatch, version, asked):
    """It would end the process."""
    monkeypatch.setattr(overflow, "products_overflow", lambda: True)
    monkeypatch.setattr("onnxruntime.__version__", version)
    assert session_options().get_session_config_entry(EXACT_ENTRY) == asked


def test_what_an_old_onnxruntime_lacks_is_said_once(monkeypatch, bundles):
    """A model in float32 lacks nothing."""
    monkeypatch.setattr(overflow, "products_overflow", lambda: True)
    monkeypatch.setattr("onnxruntime.__version__", "1.29.0")
    with pytest.warns(Inexact, match=r"products of .*depthformer.* are cut off.*update onnxruntime to 1\.30") as told:
        voxrill.load(threads=1)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voxrill.load(bundles["lfm2"], threads=1)
