"""Where a bundle may be written: what it may replace, and how.

In: the folder that a user named. Out: a place to build the bundle, or a refusal. What is replaced is deleted. So a
folder counts as a bundle only if its manifest is one of ours, and the folder holds nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from voxrill.runtime.bundle.atomic_folder import atomic_folder, write_errors
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, Manifest, read_manifest
from voxrill.runtime.errors import BundleError, UsageError

COMPILED_FOLDER, COMPILED_FILE = "compiled", "compiled.json"
"""The compiled form inside a bundle's folder (`voxrill.runtime.bundle.compiled`), which no manifest lists."""


@contextmanager
def replacing_bundle(target: Path, force: bool = False) -> Iterator[Path]:
    """A folder beside `target` that takes its place if the block succeeds, and vanishes if not.

    Raises:
        UsageError: see `check_replaceable`.
        BundleError: it cannot be written (a full disk), or Ctrl-C; what was there before is untouched.
    """
    check_replaceable(target, force)
    with (
        write_errors(target, "what was there before is untouched"),
        atomic_folder(target, lambda: check_replaceable(target, force)) as partial,
    ):
        yield partial


def check_replaceable(target: Path, force: bool = False) -> None:
    """Refuse a place where no bundle may be written.

    Args:
        target: the folder to write.
        force: a bundle that is there is replaced.

    Raises:
        UsageError: `target` has no name of its own, is something else than a bundle or an empty folder, holds a file
            that is not the bundle's, or is a bundle and `force` was not given.
    """
    if target.name in ("", ".."):
        raise UsageError(f"{target} is not a name for a bundle", "Give -o a folder of its own")
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    stranger = _stranger(target)
    if stranger:
        raise UsageError(f"{target} exists and {stranger}: nothing in it was touched", "Choose another place for -o")
    if not force:
        raise UsageError(
            f"{target} is a bundle already", "Choose another place for -o, or replace this bundle with --force"
        )


def check_only(folder: Path, names: Collection[str]) -> None:
    """Refuse to delete a folder that holds anything but files of these names.

    Raises:
        UsageError: it holds something else; the message names it.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in names or not path.is_file():
            raise UsageError(
                f"{folder} is to be replaced, and holds {path.name}, which is not Voxrill's", "Move it elsewhere first"
            )


def _stranger(target: Path) -> str:
    """Why a folder is not just a bundle of ours, as the end of a sentence; empty if it is."""
    if not (target / MANIFEST_FILE).is_file():
        return "is not a bundle"
    try:
        manifest = read_manifest(target)
    except BundleError as error:
        return f"is not a bundle that this Voxrill knows ({error.message})"
    found = next((file for file in _files(target) if not _is_ours(file, manifest)), None)
    return f"holds {found}, which its manifest does not list" if found else ""


def unlisted(directory: Path, manifest: Manifest) -> list[str]:
    """Files in a bundle's folder that its manifest does not list, and so says nothing of."""
    return sorted(str(file) for file in _files(directory) if str(file) not in (MANIFEST_FILE, *manifest.files))


def _files(folder: Path) -> Iterator[PurePosixPath]:
    """Every file and link below a folder, by its path there; links are not followed."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *links):
            yield PurePosixPath(Path(place, name).relative_to(folder).as_posix())


def _is_ours(file: PurePosixPath, manifest: Manifest) -> bool:
    if file.parts[0] == COMPILED_FOLDER:
        return file.name in (COMPILED_FILE, *form_files(manifest))
    return str(file) in (MANIFEST_FILE, *manifest.files)


def form_files(manifest: Manifest) -> list[str]:
    """Names that files of a compiled or tuned form may have: a graph, and its weights or its context binary."""
    stems = [PurePosixPath(graph.file).stem for graph in manifest.graphs.values()]
    return [f"{stem}{end}" for stem in stems for end in (".onnx", ".onnx.data", "_qnn.bin")]
