"""A packed bundle: one file, to carry to a device that is offline.

In: a bundle, or such a file. Out: the other. It is an uncompressed zip with the manifest first. A packed bundle may
come from anywhere, so what it says of itself is checked before anything is written, and no more is written than that.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.bundle.atomic_folder import write_errors
from voxrill.runtime.bundle.bundle import Bundle, Progress, no_progress, open_bundle
from voxrill.runtime.bundle.consistency import check_manifest
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, MANIFEST_LIMIT, FileEntry, Manifest, decode_manifest
from voxrill.runtime.bundle.replacing import replacing_bundle
from voxrill.runtime.errors import BundleError, HashMismatch

_BLOCK = 1 << 20
"""Bytes that are read at once, and so the most that a zip's directory may have: room for 10,000 files."""

_ENCRYPTED = 1
"""The bit of a zip entry's flags."""

_BROKEN = (
    zipfile.BadZipFile,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)
"""What zipfile raises for a file that is no zip, was cut short, or lies about its content."""


def pack(bundle: Bundle, target: Path, progress: Progress = no_progress) -> None:
    """Write the bundle into one file, `target`, which appears only when it is whole.

    Raises:
        BundleError: it cannot be written (a full disk, no permission).
        HashMismatch: a file's content is not the manifest's.
    """
    if target.is_dir():
        raise BundleError(f"{target} is a folder", "Give the name of a file to write")
    with write_errors(target, "nothing else was touched"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.write(bundle.path(MANIFEST_FILE), MANIFEST_FILE)
            for name, entry in bundle.manifest.files.items():
                with bundle.path(name).open("rb") as source, _new_entry(archive, name) as sink:
                    _copy_checked(source, sink, name, entry, progress)


def unpack(packed: Path, target: Path, progress: Progress = no_progress, force: bool = False) -> Bundle:
    """Take a packed bundle apart into the folder `target`, checking every size and hash on the way.

    Args:
        packed: a file that `pack` wrote.
        target: the folder to write.
        progress: told of the bytes written.
        force: replace a bundle that is there.

    Raises:
        BundleError: `packed` is missing or not a packed bundle, or `target` cannot be written.
        HashMismatch: a file's content is not the manifest's.
        UsageError: `target` is something else than a bundle, or is one and `force` was not given.
    """
    _check_there(packed)
    where = f"{packed}'s {MANIFEST_FILE}"
    with replacing_bundle(target, force) as partial, _opened(packed) as archive:
        raw = _read_manifest(archive)
        manifest = decode_manifest(raw, where)
        check_manifest(manifest, where)
        _check_entries(archive, manifest, packed.stat().st_size)
        for name, entry in manifest.files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, path.open("wb") as sink:
                _copy_checked(source, sink, name, entry, progress)
        (partial / MANIFEST_FILE).write_bytes(raw)
    return open_bundle(target)


def packed_manifest(packed: Path) -> bytes:
    """The manifest of a packed bundle, as it is written there; nothing of it is checked yet.

    Raises:
        BundleError: `packed` is missing, or not a packed bundle.
    """
    _check_there(packed)
    with _opened(packed) as archive:
        return _read_manifest(archive)


def _check_there(packed: Path) -> None:
    if not packed.is_file():
        raise BundleError(f"there is no packed bundle at {packed}", "Make one with: voxrill pack BUNDLE -o FILE")


class _SmallReads(io.BufferedReader):
    """A file that gives at most `_BLOCK` bytes at once. Errors of reading become zipfile's own.

    zipfile reads the whole directory of a zip at once, however long the zip says that it is.
    """

    def __init__(self, path: Path) -> None:
        with _as_bad_zip():
            super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and refuse a read of more than a block."""
        with _as_bad_zip():
            block = super().read(_BLOCK + 1 if size is None or not 0 <= size <= _BLOCK else size)
        if len(block) > _BLOCK:
            raise zipfile.BadZipFile("its directory is too long")
        return block

    def seek(self, target: int, whence: int = 0, /) -> int:
        """Go to a place; a zip may name one that no file has."""
        with _as_bad_zip():
            return super().seek(target, whence)


@contextmanager
def _as_bad_zip() -> Iterator[None]:
    """Errors of reading as zipfile's own. What cannot be written stays an `OSError`, so the two are told apart."""
    try:
        yield
    except OSError as error:
        raise zipfile.BadZipFile(error.strerror or str(error)) from None


@contextmanager
def _opened(packed: Path) -> Iterator[zipfile.ZipFile]:
    """The zip, to be read in the block.

    Raises:
        BundleError: it is not a zip, was cut short, or lies about its content.
    """
    try:
        with _SmallReads(packed) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except _BROKEN as error:
        raise BundleError(f"{packed} is not a whole packed bundle ({error})", "Copy or pack it again") from None


def _read_manifest(archive: zipfile.ZipFile) -> bytes:
    """The manifest's bytes; it is refused unread if it is too large."""
    info = archive.getinfo(MANIFEST_FILE)
    _check_plain(info)
    if info.file_size > MANIFEST_LIMIT:
        raise zipfile.BadZipFile(f"its {MANIFEST_FILE} has {info.file_size} bytes")
    return archive.read(info)


def _check_entries(archive: zipfile.ZipFile, manifest: Manifest, size: int) -> None:
    """Every file must be there in the manifest's size, and all together must fit into the packed file.

    Raises:
        KeyError: a file is missing.
        BadZipFile: one is compressed, encrypted or of another size, or several share their bytes.
    """
    for name, entry in manifest.files.items():
        info = archive.getinfo(name)
        _check_plain(info)
        if info.file_size != entry.size:
            raise zipfile.BadZipFile(f"{name} has {info.file_size} bytes, not {entry.size}")
    if sum(entry.size for entry in manifest.files.values()) > size:
        raise zipfile.BadZipFile("its files together are larger than it is")


def _check_plain(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise zipfile.BadZipFile(f"{info.filename} is encrypted")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is compressed")


def _new_entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True)


def _copy_checked(source: IO[bytes], sink: IO[bytes], name: str, entry: FileEntry, progress: Progress) -> None:
    """Copy one file, and no more than its size in the manifest.

    Raises:
        HashMismatch: it has another size or hash.
    """
    digest, left = hashlib.sha256(), entry.size
    while block := source.read(_BLOCK):
        left -= len(block)
        if left < 0:
            break
        digest.update(block)
        sink.write(block)
        progress(name, len(block))
    if left or digest.hexdigest() != entry.sha256:
        raise HashMismatch(f"{name} does not have the SHA-256 its manifest states", "Copy or export the bundle again")
