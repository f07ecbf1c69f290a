"""What the tests share: tiny checkpoints and their bundles, made once a run, and the command line.

Exporting one family takes most of a minute, so bundles are made when a test first asks for them, and the workers
of pytest-xdist find each other's in one folder. Where nothing can be exported, for want of torch, VOXRILL_TESTS_MADE
names the folder where another run made them (`tests/arm`).
"""

import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

import voxrill
from benchmarks.talk.sound_server import SoundServer, check_pulseaudio
from tests.checkpoints import FAMILIES, make_checkpoint
from tests.command_line import CommandLine
from tests.places import ROOT
from tests.traced import traced_once
from voxrill.devices import kernels, overflow
from voxrill.devices.providers import EXACT_ENTRY
from voxrill.runtime.audio.devices import portaudio
from voxrill.runtime.bundle.contract import StaticShapes
from voxrill.runtime.errors import VoxrillError

os.environ["XDG_STATE_HOME"] = os.devnull  # nothing is remembered between two commands, nor in the user's own folder

NPU_SHAPES = StaticShapes(mel_frames=400, prefill=8, context=256)


class ByFamily(Mapping[str, Any]):
    """A value for each family, made when it is first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = cache(make)

    def __getitem__(self, family: str) -> Any:
        if family not in FAMILIES:
            raise KeyError(family)
        return self._make(family)

    def __iter__(self) -> Iterator[str]:
        return iter(FAMILIES)

    def __len__(self) -> int:
        return len(FAMILIES)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, request) -> Path:
    """A folder that all workers of a run have in common."""
    folder: Path = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist: its own folder lies in the run's.
    return folder.parent if hasattr(request.config, "workerinput") else folder


@pytest.fixture(scope="session")
def made_once(shared) -> Callable[[str, Callable[[Path], Any]], Path]:
    """`made_once(name, make)`: a folder that `make` filled, in this worker or in another."""

    def made(name: str, make: Callable[[Path], Any]) -> Path:
        if "VOXRILL_TESTS_MADE" in os.environ:
            folder = Path(os.environ["VOXRILL_TESTS_MADE"]) / name
            return folder if folder.is_dir() else pytest.skip(f"{folder} was not made")
        from filelock import FileLock  # comes with torch, which whatever is made here needs too

        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                make(shared / f"{name}-unfinished")
                (shared / f"{name}-unfinished").rename(folder)
        return folder

    return made


@pytest.fixture
def refuses_exact_products(monkeypatch) -> Callable[..., None]:
    """`refuses_exact_products(*files)`: products overflow here, and onnxruntime refuses those graphs with exact ones.

    x86 without VNNI does so, if several nodes share a weight of 8 bits with large numbers.
    """
    monkeypatch.setattr(overflow, "products_overflow", lambda: True)
    create = ort.InferenceSession._create_inference_session

    def refuse(*files: str) -> None:
        def opened(session: Any, *rest: Any) -> None:
            exact = session._sess_options.get_session_config_entry(EXACT_ENTRY) == "1"
            if exact and str(session._model_path).endswith(files):
                raise Fail("Attempt to replace the existing tensor")
            create(session, *rest)

        monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", opened)

    return refuse


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library of our own products, built from its sources; skips without a compiler that can do it."""
    from filelock import FileLock

    from kernels.build import NotBuilt, build

    base = tmp_path_factory.getbasetemp().parent
    with FileLock(base / "kernels.lock"):  # one worker of pytest-xdist builds
        try:
            build(kernels.here(), kernels.NATIVE)
        except (NotBuilt, KeyError) as reason:
            pytest.skip(f"the library of products: {reason}")
    kernels.own_products.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = kernels.own_products()
    if found.path is None:
        pytest.skip(f"the library of products: {found.reason}")
    return found


@pytest.fixture
def without_library(monkeypatch):
    """`without_library()`: from here on models are loaded as if our own products were not there."""

    def forget(reason: str = "") -> None:
        for module in ("engine.session", "engine.engine", "bundle.memory", "bundle.tuned"):
            monkeypatch.setattr(
                f"voxrill.runtime.{module}.own_products", lambda: kernels.OwnProducts(None, reason=reason)
            )

    return forget


@pytest.fixture(scope="session")
def exporter(shared):
    """`voxrill.export.bundle`, which traces equal graphs once a run."""
    return import_exporter(shared)


def import_exporter(shared: Path) -> Any:
    """Import `voxrill.export.bundle`: what torch and its like warn of on the way is not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="the export extra is not installed")
        from voxrill.export import bundle, write
    torch.set_num_threads(1)
    if bundle.write_graph is write.write_graph:
        bundle.write_graph = traced_once(write.write_graph, shared / "traced")
    return bundle


@pytest.fixture(scope="module")
def recipe():
    """Modules of `pebble` by name: `recipe("world")`."""
    folder = str(ROOT / "pebble")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="session")
def tiny_checkpoints(made_once) -> Mapping[str, Path]:
    """The tiny random checkpoint of each family."""
    return ByFamily(lambda family: made_once(family, lambda folder: make_checkpoint(folder, family, "tiny")))


@pytest.fixture(scope="session")
def bundles(shared, made_once, tiny_checkpoints) -> Mapping[str, Path]:
    """The cpu bundle of each family's tiny checkpoint; not to be changed."""
    return _exported(shared, made_once, tiny_checkpoints, "cpu", None)


@pytest.fixture(scope="session")
def npu_bundles(shared, made_once, tiny_checkpoints) -> Mapping[str, Path]:
    """The npu bundle of each family's tiny checkpoint; not to be changed."""
    return _exported(shared, made_once, tiny_checkpoints, "npu", NPU_SHAPES)


def _exported(shared, made_once, checkpoints, flavour: str, static: StaticShapes | None) -> Mapping[str, Path]:
    def export(family: str, folder: Path) -> None:
        exporter = import_exporter(shared)
        from voxrill.export.checkpoint import open_checkpoint

        logging.disable()  # torch's tracer logs thousands of lines, which pytest would keep for its report
        try:
            exporter.export_bundle(open_checkpoint(checkpoints[family]), folder, exporter.ExportOptions(static))
        finally:
            logging.disable(logging.NOTSET)

    return ByFamily(lambda family: made_once(f"{family}-{flavour}", lambda folder: export(family, folder)))


@pytest.fixture(scope="session")
def models(bundles) -> Mapping[str, voxrill.Model]:
    """Each family's model on one thread."""
    return ByFamily(lambda family: voxrill.load(bundles[family], threads=1))


@pytest.fixture(scope="session")
def npu_models(npu_bundles) -> Mapping[str, voxrill.Model]:
    """Each family's model of the npu flavour, on one thread."""
    return ByFamily(lambda family: voxrill.load(npu_bundles[family], threads=1))


@pytest.fixture(scope="session", params=FAMILIES)
def model(request, models) -> voxrill.Model:
    """Both families' models in turn."""
    return models[request.param]


@pytest.fixture
def cli(monkeypatch, capfdbinary, tmp_path) -> CommandLine:
    """The command line, run in `tmp_path`, without a default bundle."""
    monkeypatch.delenv("VOXRILL_BUNDLE", raising=False)
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capfdbinary)


@pytest.fixture
def sound_system():
    """That PulseAudio and PortAudio are there to be used."""
    try:
        check_pulseaudio()
        portaudio()
    except VoxrillError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def server(sound_system):
    """A private PulseAudio with one wire."""
    with SoundServer("test") as started:
        yield started


@pytest.fixture
def no_thread_is_left():
    """Whoever listened stopped listening."""
    yield
    assert "voxrill-listener" not in {thread.name for thread in threading.enumerate()}
