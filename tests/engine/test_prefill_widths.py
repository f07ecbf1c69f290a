"""Several prefill graphs in a bundle of the npu flavour: chosen by what is left to take in, one file of weights."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.places import ROOT
from voxrill.runtime.bundle.bundle import Bundle, open_bundle
from voxrill.runtime.bundle.contract import DECODER, StaticShapes, is_prefill
from voxrill.runtime.engine.engine import Engine

CHECKPOINT = ROOT / "pebble" / "checkpoint"
CLIPS = [ROOT / "tests" / "pebble" / f"{name}.flac" for name in ("04-known", "06-known", "30-outside")]
SHAPES = StaticShapes(mel_frames=160, prefill=8, context=128, wider_prefill=(32,))
FORMS = ("float32", "npu-int4", "npu-a16w8")


@pytest.fixture(scope="module")
def forms(made_once, exporter):
    """`forms(name)`: Pebble with two prefill graphs, its weights apart as those of a large model are."""
    from voxrill.export import shared_weights, write
    from voxrill.export.checkpoint import open_checkpoint
    from voxrill.quantize import graph
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe
    from voxrill.runtime.audio.sound_source import as_waveform

    def make(name: str, out: Path) -> None:
        if name == "float32":
            exporter.export_bundle(open_checkpoint(CHECKPOINT), out, exporter.ExportOptions(SHAPES))
        else:
            sounds = [as_waveform(clip) for clip in CLIPS]
            quantize_bundle(made("float32"), out, read_recipe(name), sounds=sounds)

    def made(name: str) -> Bundle:
        return open_bundle(made_once(f"pebble-widths-{name}", lambda out: make(name, out)))

    logging.disable()  # torch's tracer logs thousands of lines
    with pytest.MonkeyPatch.context() as patch:
        for module in (write, graph, shared_weights):
            patch.setattr(module, "EXTERNAL_ABOVE", 1 << 20)
        yield made
    logging.disable(logging.NOTSET)


def answer(model: Engine):
    *_, end = model.chat(audio=CLIPS[0])
    return end.result


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_stored_once(forms, form):
    from voxrill.export.shared_weights import weights_size

    bundle = forms(form)
    prefills = [name for name in bundle.manifest.graphs if is_prefill(name)]
    assert prefills == ["decoder_prefill", "decoder_prefill_32"]
    whole = (bundle.directory / f"{DECODER}.onnx.data").stat().st_size
    for name in prefills:
        file = bundle.path(bundle.manifest.graphs[name].file)
        assert not file.with_name(f"{file.name}.data").exists()
        assert file.stat().st_size < whole / 4 and weights_size(file) > whole


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn is not installed")
@pytest.mark.parametrize("form", FORMS)
def test_every_graph_compiles_from_the_one_file(cli, forms, form):
    ran = cli("npu-check", forms(form).directory, "--soc", "SM8650", "--json")
    assert ran.status == 0, ran.out + ran.err


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_spoken_turn_says_the_same_words_with_one_width_and_with_two(forms, form):
    model = Engine(forms(form))
    said = answer(model)
    wide, narrow = ("decoder_prefill_32", "decoder_prefill")
    assert len(said.text.split()) > 2 and wide in model.times.stages and narrow in model.times.stages
    model.parts.backbone._prefills = [model.graphs[narrow]]
    assert answer(model).text == said.text


@pytest.mark.slow
def test_the_narrowest_graph_that_holds_the_rest_is_taken(forms, monkeypatch):
    model = Engine(forms("float32"))
    backbone, calls = model.parts.backbone, []
    for name in (DECODER, "decoder_prefill", "decoder_prefill_32"):
        graph = model.graphs[name]
        monkeypatch.setattr(graph, "run", lambda feeds, name=name, run=graph.run: calls.append(name) or run(feeds))
    rows = np.random.default_rng(0).standard_normal((42, model.manifest.model.backbone.hidden_size)).astype(np.float32)
    alone = {1: [DECODER], 2: ["decoder_prefill"], 8: ["decoder_prefill"], 9: ["decoder_prefill_32"]}
    for count, taken in {**alone, 33: ["decoder_prefill_32", DECODER], 42: ["decoder_prefill_32"] * 2}.items():
        calls.clear()
        backbone.forward(rows[:count], backbone.new_state())
        assert calls == taken


@pytest.mark.slow
def test_other_weights_are_not_shared(forms, tmp_path):
    from voxrill.export.shared_weights import share_weights

    float32 = forms("float32")
    proto = onnx.load(str(float32.path(f"{DECODER}.onnx")))
    for name, value in (("first", 0.0), ("second", 1.0)):
        for tensor in proto.graph.initializer:
            if len(tensor.raw_data) > 1024:
                tensor.raw_data = np.full(len(tensor.raw_data) // 4, value, np.float32).tobytes()
        place = {"save_as_external_data": True, "location": f"{name}.onnx.data"}
        onnx.save_model(onnx.ModelProto.FromString(proto.SerializeToString()), str(tmp_path / f"{name}.onnx"), **place)
    share_weights(tmp_path / "first.onnx", [tmp_path / "second.onnx"])
    assert (tmp_path / "second.onnx.data").is_file()


@pytest.mark.slow
def test_prefill_graphs_go_with_the_decoder(cli, exporter, npu_bundles, tiny_checkpoints, tmp_path):
    words = ("--flavour", "npu", "--mel-frames", 80, "--context", 64, "--prefill", 16, "--prefill", 4)
    ran = cli("export", tiny_checkpoints["lfm2.5"], "-o", "out", *words)
    assert ran.status == 0, ran.err
    static = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["static"]
    assert (static["prefill"], static["wider_prefill"]) == (4, [16])
    graphs = ("decoder.onnx", "decoder_prefill.onnx", "decoder_prefill_16.onnx", "depthformer.onnx")
    before = {name: (tmp_path / "out" / name).stat().st_ino for name in graphs}
    assert cli("export", tiny_checkpoints["lfm2.5"], "-o", "out", *words, "--graphs", "decoder").status == 0
    changed = [name for name in graphs if (tmp_path / "out" / name).stat().st_ino != before[name]]
    assert changed == [*graphs[:3]]


def test_a_manifest_without_further_widths_is_read(npu_bundles, tmp_path):
    from voxrill.runtime.bundle.manifest import decode_manifest

    content = json.loads((npu_bundles["lfm2.5"] / "manifest.json").read_bytes())
    del content["static"]["wider_prefill"]
    manifest = decode_manifest(json.dumps(content).encode(), "it")
    assert manifest.static.prefills == {"decoder_prefill": content["static"]["prefill"]}
