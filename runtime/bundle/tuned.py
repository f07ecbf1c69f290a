"""The tuned form of a bundle: repacked weights that are mapped, not copied, and how many threads are best here.

In: the folder `tuned` inside a bundle's, which `voxrill tune` writes and no manifest lists. Out: a `TunedForm`. It is
of one processor, one onnxruntime and one bundle, and is never trusted: what does not fit, or was changed, is not used.

Its data files are as large as the bundle's, so they are not hashed whole at every load. Any program that writes to
one changes its size or its time of change; what a disk forgets after a power cut is caught by hashing 64 samples.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import onnxruntime as ort

from voxrill.devices.processor import processor
from voxrill.runtime.bundle.bundle import HASHED_ON_OPEN, Bundle, hash_file
from voxrill.runtime.bundle.contract import AUDIO_ENCODER
from voxrill.runtime.bundle.manifest import FLOAT32, MANIFEST_FILE, Manifest
from voxrill.runtime.bundle.replacing import TUNED_FILE, TUNED_FOLDER
from voxrill.runtime.errors import VoxrillWarning

_SAMPLES = 64
_SAMPLE_BYTES = 16 << 10


class NotTuned(VoxrillWarning):
    """A tuned form is there but is not used: it is another's, or was changed."""


class Fingerprint(msgspec.Struct, frozen=True):
    """A file as it was written: bytes, nanoseconds of its last change, SHA-256 (of samples, if it is large)."""

    size: int
    changed: int
    sha256: str


class Key(msgspec.Struct, frozen=True):
    """What a tuned form was made for: the processor, onnxruntime's version, and the SHA-256 of the manifest."""

    processor: str
    onnxruntime: str
    manifest: str


class TunedFile(msgspec.Struct, frozen=True):
    """What `tuned.json` holds.

    graphs: file of each tuned graph; files: every file's fingerprint; threads: the best number, 0 if not known;
    timings: milliseconds by number of threads and stage.
    """

    key: Key
    graphs: dict[str, str]
    files: dict[str, Fingerprint]
    threads: int = 0
    timings: dict[int, dict[str, float]] = {}


@dataclass(frozen=True)
class TunedForm:
    """A tuned form that may be used: where its graphs lie, and the best number of threads (0 if not known)."""

    graphs: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 0

    def path(self, graph: str) -> Path | None:
        """The file of a tuned graph; None for one that is loaded from the bundle."""
        return self.graphs.get(graph)


PLAIN = TunedForm()
"""No tuned form: every graph from the bundle itself."""


def key_of(bundle: Bundle) -> Key:
    """What a tuned form of this bundle must be made for, here and now."""
    return Key(processor(), str(ort.__version__), hash_file(bundle.path(MANIFEST_FILE)))


def is_repacked(manifest: Manifest, graph: str) -> bool:
    """Whether a graph runs on repacked weights (see `session_options`): only such graphs gain by tuning."""
    return graph == AUDIO_ENCODER or manifest.graphs[graph].precision != FLOAT32


def fingerprint(path: Path) -> Fingerprint:
    """What tells that a file is as it was written."""
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


def open_tuned(bundle: Bundle) -> TunedForm:
    """The tuned form of a bundle, or `PLAIN`; where one is there and cannot be used, a warning says why."""
    folder = bundle.directory / TUNED_FOLDER
    if not folder.is_dir():
        return PLAIN
    try:
        found = read_tuned_file(folder)
        wrong = _wrong_key(found.key, key_of(bundle)) or _wrong_file(folder, found, bundle.manifest)
    except (OSError, msgspec.MsgspecError):
        wrong = "a file of it is missing or unreadable"
    if not wrong:
        return TunedForm({graph: folder / file for graph, file in found.graphs.items()}, found.threads)
    remedy = f"Make it anew with: voxrill tune {bundle.directory}"
    warnings.warn(f"the tuned form of {bundle.directory} is not used: {wrong}. {remedy}", NotTuned, stacklevel=3)
    return PLAIN


def read_tuned_file(folder: Path) -> TunedFile:
    """What the JSON file of a tuned form says; raises as `open` and msgspec do."""
    return msgspec.json.decode((folder / TUNED_FILE).read_bytes(), type=TunedFile)


def _wrong_key(have: Key, wanted: Key) -> str:
    for name, what in (("processor", "processor"), ("onnxruntime", "onnxruntime"), ("manifest", "bundle")):
        if getattr(have, name) != getattr(wanted, name):
            return f"it was made for another {what}"
    return ""


def _wrong_file(folder: Path, found: TunedFile, manifest: Manifest) -> str:
    """Which file is not as it was written; a graph's file must be among those that are checked."""
    for graph, file in found.graphs.items():
        if graph not in manifest.graphs or file not in found.files:
            return f"its {TUNED_FILE} was changed"
    for name, wanted in found.files.items():
        if Path(name).name != name or fingerprint(folder / name) != wanted:
            return f"{name} was changed"
    return ""
