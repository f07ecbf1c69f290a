"""A bundle on disk: open it and check it.

In: a folder with `manifest.json`. Out: a `Bundle`. Each of its files is there and has the size that the manifest gives;
small files have its hash, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from voxrill.runtime.bundle.consistency import check_manifest
from voxrill.runtime.bundle.embedding_table import EmbeddingTable
from voxrill.runtime.bundle.external_data import external_locations
from voxrill.runtime.bundle.manifest import (
    MANIFEST_FILE,
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


def no_progress(_file: str, _done: int) -> None:
    """The `Progress` that shows nothing."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    directory: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """The hash of its manifest. The manifest holds the hash of every file, so no other bundle has the same one."""
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
    check_manifest(manifest, str(directory / MANIFEST_FILE))
    for name, entry in manifest.files.items():
        _check_size(directory / name, entry)
        if entry.size <= HASHED_ON_OPEN:
            check_file(directory / name, entry)
    for graph in manifest.graphs.values():
        _check_locations(directory / graph.file, graph.file, manifest)
    return Bundle(directory, manifest)


def _check_locations(path: Path, file: str, manifest: Manifest) -> None:
    """Refuse a graph that keeps weights in a file which the manifest does not list."""
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
    """Write `manifest` into a folder that holds all other files of the bundle, and list them in it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    entries = {path.relative_to(directory).as_posix(): file_entry(path) for path in files}
    (directory / MANIFEST_FILE).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=entries)))


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
