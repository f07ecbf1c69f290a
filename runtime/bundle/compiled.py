"""The compiled form of an npu bundle: a context binary for each graph that the NPU runs, of one chip and one SDK.

In: a bundle and a chip. Out: the folder `compiled/CHIP` inside the bundle's folder, which no manifest lists. It holds
for each graph a small ONNX file that stands for the graph, and its binary. `compiled.json` says what they were made
with. It is written after each graph, so the next run continues where one was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from voxrill.devices.qnn import Htp, context_file, sdk_version
from voxrill.devices.socs import Soc
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.bundle.atomic_folder import flush, lock_folder, remove, unlock
from voxrill.runtime.bundle.bundle import Bundle, file_entry
from voxrill.runtime.bundle.contract import is_for_npu
from voxrill.runtime.bundle.manifest import FileEntry
from voxrill.runtime.bundle.replacing import COMPILED_FILE, COMPILED_FOLDER, check_only, form_files
from voxrill.runtime.errors import BundleError, UsageError
from voxrill.runtime.progress import Progress, no_progress


class CompiledGraph(msgspec.Struct, frozen=True):
    """One graph: the file that stands for it, every file with its size and hash, and the seconds it took."""

    file: str
    files: dict[str, FileEntry]
    seconds: float

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(entry.size for entry in self.files.values())


class CompiledForm(msgspec.Struct, frozen=True):
    """What `compiled.json` holds: the chip, the SDK's version, the bundle's SHA-256, and the graphs made so far."""

    soc: str
    arch: int
    sdk: str
    bundle: str
    graphs: dict[str, CompiledGraph] = {}


def npu_graphs(bundle: Bundle) -> list[str]:
    """The graphs of a bundle that an NPU runs.

    Raises:
        UsageError: it is of the cpu flavour.
    """
    if bundle.manifest.static is None:
        raise UsageError(
            f"{bundle.directory} is of the cpu flavour", "Make one for an NPU: voxrill export CHECKPOINT --flavour npu"
        )
    return [name for name in bundle.manifest.graphs if is_for_npu(name)]


def compiled_folder(bundle: Bundle, soc: Soc) -> Path:
    """Where the compiled form for a chip lies."""
    return bundle.directory / COMPILED_FOLDER / soc.name


def compile_bundle(bundle: Bundle, htp: Htp, progress: Progress = no_progress) -> CompiledForm:
    """Write the compiled form, or the graphs that are missing from it.

    Raises:
        UsageError: the bundle is of the cpu flavour, its folder for this chip holds other files, or another process is
            writing it.
        DeviceError: the NPU's package is missing, or a graph is refused.
        BundleError: Ctrl-C: what was compiled is kept.
    """
    names, folder = npu_graphs(bundle), compiled_folder(bundle, htp.soc)
    check_only(folder, [COMPILED_FILE, *form_files(bundle.manifest)])
    with _written_alone(folder):
        wanted = CompiledForm(htp.soc.name, htp.soc.arch, sdk_version(), bundle.sha256)
        form = _continued(folder, wanted, bundle)
        for done, name in enumerate(names):
            progress(name, done, len(names))
            if name not in form.graphs:
                form.graphs[name] = _compile(bundle, name, htp, folder)
                _write(folder, form)
        progress("done", len(names), len(names))
    return form


@contextmanager
def _written_alone(folder: Path) -> Iterator[None]:
    """While the block runs, no other process compiles into this folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
        try:
            yield
        finally:
            unlock(lock)
    except BlockingIOError:
        raise UsageError(f"another process is writing {folder}", "Wait until it has ended") from None
    except OSError as error:
        raise BundleError(f"{folder} cannot be written ({error.strerror})", "Free some space") from None
    except KeyboardInterrupt:
        raise BundleError("interrupted: the graphs compiled so far are kept", "Run the same command again") from None


def open_compiled(bundle: Bundle, soc: Soc) -> dict[str, Path]:
    """The files that stand for the graphs of a bundle; empty where it was not compiled for this chip.

    Raises:
        BundleError: a context binary is of another SDK version or another bundle, or was changed.
    """
    folder = compiled_folder(bundle, soc)
    if not (folder / COMPILED_FILE).is_file():
        return {}
    form, remedy = _read(folder, bundle), f"Compile again: voxrill compile {bundle.directory} --soc {soc.name}"
    if form is None:
        raise BundleError(f"{folder / COMPILED_FILE} cannot be read", remedy)
    here = sdk_version()
    if form.sdk != here:
        raise BundleError(f"the context binaries in {folder} are of SDK {form.sdk}; here is {here}", remedy)
    if form.bundle != bundle.sha256:
        raise BundleError(f"the context binaries in {folder} are of another bundle", remedy)
    changed = [name for name, graph in form.graphs.items() if not _is_whole(folder, graph)]
    if changed:
        raise BundleError(f"the context binary of {changed[0]} in {folder} was changed or is missing", remedy)
    return {name: folder / graph.file for name, graph in form.graphs.items()}


def _continued(folder: Path, wanted: CompiledForm, bundle: Bundle) -> CompiledForm:
    """What an earlier run made of the same form. If there is none, the folder is emptied."""
    found = _read(folder, bundle)
    if found is not None and msgspec.structs.replace(found, graphs={}) == wanted:
        whole = {name: graph for name, graph in found.graphs.items() if _is_whole(folder, graph)}
        return msgspec.structs.replace(wanted, graphs=whole)
    for path in folder.iterdir():  # not the folder itself, which is locked
        remove(path)
    return msgspec.structs.replace(wanted, graphs={})


def _compile(bundle: Bundle, name: str, htp: Htp, folder: Path) -> CompiledGraph:
    target, start = folder / f"{name}.onnx", time.perf_counter()
    made = (target, context_file(target))
    for file in made:  # a run that was stopped may have left them
        remove(file)
    htp.session(bundle.path(bundle.manifest.graphs[name].file), context=target)
    for file in made:
        flush(file)
    seconds = round(time.perf_counter() - start, 2)
    return CompiledGraph(target.name, {path.name: file_entry(path) for path in made}, seconds)


def _is_whole(folder: Path, graph: CompiledGraph) -> bool:
    return all((folder / name).is_file() and file_entry(folder / name) == e for name, e in graph.files.items())


def _read(folder: Path, bundle: Bundle) -> CompiledForm | None:
    """What `compiled.json` says; None if it cannot be read, or names a file that no compiled form has."""
    try:
        form = msgspec.json.decode((folder / COMPILED_FILE).read_bytes(), type=CompiledForm)
    except (OSError, msgspec.MsgspecError):
        return None
    known = form_files(bundle.manifest)
    named = [(graph.file, *graph.files) for graph in form.graphs.values()]
    return form if all(file in known for files in named for file in files) else None


def _write(folder: Path, form: CompiledForm) -> None:
    with atomic_write(folder / COMPILED_FILE) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(form), indent=2) + b"\n")
