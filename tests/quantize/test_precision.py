"""`voxrill export --precision`: the bundle that export and quantize make in two steps, and all of it or nothing.

Exporting takes most of a minute, so what follows an export is tested on a copy of one that is there.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import Ran, check_refusal, clean_environment, contents
from voxrill.runtime.bundle.bundle import open_bundle, verify_files
from voxrill.runtime.bundle.manifest import FLOAT32, REPORT_FILE, read_manifest

pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

FAILURES = {
    "full-disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    "ctrl-c": (KeyboardInterrupt(), "interrupted: nothing was written"),
}


@pytest.fixture
def exported(exporter, bundles, monkeypatch) -> list[Path]:
    """Whatever is named is a checkpoint, and exporting it is copying the tiny bundle; where to, in order."""
    original, targets = bundles["lfm2"], []

    def copy(_checkpoint, target, *_):
        shutil.copytree(original, target)
        targets.append(target)
        return open_bundle(target)

    monkeypatch.setattr("voxrill.export.hub.find_checkpoint", lambda *_: None)
    monkeypatch.setattr(exporter, "export_bundle", copy)
    return targets


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe file: 4 bits where the tiny model's weights are large enough."""
    path = tmp_path / "mine.toml"
    path.write_text('about = "mine"\n[[weights]]\nbits = 8\n[[weights]]\ngraph = "decoder"\nbits = 4\nblock = 32\n')
    return path


def test_the_bundle_is_that_of_export_and_quantize(cli, exporter, tiny_checkpoints, bundles):
    """A real export of graphs that are traced once a run. Its report holds seconds, so that one file differs."""
    ran = cli("export", tiny_checkpoints["lfm2.5"], "-o", "at-once", "--precision", "int8")
    assert ran.status == 0 and ran.out == "" and "wrote at-once: " in ran.err
    assert cli("quantize", bundles["lfm2.5"], "-o", "in-two-steps", "--recipe", "int8").status == 0
    made, wanted = read_manifest(Path("at-once")), read_manifest(Path("in-two-steps"))
    assert set(made.files) == set(wanted.files)
    assert {name for name in made.files if made.files[name].sha256 != wanted.files[name].sha256} == {REPORT_FILE}
    assert made.graphs == wanted.graphs and made.source == wanted.source and made.name == wanted.name
    assert {made.graphs[name].precision for name in ("decoder", "depthformer")} == {"int8"}
    verify_files(open_bundle(Path("at-once")))
    assert sorted(os.listdir()) == ["at-once", "in-two-steps"]


def test_after_the_export_the_bytes_are_those_of_quantize(cli, exported, bundles, recipe):
    ran = cli("export", "checkpoint", "-o", "small", "--precision", recipe)
    assert cli("quantize", bundles["lfm2"], "-o", "wanted", "--recipe", recipe).status == 0
    assert ran.status == 0 and "times smaller than float32" in ran.err.splitlines()[-1]
    assert contents(Path("small")) == contents(Path("wanted"))
    assert [target.parent.parent.resolve() for target in exported] == [Path.cwd()]
    assert sorted(os.listdir()) == ["mine.toml", "small", "wanted"]


@pytest.mark.parametrize("words", [(), ("--precision", FLOAT32)], ids=["default", "float32"])
def test_float32_is_not_quantised(cli, exported, bundles, words):
    ran = cli("export", "checkpoint", "-o", "bundle", *words)
    assert ran.status == 0 and "smaller" not in ran.err
    assert exported == [Path("bundle")]
    assert contents(Path("bundle")) == contents(bundles["lfm2"])


def test_an_older_bundle_is_replaced(cli, exported, bundles):
    shutil.copytree(bundles["lfm2"], "small")
    Path(".small.0123abcd.partial").mkdir()  # as a run that was killed left it
    assert cli("export", "checkpoint", "-o", "small", "--precision", "int8", "--force").status == 0
    assert read_manifest(Path("small")).graphs["decoder"].precision == "int8"
    assert os.listdir() == ["small"]


# What is refused before anything is exported: there is no checkpoint at all


def test_a_bad_recipe_is_said_first(cli, tmp_path):
    cli.refuses("export", "nowhere", "-o", "b", "--precision", "int7", saying="int4, int8")
    (tmp_path / "bad.toml").write_text('about = "x"\n[[weights]]\nbits = 7\n')
    cli.refuses("export", "nowhere", "-o", "b", "--precision", "bad.toml", saying="bad.toml cannot be read")


def test_a_recipe_without_end_is_not_read_to_it(cli):
    if not Path("/dev/zero").exists():
        pytest.skip("the system has no endless file")
    cli.refuses("export", "nowhere", "-o", "b", "--precision", "/dev/zero", saying="/dev/zero is larger than 4 MB")


def test_a_place_that_is_no_bundle_is_said_first(cli, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    cli.refuses("export", "nowhere", "-o", "full", "--precision", "int8", saying="full exists and is not a bundle")
    cli.refuses("export", "nowhere", "-o", ".", "--precision", "int8", saying="Give -o a folder of its own")


def test_some_graphs_cannot_be_quantised_with_the_rest(cli):
    says = ("--graphs", "--precision", "voxrill quantize")
    cli.refuses("export", "nowhere", "-o", "b", "--precision", "int8", "--graphs", "decoder", saying=says)


def test_without_the_extra(tmp_path):
    script = "import sys\nsys.modules['onnx'] = None\nfrom voxrill.__main__ import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, "export", "nowhere", "-o", "b", "--precision", "int8"],
        capture_output=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    says = ("onnx is not installed", 'pip install "voxrill[quantize]"')
    check_refusal(Ran(done.returncode, done.stdout, done.stderr.decode()), says)


# What fails on the way


@pytest.mark.parametrize(("error", "says"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("step", ["voxrill.quantize.bundle.write_manifest", "voxrill.quantize.bundle.large_weights"])
def test_the_old_bundle_survives(cli, exported, bundles, monkeypatch, step, error, says):
    def fails(*_):
        raise error

    monkeypatch.setattr(step, fails)
    shutil.copytree(bundles["lfm2"], "small")
    cli.refuses("export", "checkpoint", "-o", "small", "--precision", "int8", "--force", saying=says)
    assert len(exported) == 1


def test_a_failed_export_leaves_nothing(cli, tiny_checkpoints, exporter, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "write_graph", fails)
    words = ("export", tiny_checkpoints["lfm2"], "-o", "small", "--precision", "int8")
    cli.refuses(*words, saying="interrupted: nothing was written")


def test_a_recipe_for_another_model_leaves_nothing(cli, exported, tmp_path):
    (tmp_path / "other.toml").write_text('about = "x"\n[[weights]]\nbits = 8\ngraph = "dekoder"\n')
    cli.refuses("export", "checkpoint", "-o", "small", "--precision", "other.toml", saying="dekoder")


def test_help_shows_it(cli):
    assert "--precision" in cli("export", "--help").out
