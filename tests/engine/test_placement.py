"""Where a graph runs and from which file: what was chosen, what was compiled for a chip, what was tuned for the CPU."""

import shutil
from pathlib import Path

import msgspec
import pytest

from voxrill.devices.choice import choose
from voxrill.devices.socs import SOCS
from voxrill.runtime.bundle import compiled
from voxrill.runtime.bundle.bundle import file_entry, open_bundle
from voxrill.runtime.bundle.compiled import CompiledForm, CompiledGraph, compiled_folder, npu_graphs
from voxrill.runtime.bundle.replacing import COMPILED_FILE
from voxrill.runtime.bundle.tuned import PLAIN, TunedForm
from voxrill.runtime.engine.placement import place_graphs
from voxrill.runtime.errors import BundleError

CHIP = "SM8650"
SDK = "2.99"


@pytest.fixture
def bundle(npu_bundles, tmp_path, monkeypatch):
    """A bundle for NPUs with a compiled form, whose binaries are stand-ins."""
    opened = open_bundle(Path(shutil.copytree(npu_bundles["lfm2.5"], tmp_path / "bundle")))
    folder = compiled_folder(opened, SOCS[CHIP])
    folder.mkdir(parents=True)
    graphs = {}
    for name in npu_graphs(opened):
        (folder / f"{name}.onnx").write_bytes(name.encode())
        graphs[name] = CompiledGraph(f"{name}.onnx", {f"{name}.onnx": file_entry(folder / f"{name}.onnx")}, 1.0)
    form = CompiledForm(CHIP, SOCS[CHIP].arch, SDK, opened.sha256, graphs)
    (folder / COMPILED_FILE).write_bytes(msgspec.json.encode(form))
    monkeypatch.setattr(compiled, "sdk_version", lambda: SDK)
    return opened


def placed(bundle, *words, tuned=PLAIN):
    """By graph: the provider's name and the file, as seen from the bundle's folder."""
    found = place_graphs(bundle, choose(words), tuned)
    return {name: (one.provider.name, str(one.file.relative_to(bundle.directory))) for name, one in found.items()}


ON_CPU = {name: ("cpu", f"{name}.onnx") for name in ("text_head", "depthformer", "audio_detokenizer")}


def test_a_chip_takes_what_was_compiled_for_it(bundle):
    names = npu_graphs(bundle)
    assert set(names) == {"audio_encoder", "decoder", "decoder_prefill"}
    on_chip = {name: ("qnn", f"compiled/{CHIP}/{name}.onnx") for name in names}
    assert placed(bundle, f"qnn:soc={CHIP}") == {**on_chip, **ON_CPU}
    assert placed(bundle, "qnn:soc=sm8650") == {**on_chip, **ON_CPU}


def test_another_chip_takes_the_bundle_s_own_graphs(bundle):
    found = placed(bundle, "qnn:soc=SM8750")
    assert found["decoder"] == ("qnn", "decoder.onnx") and found["text_head"] == ON_CPU["text_head"]
    assert placed(bundle, "qnn")["decoder"] == ("qnn", "decoder.onnx")


def test_a_graph_that_is_named_goes_where_it_was_named(bundle):
    found = placed(
        bundle,
        *(f"qnn:soc={CHIP}", "decoder=cpu", f"text_head=qnn:soc={CHIP}", "audio_encoder=qnn:soc=SM8750"),
        f"audio_detokenizer=qnn:soc={CHIP}",
    )
    assert found["decoder"] == ("cpu", "decoder.onnx")
    assert found["text_head"] == ("qnn", "text_head.onnx")
    assert found["audio_encoder"] == ("qnn", "audio_encoder.onnx")
    assert found["audio_detokenizer"] == ("qnn", "audio_detokenizer.onnx")
    assert found["decoder_prefill"] == ("qnn", f"compiled/{CHIP}/decoder_prefill.onnx")


def test_other_providers_take_every_graph(bundle):
    assert {name for name, _ in placed(bundle, "openvino").values()} == {"openvino"}


def test_the_tuned_form_is_the_cpu_s(bundle):
    tuned = TunedForm({name: bundle.directory / "form" / f"{name}.onnx" for name in bundle.manifest.graphs})
    found = placed(bundle, f"qnn:soc={CHIP}", tuned=tuned)
    assert found["text_head"] == ("cpu", "form/text_head.onnx")
    assert found["decoder"] == ("qnn", f"compiled/{CHIP}/decoder.onnx")
    assert [one.tuned for one in place_graphs(bundle, choose(["openvino"]), tuned).values()] == [False] * 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "decoder.onnx").write_bytes(b"other"), "decoder .* was changed or is missing"),
        (lambda folder: (folder / "decoder.onnx").unlink(), "decoder .* was changed or is missing"),
        (lambda folder: (folder / COMPILED_FILE).write_text("{}"), "cannot be read"),
        (lambda folder: replace(folder, '"decoder.onnx"', '"../../../decoder.onnx"'), "cannot be read"),
        (lambda folder: replace(folder, '"file":"decoder.onnx"', '"file":"/dev/zero"'), "cannot be read"),
        (lambda folder: replace(folder, SDK, "1.0"), f"of SDK 1.0; here is {SDK}"),
        (lambda folder: replace(folder, '"bundle":"', '"bundle":"0'), "are of another bundle"),
    ],
    ids=["changed", "missing", "unreadable", "outside", "device", "sdk", "bundle"],
)
def test_a_compiled_form_that_does_not_fit_is_refused(bundle, change, says):
    change(compiled_folder(bundle, SOCS[CHIP]))
    with pytest.raises(BundleError, match=says) as refused:
        place_graphs(bundle, choose([f"qnn:soc={CHIP}"]), PLAIN)
    assert f"voxrill compile {bundle.directory} --soc {CHIP}" in str(refused.value)
    assert placed(bundle, "cpu")["decoder"] == ("cpu", "decoder.onnx")  # who does not ask for the chip is not bothered


def replace(folder, old, new):
    path = folder / COMPILED_FILE
    path.write_text(path.read_text().replace(old, new))


def test_the_cpu_flavour_is_given_to_the_provider_as_it_is(bundles):
    bundle = open_bundle(bundles["lfm2.5"])
    assert {name for name, _ in placed(bundle, f"qnn:soc={CHIP}").values()} == {"qnn"}
