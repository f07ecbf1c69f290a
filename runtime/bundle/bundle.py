"""A bundle on disk: open it and check it.

In: a folder with `manifest.json`. Out: a `Bundle` whose files are known to be there and whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from voxrill.runtime.bundle.embedding_table import EmbeddingTable
from voxrill.runtime.bundle.external_data import external_locations
from voxrill.runtime.bundle.manifest import (
    MANIFEST_FILE,
    TOKENIZER_FILE,
    FileEntry,
    Manifest,
    Table,
    encode_manifest,
    read_manifest,
)
from voxrill.runtime.errors import BundleError, HashMismatch

Progress = Callable[[str, int], None]
"""Called with a file's name and the bytes done since the last call."""

HASHED_ON_OPEN = 16 << 20
"""Files up to this many bytes are hashed whenever a bundle is opened; larger ones only by `verify`."""

_BLOCK = 4 << 20

_PART_OF_A_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.+-]{0,98}[A-Za-z0-9_+-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices, whatever follows the first dot."""

_DEEPEST = 4
"""Folders in folders that a bundle may have."""


def no_progress(_file: str, _done: int) -> None:
    """The `Progress` that shows nothing."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    directory: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """What tells it from every other bundle: the hash of its manifest, which holds the hash of every file."""
        return hashlib.sha256(encode_manifest(self.manifest)).hexdigest()

    def path(self, file: str) -> Path:
        """Where a file of the bundle lies."""
        return self.directory / file

    def table(self, table: Table) -> EmbeddingTable:
        """An embedding table of the bundle."""
        return EmbeddingTable(self.path(table.file), table)


def open_bundle(directory: Path) -> Bundle:
    """Open a bundle folder; every file must have the manifest's size, and small files its hash.

    Raises:
        BundleError: the folder, its manifest or a file is missing or cut short, or a graph keeps weights in a file that
            the manifest does not list.
        HashMismatch: a small file was changed.
        NewerFormat: a newer Voxrill wrote it.
    """
    manifest = read_manifest(directory)
    check_names(manifest, str(directory / MANIFEST_FILE))
    for name, entry in manifest.files.items():
        _check_size(directory / name, entry)
        if entry.size <= HASHED_ON_OPEN:
            check_file(directory / name, entry)
    for graph in manifest.graphs.values():
        _check_locations(directory / graph.file, graph.file, manifest)
    return Bundle(directory, manifest)


def check_names(manifest: Manifest, where: str) -> None:
    """Every graph of the model, and every file the manifest speaks of, must be among its files; `where` names it.

    Raises:
        BundleError: one is not, or a file has a name that a bundle's file may not have.
    """
    for name in manifest.files:
        _check_name(name, where)
    if len({name.casefold() for name in manifest.files}) < len(manifest.files):
        raise BundleError(f"{where} lists two files whose names differ only in capitals", "Do not use this bundle")
    remedy = "Export the bundle again"
    for graph in manifest.specs():
        if graph not in manifest.graphs:
            raise BundleError(f"{where} names no file for the graph {graph}", remedy)
    tables = (manifest.text_embeddings, manifest.audio_embeddings)
    graphs = manifest.graphs.values()
    for file in [TOKENIZER_FILE, *(graph.file for graph in graphs), *(table.file for table in tables)]:
        if file not in manifest.files:
            raise BundleError(f"{where} does not list {file} among its files", remedy)
    for table in tables:
        first = min(table.offset, 0 if table.scales is None else table.scales)
        if first < 0 or min(table.shape) < 1 or table.end > manifest.files[table.file].size:
            raise BundleError(f"{where} has a table that reaches beyond {table.file}", remedy)


def _check_name(name: str, where: str) -> None:
    """A file's name must mean the same file, inside the bundle, on every system: no `..`, no `:`, no device's name."""
    parts = name.split("/")
    plain = all(_PART_OF_A_NAME.fullmatch(part) and not _RESERVED.fullmatch(part) for part in parts)
    if not plain or len(parts) > _DEEPEST or name.casefold() == MANIFEST_FILE:
        raise BundleError(
            f"{where} lists a file by a name that no file of a bundle may have: {name[:200]!r}",
            "Do not use this bundle",
        )


def _check_locations(path: Path, file: str, manifest: Manifest) -> None:
    """Whatever file a graph keeps weights in must be one that the manifest lists."""
    try:
        locations = external_locations(path)
    except ValueError as error:
        raise BundleError(f"{file} is not an ONNX graph ({error})", "Copy or export the bundle again") from None
    folder = PurePosixPath(file).parent
    for location in sorted(locations):
        if str(folder / location) not in manifest.files:
            raise BundleError(
                f"{file} keeps weights in {location!r}, which the manifest does not list", "Do not use this bundle"
            )


def _check_size(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise BundleError(f"{path.name} is missing from {path.parent}", "Copy or export the bundle again")
    if path.stat().st_size != entry.size:
        raise BundleError(
            f"{path.name} has {path.stat().st_size} bytes, not {entry.size}: it was cut short or changed",
            "Copy or export the bundle again",
        )


def check_file(path: Path, entry: FileEntry, progress: Progress = no_progress) -> None:
    """Hash one file.

    Raises:
        HashMismatch: its content is not the manifest's.
    """
    if hash_file(path, progress) != entry.sha256:
        raise HashMismatch(
            f"{path.name} does not have the SHA-256 its manifest states", "Copy or export the bundle again"
        )


def hash_file(path: Path, progress: Progress = no_progress) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            progress(path.name, len(block))
    return digest.hexdigest()


def file_entry(path: Path) -> FileEntry:
    """Size and hash of a file, for a manifest."""
    return FileEntry(path.stat().st_size, hash_file(path))


def verify_files(bundle: Bundle, progress: Progress = no_progress) -> None:
    """Hash every file of the bundle.

    Raises:
        HashMismatch: a file's content is not the manifest's.
    """
    for name, entry in bundle.manifest.files.items():
        check_file(bundle.path(name), entry, progress)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest` into a bundle folder that holds all its other files, which it then lists."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    entries = {path.relative_to(directory).as_posix(): file_entry(path) for path in files}
    (directory / MANIFEST_FILE).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=entries)))


def link_file(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
