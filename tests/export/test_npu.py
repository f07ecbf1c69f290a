"""The npu flavour on Qualcomm's compiler and simulator. A simulator is no phone: nothing here speaks of speed.

The built-in model, from its own checkpoint, in shapes as small as its question allows: simulating is slow.
"""

import json
import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.places import ROOT
from voxrill.devices.choice import choose
from voxrill.devices.qnn import Htp, sdk_version
from voxrill.devices.socs import CHECKED, SOCS
from voxrill.runtime.bundle.bundle import Bundle, open_bundle
from voxrill.runtime.bundle.compiled import compile_bundle, compiled_folder, npu_graphs, open_compiled
from voxrill.runtime.bundle.contract import DECODER, DECODER_PREFILL, StaticShapes, is_for_npu
from voxrill.runtime.bundle.replacing import COMPILED_FILE
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import BundleError, ChipError

CHECKPOINT = ROOT / "pebble" / "checkpoint"
CLIPS = [ROOT / "tests" / "pebble" / f"{name}.flac" for name in ("04-known", "06-known", "30-outside")]
SHAPES = StaticShapes(mel_frames=160, prefill=16, context=128)
HTP, OLDEST = (Htp(SOCS[soc]) for soc in ("SM8650", "SM8350"))
CHOICE = choose(["qnn:soc=SM8650"])
FORMS = ("npu-int4", "npu-a16w8")

simulated = pytest.mark.skipif(
    find_spec("onnxruntime_qnn") is None,
    reason="onnxruntime-qnn is not installed: pip install voxrill[npu]",
)


@pytest.fixture(scope="module")
def float_bundle(made_once, exporter) -> Bundle:
    """Pebble in the npu flavour, float32."""
    from voxrill.export.checkpoint import open_checkpoint

    logging.disable()  # torch's tracer logs thousands of lines
    try:
        folder = made_once(
            "pebble-npu",
            lambda out: exporter.export_bundle(open_checkpoint(CHECKPOINT), out, exporter.ExportOptions(SHAPES)),
        )
    finally:
        logging.disable(logging.NOTSET)
    return open_bundle(folder)


@pytest.fixture(scope="module")
def quantised(made_once, float_bundle):
    """`quantised(recipe)`: the same in one of the two forms for NPUs."""
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe
    from voxrill.runtime.audio.sound_source import as_waveform

    sounds = [as_waveform(clip) for clip in CLIPS]

    def make(recipe: str) -> Bundle:
        return open_bundle(
            made_once(
                f"pebble-{recipe}",
                lambda out: quantize_bundle(float_bundle, out, read_recipe(recipe), sounds=sounds),
            )
        )

    return make


def answer(model: Engine):
    *_, end = model.chat(audio=CLIPS[0])
    return end.result


# A whole turn


@simulated
@pytest.mark.parametrize(
    ("recipe", "chip"),
    [("npu-int4", HTP), ("npu-a16w8", HTP), pytest.param("npu-a16w8", OLDEST, marks=pytest.mark.slow)],
)
def test_a_spoken_turn_on_the_simulator_says_the_same_words(quantised, recipe, chip):
    bundle = quantised(recipe)
    on_cpu, on_npu = answer(Engine(bundle)), answer(Engine(bundle, choice=choose([f"qnn:soc={chip.soc.name}"])))
    assert on_npu.text == on_cpu.text and len(on_cpu.text.split()) > 2
    assert on_npu.codes.shape == on_cpu.codes.shape
    assert (on_npu.codes == on_cpu.codes).mean() >= 0.95
    noise = on_npu.samples - on_cpu.samples
    assert np.square(noise).mean() <= 1e-2 * np.square(on_cpu.samples).mean()


@pytest.mark.parametrize("recipe", FORMS)
def test_both_forms_say_what_float32_says(float_bundle, quantised, recipe):
    assert answer(Engine(quantised(recipe))).text == answer(Engine(float_bundle)).text


# The check


@simulated
@pytest.mark.parametrize("recipe", FORMS)
def test_both_forms_are_ready_on_three_chips(cli, quantised, recipe):
    bundle = quantised(recipe)
    ran = cli("npu-check", bundle.directory, "--json")
    found = json.loads(ran.out)
    assert ran.status == 0 and found["ready"], ran.out
    assert [graph["graph"] for graph in found["graphs"]] == npu_graphs(bundle)
    for graph in found["graphs"]:
        assert [chip["soc"] for chip in graph["chips"]] == list(CHECKED)
        for chip in graph["chips"]:
            assert chip["same_bits"] and 0 < chip["difference"] < 0.03
            assert chip["context"] < 2 * graph["size"]


@simulated
def test_integers_are_ready_on_the_oldest_chip_and_floats_are_not(cli, quantised):
    ran = cli("npu-check", quantised("npu-a16w8").directory, "--soc", OLDEST.soc.name, "--json")
    assert ran.status == 0 and json.loads(ran.out)["ready"], ran.out
    says = ("decoder.onnx", "SM8350", "--recipe npu-a16w8", "v68 computes with integers only")
    cli.refuses("npu-check", quantised("npu-int4").directory, "--graph", DECODER, "--soc", OLDEST.soc.name, saying=says)


@simulated
@pytest.mark.parametrize(("context", "prefill"), [(512, 32), (1024, 128), (2048, 128)])
def test_the_backbone_compiles_in_every_size(exporter, tmp_path, context, prefill):
    from voxrill.export.checkpoint import open_checkpoint
    from voxrill.export.graphs import plan_graphs, read_model_spec
    from voxrill.export.npu_graphs import check_graph
    from voxrill.export.write import write_graph

    checkpoint = open_checkpoint(CHECKPOINT)
    plans = plan_graphs(checkpoint, read_model_spec(checkpoint), StaticShapes(context=context, prefill=prefill))
    for name in (DECODER, DECODER_PREFILL):
        write_graph(plans[name], tmp_path)
        check_graph(tmp_path / f"{name}.onnx")
        HTP.session(tmp_path / f"{name}.onnx")


@simulated
def test_the_other_family_s_codec_is_ready_too(cli, npu_bundles):
    ran = cli("npu-check", npu_bundles["lfm2"], "--graph", "mimi_decoder", "--soc", "SM8650", "--json")
    assert ran.status == 0, ran.out + ran.err


def test_what_stays_on_the_cpu(float_bundle):
    assert {name for name in float_bundle.manifest.graphs if not is_for_npu(name)} == {
        "text_head",
        "depthformer",
        "audio_detokenizer",
    }


@simulated
def test_a_disagreement_is_not_ready(cli, float_bundle, monkeypatch):
    from voxrill.export import npu_check

    monkeypatch.setattr(npu_check, "TOLERANCE", 1e-6)
    ran = cli("npu-check", float_bundle.directory, "--graph", DECODER, "--soc", "sm8650")
    assert ran.status == 1
    assert "not ready" in ran.out and "v75" in ran.out and "same bits" in ran.out


# What is refused


def graph_of(path: Path, *nodes, shape=(1, 4)) -> Path:
    """A graph from x to y."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "graph", values[:1], values[1:])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(path))
    return path


def test_a_refused_operator_is_named(tmp_path):
    from voxrill.export.npu_graphs import check_graph

    path = graph_of(tmp_path / "a.onnx", helper.make_node("Shrink", ["x"], ["y"], name="bend"))
    with pytest.raises(BundleError, match=r"a.onnx: node bend is a Shrink, .*--flavour npu"):
        check_graph(path)


def test_a_dynamic_dimension_is_named(tmp_path):
    from voxrill.export.npu_graphs import check_graph

    node = helper.make_node("Relu", ["x"], ["y"], name="cut")
    with pytest.raises(BundleError, match=r"axis 1 of x is dynamic \(time\)"):
        check_graph(graph_of(tmp_path / "a.onnx", node, shape=(1, "time")))


@simulated
def test_what_the_provider_refuses_is_named(tmp_path):
    path = graph_of(tmp_path / "a.onnx", helper.make_node("Shrink", ["x"], ["y"], name="bend"))
    with pytest.raises(ChipError, match=r"bend \(Shrink\)"):
        HTP.session(path)


def test_an_8_bit_bundle_is_refused(cli, float_bundle, tmp_path):
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe

    quantize_bundle(float_bundle, tmp_path / "int8", read_recipe("int8"))
    cli.refuses("npu-check", "int8", saying=("DynamicQuantizeMatMul", "--recipe npu-int4"))


def test_a_recipe_for_npus_wants_the_flavour(cli, bundles, tmp_path):
    says = ("cpu flavour", "--flavour npu")
    cli.refuses(
        "quantize", bundles["lfm2.5"], "-o", "out", "--recipe", "npu-a16w8", "--audio", CLIPS[0].parent, saying=says
    )


def test_another_chip_flavour_or_graph_is_refused(cli, float_bundle):
    for command in ("npu-check", "compile"):
        says = ("no chip 'SM1'", "SM8650 (Snapdragon 8 Gen 3)")
        cli.refuses(command, float_bundle.directory, "--soc", "SM1", saying=says)
    builtin = ROOT / "src" / "voxrill" / "pebble" / "bundle"
    cli.refuses("npu-check", builtin, saying=("cpu flavour", "--flavour npu"))
    cli.refuses("npu-check", float_bundle.directory, "--graph", "depthformer", saying=("depthformer", "decoder"))


def test_a_missing_package_has_its_pip_line(cli, float_bundle, monkeypatch):
    monkeypatch.setattr("voxrill.devices.plugins.Plugin.load", lambda plugin: None)
    monkeypatch.setattr("voxrill.devices.plugins._devices", lambda plugin: [])
    monkeypatch.setattr("voxrill.devices.plugins._registered", set())
    for command in (("npu-check",), ("compile", "--soc", "SM8650")):
        says = ("onnxruntime-qnn is not installed", "pip install onnxruntime-qnn")
        cli.refuses(*command, float_bundle.directory, saying=says)


# The compiled form


@pytest.fixture
def copy(float_bundle, tmp_path) -> Bundle:
    """A copy that may be changed."""
    from voxrill.runtime.bundle.bundle import link_file

    for file in float_bundle.directory.iterdir():
        if file.is_file():
            link_file(file, tmp_path / "copy" / file.name)
    return open_bundle(tmp_path / "copy")


@simulated
def test_compiling_goes_on_where_it_was_stopped(cli, copy, monkeypatch):
    compiled, session = [], Htp.session

    def stopped(self, graph, context=None):
        if len(compiled) == 2:
            raise KeyboardInterrupt
        compiled.append(graph.stem)
        return session(self, graph, context)

    monkeypatch.setattr(Htp, "session", stopped)
    with pytest.raises(BundleError, match="interrupted: the graphs compiled so far are kept"):
        compile_bundle(copy, HTP)
    monkeypatch.setattr(Htp, "session", session)
    assert list(open_compiled(copy, HTP.soc)) == compiled == npu_graphs(copy)[:2]
    first = {path.name: path.stat().st_mtime_ns for path in compiled_folder(copy, HTP.soc).glob(f"{compiled[0]}*")}
    ran = cli("compile", copy.directory, "--soc", "SM8650", "--json")
    assert list(json.loads(ran.out)["graphs"]) == npu_graphs(copy) == list(open_compiled(copy, HTP.soc))
    again = {path.name: path.stat().st_mtime_ns for path in compiled_folder(copy, HTP.soc).glob(f"{compiled[0]}*")}
    assert len(first) == 2 and again == first
    assert open_compiled(copy, SOCS["SM8750"]) == {}


@simulated
def test_another_sdk_s_or_a_changed_context_is_refused(copy):
    compile_bundle(copy, HTP)
    manifest = compiled_folder(copy, HTP.soc) / COMPILED_FILE
    whole = manifest.read_bytes()
    remedy = f"voxrill compile {copy.directory} --soc SM8650"
    for there, then, says in (
        (sdk_version(), "1.2.3", f"are of SDK 1.2.3; here is {sdk_version()}"),
        (copy.sha256, "0" * 64, "are of another bundle"),
        ('"graphs"', '"grafs" x', "cannot be read"),
    ):
        manifest.write_bytes(whole.replace(there.encode(), then.encode()))
        with pytest.raises(BundleError, match=says) as refused:
            Engine(copy, choice=CHOICE)
        assert remedy in str(refused.value)
    manifest.write_bytes(whole)
    binary = open_compiled(copy, HTP.soc)[DECODER].with_name("decoder_qnn.bin")
    binary.write_bytes(binary.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"the context binary of decoder .* was changed"):
        open_compiled(copy, HTP.soc)
    compile_bundle(copy, HTP)
    assert set(open_compiled(copy, HTP.soc)) == set(npu_graphs(copy))


@simulated
def test_a_model_runs_from_its_context_binaries(copy):
    compile_bundle(copy, HTP)
    model = Engine(copy, choice=CHOICE)
    names = npu_graphs(copy)
    assert {name for name, graph in model.graphs.items() if graph.provider.name == "qnn"} == set(names)
    assert {graph.provider.name for name, graph in model.graphs.items() if name not in names} == {"cpu"}
    rows = copy.table(copy.manifest.text_embeddings).rows(np.arange(3))
    backbone = model.parts.backbone
    hidden = backbone.forward(rows, backbone.new_state())
    on_cpu = Engine(copy).parts.backbone
    wanted = on_cpu.forward(rows, on_cpu.new_state())
    assert 0 < np.linalg.norm(hidden - wanted) <= 0.03 * np.linalg.norm(wanted)
