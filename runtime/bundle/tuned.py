"""The tuned form of a bundle: repacked weights that are mapped, not copied, and how many threads are best here.

In: a folder in the user's cache, which `voxrill tune` writes. Out: a `TunedForm`. It belongs to one processor, one
onnxruntime, one bundle and the folder that bundle lies in. A form that does not fit, or was changed, is not used.

It does not lie in the bundle's folder. Its graphs run instead of the bundle's, and no hash in the manifest says what
they compute. A person who can write the bundle's folder, or sends somebody a bundle, could put other graphs there. So
only this user's own folder counts, and only if no other user may enter it.

Its data files are as large as the bundle's, so a load does not hash them whole; `voxrill verify` does. A load compares
size and time of change, which show that a program wrote to a file. It also hashes 64 samples, which show what a disk
lost in a power cut.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import onnxruntime as ort

from voxrill.devices import overflow
from voxrill.devices.kernels import DOMAIN, INTERFACE, own_products
from voxrill.devices.processor import processor
from voxrill.devices.providers import EXACT_ENTRY
from voxrill.runtime.bundle.bundle import HASHED_ON_OPEN, Bundle, Progress, hash_file, no_progress
from voxrill.runtime.bundle.contract import AUDIO_ENCODER
from voxrill.runtime.bundle.manifest import FLOAT32, MANIFEST_FILE, Manifest
from voxrill.runtime.errors import BundleError, HashMismatch, VoxrillWarning
from voxrill.runtime.user_folders import user_cache

TUNED_FILE = "tuned.json"

_SAMPLES = 64
_SAMPLE_BYTES = 16 << 10


class NotTuned(VoxrillWarning):
    """A tuned form is there but is not used: it does not fit, was changed, or others may have written it."""


class Fingerprint(msgspec.Struct, frozen=True):
    """A file as it was written: bytes, nanoseconds of its last change, SHA-256 (of samples, if it is large)."""

    size: int
    changed: int
    sha256: str


class WrittenFile(msgspec.Struct, frozen=True):
    """A file of the form: what every load compares, and the SHA-256 of all of it."""

    fingerprint: Fingerprint
    sha256: str


class Key(msgspec.Struct, frozen=True):
    """What a tuned form was made for: processor, onnxruntime, the SHA-256 of the manifest, and whose products.

    options: the options of its sessions that change numbers here; Voxrill 0.2 knew none.
    """

    processor: str
    onnxruntime: str
    manifest: str
    products: str = ""
    options: str = ""


class TunedFile(msgspec.Struct, frozen=True):
    """What `tuned.json` holds.

    graphs: file of each tuned graph; files: every file as it was written; threads: the best number, 0 if not known;
    timings: milliseconds by number of threads and stage.
    """

    key: Key
    graphs: dict[str, str]
    files: dict[str, WrittenFile]
    threads: int = 0
    timings: dict[int, dict[str, float]] = {}


@dataclass(frozen=True)
class TunedForm:
    """A tuned form that may be used: where its graphs lie, and the best number of threads (0 if not known).

    folder and files say what `verify_tuned` compares; None and empty for a form that is being made.
    """

    graphs: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 0
    folder: Path | None = None
    files: Mapping[str, WrittenFile] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(written.fingerprint.size for written in self.files.values())

    def path(self, graph: str) -> Path | None:
        """The file of a tuned graph; None for one that is loaded from the bundle."""
        return self.graphs.get(graph)


PLAIN = TunedForm()
"""No tuned form: every graph is loaded from the bundle itself."""


def key_of(bundle: Bundle) -> Key:
    """The key that a tuned form of this bundle must have on this machine."""
    products = f"{DOMAIN} {INTERFACE}" if own_products().fast else ""
    options = EXACT_ENTRY if overflow.asks_exact() else ""
    return Key(processor(), str(ort.__version__), hash_file(bundle.path(MANIFEST_FILE)), products, options)


def is_repacked(manifest: Manifest, graph: str) -> bool:
    """Whether a graph runs on repacked weights (see `session_options`): only such graphs gain by tuning."""
    return graph == AUDIO_ENCODER or manifest.graphs[graph].precision != FLOAT32


def fingerprint(path: Path) -> Fingerprint:
    """The facts that show whether a file is still as it was written."""
    facts = path.stat()
    sha256 = hash_file(path) if facts.st_size <= HASHED_ON_OPEN else _hash_samples(path, facts.st_size)
    return Fingerprint(facts.st_size, facts.st_mtime_ns, sha256)


def _hash_samples(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for index in range(_SAMPLES):
            stream.seek(index * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def tuned_folder(directory: Path) -> Path:
    """Where the tuned form of the bundle in a folder lies: in the cache of the user who runs this.

    Raises:
        BundleError: this user has no home.
    """
    cache = user_cache()
    if not cache.is_absolute():
        raise BundleError("this user has no home folder for a tuned form", "Name a cache folder in XDG_CACHE_HOME")
    return cache / "tuned" / hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]


def open_tuned(bundle: Bundle) -> TunedForm:
    """The tuned form of a bundle, or `PLAIN`; where one is there and cannot be used, a warning says why."""
    try:
        folder = tuned_folder(bundle.directory)
    except BundleError:  # without a home there is no form to look for
        return PLAIN
    if not os.path.isdir(folder):
        return PLAIN
    found, wrong = _read(folder, bundle)
    if found is not None and not wrong:
        graphs = {graph: folder / file for graph, file in found.graphs.items()}
        return TunedForm(graphs, found.threads, folder, found.files)
    remedy = f"Make it again: voxrill tune {bundle.directory}"
    warnings.warn(f"the tuned form of {bundle.directory} is not used: {wrong}. {remedy}", NotTuned, stacklevel=3)
    return PLAIN


def verify_tuned(form: TunedForm, progress: Progress = no_progress) -> None:
    """Hash every file of a tuned form.

    Raises:
        HashMismatch: one is not as `tune` wrote it.
    """
    for name, written in form.files.items():
        assert form.folder is not None  # it has files
        if hash_file(form.folder / name, progress) != written.sha256:
            raise HashMismatch(f"{name} in {form.folder} is not as voxrill tune wrote it", "Run voxrill tune again")


def _read(folder: Path, bundle: Bundle) -> tuple[TunedFile | None, str]:
    """What a form says of itself, and why it cannot be used; empty if it can."""
    try:
        wrong = _wrong_owner(folder)
        if wrong:
            return None, wrong
        found = read_tuned_file(folder)
        return found, _wrong_key(found.key, key_of(bundle)) or _wrong_file(folder, found, bundle.manifest)
    except (OSError, msgspec.MsgspecError):
        return None, "a file of it is missing or unreadable"


def _wrong_owner(folder: Path) -> str:
    """Why others may have written this folder; empty if they cannot have."""
    if os.name == "nt":  # a user's folder there has its own list of who may enter
        return ""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        return f"{folder} is another user's"
    return f"other users may enter {folder}" if facts.st_mode & 0o077 else ""


def read_tuned_file(folder: Path) -> TunedFile:
    """What the JSON file of a tuned form says; raises as `open` and msgspec do."""
    return msgspec.json.decode((folder / TUNED_FILE).read_bytes(), type=TunedFile)


def _wrong_key(have: Key, wanted: Key) -> str:
    for name, what in (
        ("processor", "processor"),
        ("onnxruntime", "onnxruntime"),
        ("manifest", "bundle"),
        ("products", "set of products"),
        ("options", "version of Voxrill"),
    ):
        if getattr(have, name) != getattr(wanted, name):
            return f"it was made for another {what}"
    return ""


def _wrong_file(folder: Path, found: TunedFile, manifest: Manifest) -> str:
    """Which file was changed; empty if none was. The file of each graph must be among the files that are compared."""
    for graph, file in found.graphs.items():
        if graph not in manifest.graphs or file not in found.files:
            return f"its {TUNED_FILE} was changed"
    for name, wanted in found.files.items():
        if Path(name).name != name or fingerprint(folder / name) != wanted.fingerprint:
            return f"{name} was changed"
    return ""
