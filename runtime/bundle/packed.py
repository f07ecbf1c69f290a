"""A packed bundle that is used as it is: unpacked once into the user's cache, and opened there from then on.

In: a file that `voxrill pack` wrote. Out: a `Bundle` in a folder whose name is the hash of its manifest. The manifest
holds the hash of every file, and unpacking checks them all, so the same name means the same content. A pack that was
copied, moved or renamed is not unpacked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from voxrill.runtime.bundle.atomic_folder import lock_folder, remove, unlock
from voxrill.runtime.bundle.bundle import Bundle, Progress, no_progress, open_bundle
from voxrill.runtime.bundle.manifest import MANIFEST_FILE
from voxrill.runtime.bundle.pack import packed_manifest, unpack
from voxrill.runtime.errors import BundleError
from voxrill.runtime.user_folders import user_cache


def open_folder_or_pack(path: Path) -> Bundle:
    """The bundle in a folder; or in a packed file, which is unpacked first if it has to be, without a word.

    Raises:
        BundleError: it is neither, or what it holds is not whole.
        HashMismatch: a file's content is not the manifest's.
    """
    return open_packed(path, lambda _: None) if path.is_file() else open_bundle(path)


def open_packed(packed: Path, tell: Callable[[str], None], progress: Progress = no_progress) -> Bundle:
    """Open a packed bundle in the user's cache. If it is not there yet, it is unpacked first.

    Two processes that open the same pack at once unpack it once: the second one waits for the first.

    Args:
        packed: a file that `pack` wrote.
        tell: is told in a sentence that it is unpacked, and where.
        progress: told of the bytes written.

    Raises:
        BundleError: it is not a packed bundle, or the cache cannot be written.
        HashMismatch: a file's content is not the manifest's.
    """
    key = hashlib.sha256(packed_manifest(packed)).hexdigest()
    folder = _cache(packed) / key
    with _locked(packed, folder.parent):
        if (opened := _opened(folder, key)) is not None:
            return opened
        remove(folder)
        tell(f"unpacking {packed} into {folder}, once")
        return unpack(packed, folder, progress)


def _opened(folder: Path, key: str) -> Bundle | None:
    """The bundle that was unpacked before; None if it is not there, or is not whole any more."""
    try:
        opened = open_bundle(folder)
        manifest = opened.path(MANIFEST_FILE).read_bytes()
    except (BundleError, OSError):
        return None
    return opened if hashlib.sha256(manifest).hexdigest() == key else None


def _cache(packed: Path) -> Path:
    cache = user_cache()
    if not cache.is_absolute():
        raise _cannot(packed, "this user has no home folder")
    return cache / "bundles"


@contextmanager
def _locked(packed: Path, folder: Path) -> Iterator[None]:
    """The cache's folder, made if it is not there, for this process alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_folder(folder, wait=True)
    except OSError as error:
        raise _cannot(packed, f"{folder} cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        unlock(lock)


def _cannot(packed: Path, reason: str) -> BundleError:
    return BundleError(
        f"{packed} cannot be unpacked into your cache: {reason}",
        "Run: voxrill unpack FILE -o FOLDER, and give --bundle FOLDER",
    )
