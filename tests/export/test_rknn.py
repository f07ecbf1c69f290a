"""Encoder and codec on Rockchip's simulator, where its toolkit is: make .venv-rknn/.installed. It is no silicon."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.places import ROOT
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.errors import BundleError

PYTHON = ROOT / ".venv-rknn" / "bin" / "python"

with_toolkit = pytest.mark.skipif(
    not PYTHON.exists(), reason="rknn-toolkit2 is not installed: make .venv-rknn/.installed"
)


def graph_of(path: Path, operator: str, opset: int) -> Path:
    """A graph of one node, `bend`, from x to y."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in ("x", "y")]
    node = helper.make_node(operator, ["x"], ["y"], name="bend")
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), str(path))
    return path


@with_toolkit
@pytest.mark.parametrize(
    ("family", "graphs"), [("lfm2.5", ["audio_encoder"]), ("lfm2", ["audio_encoder", "mimi_decoder"])]
)
def test_encoder_and_codec_are_ready_in_float16(cli, npu_bundles, family, graphs):
    ran = cli("npu-check", npu_bundles[family], "--rknn", PYTHON, "--json")
    assert ran.status == 0, ran.out + ran.err
    found = json.loads(ran.out)
    assert found["ready"] and [graph["graph"] for graph in found["graphs"]] == graphs
    for graph in found["graphs"]:
        half, eight = graph["forms"]
        assert (half["precision"], eight["precision"]) == ("float16", "int8")
        assert 0 < half["difference"] < 0.03 and half["difference"] < eight["difference"]
        assert half["refused"] == [] and half["on_cpu"]


@with_toolkit
def test_a_node_without_a_kernel_is_named(tmp_path):
    from voxrill.export.rknn_session import simulated

    with simulated(PYTHON, graph_of(tmp_path / "a.onnx", "Shrink", 19)) as session:
        assert session.refused == ["bend (Shrink)"]


@with_toolkit
def test_a_graph_that_the_toolkit_refuses_is_said_with_its_reason(tmp_path):
    from voxrill.export.rknn_session import simulated

    graph = graph_of(tmp_path / "a.onnx", "Unheard", 19)
    with pytest.raises(BundleError, match=r"rknn-toolkit2 refuses a.onnx: .*Unheard"), simulated(PYTHON, graph):
        pass


def test_an_older_opset_computes_the_same(tmp_path):
    from voxrill.export.rknn_session import NEWEST_OPSET, write_older

    graph = graph_of(tmp_path / "a.onnx", "Gelu", 20)
    assert write_older(graph, tmp_path / "b.onnx") == ["x"]
    older = onnx.load(str(tmp_path / "b.onnx"))
    assert [opset.version for opset in older.opset_import] == [NEWEST_OPSET]
    onnx.checker.check_model(older)
    x = np.array([[-3, -0.5, 0, 2]], np.float32)
    wanted, found = (
        ort.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for name in ("a.onnx", "b.onnx")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_an_interpreter_without_the_toolkit_is_refused(cli, npu_bundles):
    bundle = npu_bundles["lfm2.5"]
    cli.refuses("npu-check", bundle, "--rknn", sys.executable, saying=("has no rknn-toolkit2", "pip install"))
    cli.refuses("npu-check", bundle, "--rknn", "no/python", saying=("no/python cannot be run", "pip install"))


def test_another_bundle_graph_or_chip_is_refused(cli, npu_bundles, tmp_path):
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe

    bundle = npu_bundles["lfm2.5"]
    cli.refuses("npu-check", bundle, "--rknn", PYTHON, "--graph", "decoder", saying=("decoder", "audio_encoder"))
    cli.refuses("npu-check", bundle, "--rknn", PYTHON, "--soc", "SM8650", saying=("RK3588", "Qualcomm"))
    quantize_bundle(open_bundle(bundle), tmp_path / "small", read_recipe("npu-int4"))
    cli.refuses("npu-check", "small", "--rknn", PYTHON, saying=("audio_encoder is in", "float32 bundle"))
