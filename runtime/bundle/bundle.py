"""A bundle on disk: open it, check it, make one file of it and take that apart again.

In: a folder with `manifest.json`. Out: a `Bundle` whose files are known to be there and whole. A packed bundle is an
uncompressed zip with the manifest first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from voxrill.runtime.bundle.embedding_table import EmbeddingTable
from voxrill.runtime.bundle.manifest import (
    MANIFEST_FILE,
    TOKENIZER_FILE,
    FileEntry,
    Manifest,
    Table,
    decode_manifest,
    encode_manifest,
    read_manifest,
)
from voxrill.runtime.errors import BundleError, HashMismatch, UsageError, VoxrillError

Progress = Callable[[str, int], None]
"""Called with a file's name and the bytes done since the last call."""

HASHED_ON_OPEN = 16 << 20
"""Files up to this many bytes are hashed whenever a bundle is opened; larger ones only by `verify`."""

_BLOCK = 4 << 20


def _no_progress(_file: str, _done: int) -> None:
    pass


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
        BundleError: the folder, its manifest or a file is missing or cut short.
        HashMismatch: a small file was changed.
        NewerFormat: a newer Voxrill wrote it.
    """
    manifest = read_manifest(directory)
    _check_names(manifest, directory / MANIFEST_FILE)
    for name, entry in manifest.files.items():
        _check_size(directory / _safe(name), entry)
        if entry.size <= HASHED_ON_OPEN:
            check_file(directory / name, entry)
    return Bundle(directory, manifest)


def _check_names(manifest: Manifest, where: Path) -> None:
    """Every graph of the model, and every file the manifest speaks of, must be among its files."""
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


def _check_size(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise BundleError(f"{path.name} is missing from {path.parent}", "Copy or export the bundle again")
    if path.stat().st_size != entry.size:
        raise BundleError(
            f"{path.name} has {path.stat().st_size} bytes, not {entry.size}: it was cut short or changed",
            "Copy or export the bundle again",
        )


def check_file(path: Path, entry: FileEntry, progress: Progress = _no_progress) -> None:
    """Hash one file.

    Raises:
        HashMismatch: its content is not the manifest's.
    """
    if hash_file(path, progress) != entry.sha256:
        raise HashMismatch(
            f"{path.name} does not have the SHA-256 its manifest states", "Copy or export the bundle again"
        )


def hash_file(path: Path, progress: Progress = _no_progress) -> str:
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


def verify_files(bundle: Bundle, progress: Progress = _no_progress) -> None:
    """Hash every file of the bundle.

    Raises:
        HashMismatch: a file's content is not the manifest's.
    """
    for name, entry in bundle.manifest.files.items():
        check_file(bundle.path(name), entry, progress)


def pack(bundle: Bundle, target: Path, progress: Progress = _no_progress) -> None:
    """Write the bundle into one file, `target`, which appears only when it is whole.

    Raises:
        BundleError: it cannot be written (a full disk, no permission).
        HashMismatch: a file's content is not the manifest's.
    """
    if target.is_dir():
        raise BundleError(f"{target} is a folder", "Give the name of a file to write")
    with _replacing(target) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.write(bundle.path(MANIFEST_FILE), MANIFEST_FILE)
            for name, entry in bundle.manifest.files.items():
                with bundle.path(name).open("rb") as source, _entry(archive, name) as sink:
                    _copy_checked(source, sink, name, entry, progress)
        partial.replace(target)


def unpack(packed: Path, target: Path, progress: Progress = _no_progress) -> Bundle:
    """Take a packed bundle apart into the folder `target`, checking every hash on the way.

    Raises:
        BundleError: `packed` is missing or not a packed bundle, or `target` exists or cannot be written.
        HashMismatch: a file's content is not the manifest's.
    """
    if target.exists():
        raise BundleError(f"{target} exists already", "Choose another folder, or remove it first")
    if not packed.is_file():
        raise BundleError(f"there is no packed bundle at {packed}", "Make one with: voxrill pack BUNDLE -o FILE")
    with _replacing(target) as partial:
        partial.mkdir(parents=True)
        try:
            with zipfile.ZipFile(packed) as archive:
                raw = archive.read(MANIFEST_FILE)
                manifest = decode_manifest(raw, f"{packed}'s {MANIFEST_FILE}")
                for name, entry in manifest.files.items():
                    path = partial / _safe(name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as source, path.open("wb") as sink:
                        _copy_checked(source, sink, name, entry, progress)
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise BundleError(f"{packed} is not a whole packed bundle ({error})", "Copy or pack it again") from None
        (partial / MANIFEST_FILE).write_bytes(raw)
        partial.replace(target)
    return open_bundle(target)


def _entry(archive: zipfile.ZipFile, name: str):  # type: ignore[no-untyped-def]  # zipfile's own type is private
    return archive.open(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True)


def _safe(name: str) -> str:
    """A file name that stays inside the bundle."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BundleError(f"the manifest names a file outside the bundle: {name}", "Do not use this bundle")
    return name


def _copy_checked(source, sink, name: str, entry: FileEntry, progress: Progress) -> None:  # type: ignore[no-untyped-def]
    digest = hashlib.sha256()
    while block := source.read(_BLOCK):
        digest.update(block)
        sink.write(block)
        progress(name, len(block))
    if digest.hexdigest() != entry.sha256:
        raise HashMismatch(f"{name} does not have the SHA-256 its manifest states", "Copy or export the bundle again")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A partial name beside `target`, removed again whatever happens."""
    partial = target.with_name(f".{target.name}.partial")
    remove(partial)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise BundleError(
            f"{target} cannot be written ({error.strerror or error})",
            "Free some space or choose another place",
        ) from None
    finally:
        remove(partial)


@contextmanager
def replacing_bundle(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place if the block succeeds, and vanishes if not.

    Raises:
        UsageError: `target` is something else than a bundle.
        BundleError: it cannot be written (a full disk), or Ctrl-C; what was there before is untouched.
    """
    check_replaceable(target)
    partial = target.with_name(f".{target.name}.partial")
    old = target.with_name(f".{target.name}.old")
    _put_back(old, target)
    remove(partial)
    try:
        partial.mkdir(parents=True)
        yield partial
        remove(old)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        remove(old)
    except KeyboardInterrupt:
        raise BundleError("interrupted: nothing was written", "Run the same command again") from None
    except VoxrillError:
        raise
    except OSError as error:
        raise BundleError(
            f"{target} cannot be written ({error.strerror or error})",
            "Free some space or choose another place; what was there before is untouched",
        ) from None
    finally:
        remove(partial)
        _put_back(old, target)


def check_replaceable(target: Path) -> None:
    """Refuse a place where no bundle may be written.

    Raises:
        UsageError: `target` has no name of its own, or is something else than a bundle or an empty folder.
    """
    if not target.name:
        raise UsageError(f"{target} is not a name for a bundle", "Give -o a folder of its own")
    if target.exists() and not (target / MANIFEST_FILE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not a bundle", "Choose another place for -o")


def _put_back(old: Path, target: Path) -> None:
    """What was left by a run that was stopped between its two renames."""
    if old.exists() and not target.exists():
        old.rename(target)


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


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
