"""Compiling for a chip: one process at a time writes the bundle's folder for it, and nothing of a user is deleted."""

import shutil
from pathlib import Path

import pytest

from voxrill.devices.qnn import Htp, context_file
from voxrill.devices.socs import SOCS
from voxrill.runtime.bundle import compiled
from voxrill.runtime.bundle.atomic_folder import lock_folder, unlock
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.compiled import compile_bundle, compiled_folder, npu_graphs, open_compiled
from voxrill.runtime.errors import BundleError, UsageError

HTP = Htp(SOCS["SM8650"])


@pytest.fixture
def bundle(npu_bundles, tmp_path, monkeypatch):
    """A bundle for NPUs, and a compiler that writes a few bytes a graph."""

    def session(_self, graph, context):
        context.write_bytes(b"stands for it")
        context_file(context).write_bytes(graph.name.encode())

    monkeypatch.setattr(Htp, "session", session)
    monkeypatch.setattr(compiled, "sdk_version", lambda: "2.99")
    return open_bundle(Path(shutil.copytree(npu_bundles["lfm2.5"], tmp_path / "bundle")))


def test_every_graph_is_compiled_and_opened(bundle):
    form = compile_bundle(bundle, HTP)
    assert list(form.graphs) == npu_graphs(bundle) == list(open_compiled(bundle, HTP.soc))
    assert open_compiled(bundle, SOCS["SM8750"]) == {}


@pytest.mark.parametrize("name", ["notes.txt", "text_head.wav"])
def test_a_file_of_the_user_in_the_folder_is_not_deleted(bundle, name):
    folder = compiled_folder(bundle, HTP.soc)
    folder.mkdir(parents=True)
    (folder / name).write_text("years")
    with pytest.raises(UsageError, match=f"holds {name}, which is not Voxrill's"):
        compile_bundle(bundle, HTP)
    assert (folder / name).read_text() == "years"


def test_the_form_of_another_sdk_is_made_anew(bundle, monkeypatch):
    compile_bundle(bundle, HTP)
    monkeypatch.setattr(compiled, "sdk_version", lambda: "3.0")
    with pytest.raises(BundleError, match=r"are of SDK 2\.99; here is 3\.0"):
        open_compiled(bundle, HTP.soc)
    assert compile_bundle(bundle, HTP).sdk == "3.0"
    assert list(open_compiled(bundle, HTP.soc)) == npu_graphs(bundle)


def test_a_second_compiler_is_told_to_wait(bundle):
    folder = compiled_folder(bundle, HTP.soc)
    folder.mkdir(parents=True)
    lock = lock_folder(folder)
    if lock is None:
        pytest.skip("this system or file system has no locks")
    with pytest.raises(UsageError, match="another process is writing"):
        compile_bundle(bundle, HTP)
    unlock(lock)
    compile_bundle(bundle, HTP)


def test_a_stopped_run_is_gone_on_with(bundle, monkeypatch):
    done, session = [], Htp.session

    def stopped(self, graph, context):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(graph.stem)
        session(self, graph, context)

    with monkeypatch.context() as patch:
        patch.setattr(Htp, "session", stopped)
        with pytest.raises(BundleError, match="interrupted: the graphs compiled so far are kept"):
            compile_bundle(bundle, HTP)
    first = {name: written(bundle, name) for name in done}
    assert len(first) == 2 and set(compile_bundle(bundle, HTP).graphs) == set(npu_graphs(bundle))
    assert {name: written(bundle, name) for name in done} == first


def written(bundle, name):
    """When a graph was written."""
    return (compiled_folder(bundle, HTP.soc) / f"{name}.onnx").stat().st_mtime_ns
