"""A bundle on disk: what its manifest says is true, it survives a journey, and damage on the way is noticed."""

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest

import voxrill
from tests.checkpoints import FAMILIES
from tests.command_line import contents
from voxrill.commands import output
from voxrill.runtime.bundle import bundle as bundles_module
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, REPORT_FILE, Manifest, read_manifest

NAMES = {"lfm2": "lfm2-audio", "lfm2.5": "lfm2.5-audio"}
CODECS = {"lfm2": "mimi_decoder", "lfm2.5": "audio_detokenizer"}


@pytest.fixture
def bundle(bundles, tmp_path):
    """A bundle to damage."""
    return Path(shutil.copytree(bundles["lfm2"], tmp_path / "bundle"))


def flip_a_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# What a bundle says of itself


@pytest.mark.parametrize("family", FAMILIES)
def test_inspect_shows_what_it_is(cli, bundles, family, monkeypatch):
    monkeypatch.setattr(output.out, "width", 200)  # nothing is folded
    ran = cli("inspect", bundles[family])
    assert ran.status == 0 and ran.err == ""
    for wanted in (
        NAMES[family],
        f"{family} @ local",
        "LFM Open License v1.0 (https://www.liquid.ai/lfm-license)",
        "8 x 2049",
        f"{CODECS[family]}, 24000 Hz",
        "6 text : 12 audio",
        "Perform ASR.",
        "Respond with interleaved text and audio.",
    ):
        assert wanted in ran.out


@pytest.mark.parametrize("family", FAMILIES)
def test_inspect_for_machines_is_the_manifest(cli, bundles, family):
    ran = cli("inspect", bundles[family], "--json")
    assert ran.status == 0 and ran.err == ""
    assert ran.raw.count(b"\n") == 1
    assert msgspec.json.decode(ran.raw, type=Manifest) == read_manifest(bundles[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_manifest_lists_every_file(bundles, family):
    manifest = read_manifest(bundles[family])
    found = contents(bundles[family])
    del found[MANIFEST_FILE]
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == found
    assert {name: entry.size for name, entry in manifest.files.items()} == {
        name: (bundles[family] / name).stat().st_size for name in found
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_source_is_the_checkpoint(bundles, tiny_checkpoints, family):
    source = read_manifest(bundles[family]).source
    codec = {"lfm2": "tokenizer-*.safetensors", "lfm2.5": "audio_detokenizer/model.safetensors"}[family]
    digest = hashlib.sha256()
    for weights in ("model.safetensors", codec):
        digest.update(next(tiny_checkpoints[family].glob(weights)).read_bytes())
    assert source.name == family and source.revision == "local"
    assert source.weights_sha256 == digest.hexdigest()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_licence_of_the_weights_is_named(bundles, family):
    source = read_manifest(bundles[family]).source
    assert source.licence == "LFM Open License v1.0"
    text = (bundles[family] / "WEIGHTS_LICENCE").read_text(encoding="utf-8")
    assert source.licence in text and source.licence_url in text


@pytest.mark.parametrize("family", FAMILIES)
def test_the_report_says_how_close_each_graph_is(bundles, family):
    report = json.loads((bundles[family] / REPORT_FILE).read_text())
    manifest = read_manifest(bundles[family])
    specs = manifest.specs()
    assert set(report) == set(manifest.graphs) == set(specs)
    for name, graph in report.items():
        sizes = [tuple(sorted(tried["sizes"].items())) for tried in graph["tried"]]
        symbolic = any(isinstance(size, str) for tensor in specs[name].inputs for size in tensor.shape)
        assert len(set(sizes)) == len(sizes) >= (3 if symbolic else 1)
        for tried in graph["tried"]:
            assert set(tried["outputs"]) == {tensor.name for tensor in specs[name].outputs}
            for made in tried["outputs"].values():
                assert made["max_difference"] <= 1e-4 * made["scale"]
        assert max(graph["max_relative_difference"].values()) < 1e-4
        assert graph["seconds"] > 0 and graph["peak_memory_mb"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_files_tell_nothing_of_the_machine_they_were_made_on(bundles, family):
    here = str(Path(voxrill.__file__).parent.parent).encode()
    for path in bundles[family].iterdir():
        data = path.read_bytes()
        assert here not in data and str(bundles[family].parent).encode() not in data, path.name


# Checking


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flavour", ["cpu", "npu"])
def test_verify(cli, bundles, npu_bundles, family, flavour):
    folder = (bundles if flavour == "cpu" else npu_bundles)[family]
    ran = cli("verify", folder, "--json")
    assert ran.status == 0 and ran.err == ""
    found = json.loads(ran.out)
    assert found["ok"] is True and found["files"] == len(read_manifest(folder).files)
    graphs = set(read_manifest(folder).graphs)
    assert set(found["smoke_run_ms"]) == graphs | {"log_mel"}
    assert min(found["smoke_run_ms"].values()) > 0


def test_verify_for_people(cli, bundles):
    ran = cli("verify", bundles["lfm2"])
    assert ran.status == 0 and ran.err == ""
    assert ran.out.endswith("all as the manifest says\n") and ran.out.count("\n") == 1


def test_large_files_are_hashed_by_verify_alone(cli, bundle, monkeypatch):
    monkeypatch.setattr(bundles_module, "HASHED_ON_OPEN", 0)
    damaged = bundle / "depthformer.onnx"
    flip_a_byte(damaged, damaged.stat().st_size // 2)  # in a weight: `inspect` reads the rest
    assert cli("inspect", bundle).status == 0
    cli.refuses("verify", bundle, saying="depthformer.onnx does not have the SHA-256")
    cli.refuses("pack", bundle, "-o", "b.voxrill", saying="depthformer.onnx does not have the SHA-256")


def test_every_file_counts(cli, bundle, monkeypatch):
    monkeypatch.setattr(bundles_module, "HASHED_ON_OPEN", 0)
    for name in read_manifest(bundle).files:
        flip_a_byte(bundle / name, -1)
        cli.refuses("verify", bundle, saying=f"{name} does not have the SHA-256")
        flip_a_byte(bundle / name, -1)
    assert cli("verify", bundle).status == 0


# Exporting some graphs again


@pytest.fixture(scope="module")
def again(bundles, tiny_checkpoints, tmp_path_factory, exporter):
    """A bundle into which two graphs were traced again, from the same weights with a licence beside them."""
    from voxrill.export.checkpoint import open_checkpoint
    from voxrill.export.write import write_graph

    folder = tmp_path_factory.mktemp("again")
    checkpoint = Path(shutil.copytree(tiny_checkpoints["lfm2"], folder / "checkpoint"))
    (checkpoint / "LICENSE").write_text("Be kind.\n", encoding="utf-8")
    target = Path(shutil.copytree(bundles["lfm2"], folder / "bundle"))
    options = exporter.ExportOptions(graphs=("text_head", "audio_encoder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "write_graph", write_graph)
        exporter.export_bundle(open_checkpoint(checkpoint), target, options)
    return target


def test_exporting_is_deterministic_and_leaves_the_other_graphs_alone(bundles, again):
    was, now = contents(bundles["lfm2"]), contents(again)
    assert set(was) == set(now)
    assert {name for name in was if was[name] != now[name]} == {MANIFEST_FILE, REPORT_FILE, "WEIGHTS_LICENCE"}


def test_a_partly_exported_bundle_is_whole(cli, bundles, again):
    assert cli("verify", again).status == 0
    was, now = (json.loads((folder / REPORT_FILE).read_text()) for folder in (bundles["lfm2"], again))
    assert list(was) == list(now)
    assert {name for name in was if was[name]["seconds"] != now[name]["seconds"]} <= {"text_head", "audio_encoder"}
    assert [path.name for path in again.parent.iterdir() if path.name.startswith(".")] == []


def test_a_licence_beside_the_weights_goes_along(again):
    assert (again / "WEIGHTS_LICENCE").read_text(encoding="utf-8") == "Be kind.\n"


def test_what_a_checkpoint_says_of_itself(tiny_checkpoints, tmp_path, exporter):
    """Its name, its licence and that it is to be decoded without chance; a bare checkpoint has the family's."""
    from voxrill.export.checkpoint import open_checkpoint
    from voxrill.export.families import detect_family

    bare = open_checkpoint(tiny_checkpoints["lfm2.5"])
    family = detect_family(bare)
    assert not family.tasks.chat.audio.greedy
    checkpoint = Path(shutil.copytree(tiny_checkpoints["lfm2.5"], tmp_path / "folder"))
    assert open_checkpoint(checkpoint).name == "folder"
    config = json.loads((checkpoint / "config.json").read_text()) | {"_name_or_path": "someone/small"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "generation_config.json").write_text('{"do_sample": false}')
    (checkpoint / "README.md").write_text("---\nlicense: MIT\n---\n# Small\n")
    own = open_checkpoint(checkpoint)
    assert own.name == "someone/small"
    assert open_checkpoint(checkpoint, "given").name == "given"
    found = detect_family(own)
    assert (found.licence, found.licence_url) == ("MIT", "https://spdx.org/licenses/MIT")
    assert all(task.audio.greedy and task.text.greedy for task in (found.tasks.chat, found.tasks.speak))
    assert found.tasks.chat.system == family.tasks.chat.system
    (checkpoint / "README.md").write_text("---\nlicense: other\nlicense_name: lfm1.0\n---\nlicense: MIT\n")
    assert detect_family(own).licence == family.licence


def test_the_bundle_it_came_from_was_not_written_through(bundles, again):
    """Kept files are hard links while the new bundle is made."""
    bundles_module.verify_files(bundles_module.open_bundle(bundles["lfm2"]))
