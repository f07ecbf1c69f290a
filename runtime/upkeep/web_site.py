"""A static site that runs a bundle in the browser: page, runtime, onnxruntime-web, and the bundle in parts.

In: an opened bundle, the packages of `web_packages`, and the sources in `web/`. Out: a folder that any web server
can serve. The bundle is cut into parts, so that a download which breaks off goes on where it stopped on any server.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from voxrill.runtime.bundle.atomic_folder import atomic_folder, write_errors
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, Manifest
from voxrill.runtime.errors import BundleError, UsageError

SITE_FILE = "site.json"
"""What the site promises: the bundle's parts and their hashes."""

VOICE = "silero.onnx"
"""The network that knows speech, as a file of the site."""

LARGEST = 2 << 30
"""Bytes of a bundle at most. WebAssembly has 4 GB, and a graph's weights are there twice while it is opened."""

_PART = 8 << 20
"""Bytes of a part: a phone on a slow network takes a few seconds for it."""

_HEAD = """  <link rel="manifest" href="app.webmanifest">
  <link rel="apple-touch-icon" href="icons/maskable-512.png">
  <meta name="theme-color" content="#0b6e69">
  <meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; \
worker-src 'self' blob:; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
form-action 'none'">
  <script type="module" src="page/install.js"></script>
</head>"""
"""What the page has in its head beside what the server's page has. onnxruntime-web starts its threads from blobs."""

Progress = Callable[[str, int], None]
"""Called with the name of a file and the bytes of it that were written."""


@dataclass(frozen=True)
class Site:
    """A site that was written. bytes: all of it; bundle: the bundle in it, with the network that knows speech."""

    folder: Path
    files: int
    bytes: int
    bundle: int


def check_bundle(manifest: Manifest) -> None:
    """Refuse a bundle that no browser can run.

    Raises:
        BundleError: it has fixed shapes, belongs to a family that the browser's runtime does not know, or is too large.
    """
    if manifest.flavour != "cpu":
        raise BundleError(f"{manifest.name} has fixed shapes, for an NPU", "Export a bundle without --flavour npu")
    if manifest.model.log_mel.normalize != "per_feature":
        raise BundleError(f"The browser's runtime does not know the family {manifest.family}", "Use `voxrill serve`")
    if manifest.size > LARGEST:
        raise BundleError(
            f"{manifest.name} has {manifest.size / 1e9:.1f} GB, and a browser's WebAssembly has room for "
            f"{LARGEST / 1e9:.1f} GB of weights",
            "Give a smaller bundle, or use `voxrill serve` on a machine in the same network",
        )


def write_site(bundle: Bundle, target: Path, packages: Path, force: bool, progress: Progress) -> Site:
    """Write the site of a bundle.

    Args:
        bundle: what the site runs.
        target: the folder to write.
        packages: a folder with the files of `web_packages.FILES`.
        force: replace a site that is there.
        progress: is told of every file.

    Raises:
        BundleError: see `check_bundle`; or it cannot be written, and what was there before is untouched.
        UsageError: `target` is something else than a site, or is one and `force` was not given.
    """
    check_bundle(bundle.manifest)
    _check_target(target, force)
    with (
        write_errors(target, "what was there before is untouched"),
        atomic_folder(target, lambda: _check_target(target, force)) as partial,
    ):
        for path in sorted(packages.iterdir()):
            _copy(path, partial / "vendor" / path.name, progress)
        for name, source in _pages():
            _copy(source, partial / name, progress)
        _write(partial / "index.html", _index().encode(), progress)
        parts = {name: _in_parts(name, path, partial, progress) for name, path in _bundle_files(bundle)}
        size = sum(part.size for of_file in parts.values() for part in of_file)
        files = [{"name": name, "parts": [asdict(part) for part in of_file]} for name, of_file in parts.items()]
        site = {"version": bundle.sha256, "bundle": bundle.manifest.name, "size": size, "files": files}
        _write(partial / SITE_FILE, json.dumps(site, indent=1).encode(), progress)
        _write(partial / "service_worker.js", _service_worker(partial).encode(), progress)
        written = [path.stat().st_size for path in partial.rglob("*") if path.is_file()]
    return Site(target, len(written), sum(written), size)


def _check_target(target: Path, force: bool) -> None:
    if target.name in ("", ".."):
        raise UsageError(f"{target} is not a name for a site", "Give -o a folder of its own")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / SITE_FILE).is_file():
        raise UsageError(f"{target} exists and is not a site: nothing in it was touched", "Choose another place for -o")
    if not force:
        raise UsageError(f"{target} is a site already", "Choose another place for -o, or replace this one with --force")


def _pages() -> Iterator[tuple[str, Traversable]]:
    """Our own files: their place in the site, and their source. The page is the server's, but for its connection."""
    voxrill = resources.files("voxrill")
    for file in (voxrill / "runtime" / "serve" / "page").iterdir():
        if file.name not in ("index.html", "connection.js"):
            yield f"page/{file.name}", file
    for name in ("connection.js", "install.js"):
        yield f"page/{name}", voxrill / "web" / "site" / name
    yield "app.webmanifest", voxrill / "web" / "site" / "app.webmanifest"
    yield from _files(voxrill / "web" / "site" / "icons", "icons")
    yield from _files(voxrill / "web" / "runtime", "runtime")


def _files(folder: Traversable, place: str) -> Iterator[tuple[str, Traversable]]:
    """All files of a folder, with their places below `place`."""
    for one in folder.iterdir():
        name = f"{place}/{one.name}"
        if one.is_dir():
            yield from _files(one, name)
        else:
            yield name, one


def _index() -> str:
    page = resources.files("voxrill") / "runtime" / "serve" / "page" / "index.html"
    return page.read_text(encoding="utf-8").replace("</head>", _HEAD)


def _service_worker(site: Path) -> str:
    """The service worker, with the list of the files that it keeps, and a version that changes with any of them."""
    kept = [path for path in sorted(site.rglob("*")) if path.is_file() and path.relative_to(site).parts[0] != "bundle"]
    digest = hashlib.sha256()
    for path in kept:
        digest.update(path.read_bytes())
    names = ["./", *(path.relative_to(site).as_posix() for path in kept)]
    source = resources.files("voxrill") / "web" / "site" / "service_worker.js"
    text = source.read_text(encoding="utf-8").replace("@version@", digest.hexdigest()[:16])
    return re.sub(r'\["@files@"\]', lambda _: json.dumps(names), text)


def _bundle_files(bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """The files that the browser's runtime reads, by their name in the bundle."""
    yield MANIFEST_FILE, bundle.path(MANIFEST_FILE)
    for name in bundle.manifest.files:
        if not name.endswith("_report.json"):
            yield name, bundle.path(name)
    with resources.as_file(resources.files("voxrill.runtime.audio") / "silero" / "silero_vad_16k_op15.onnx") as path:
        yield VOICE, path


@dataclass(frozen=True)
class _Part:
    """A piece of a file: its place in the site, its bytes, and their hash."""

    path: str
    size: int
    sha256: str


def _in_parts(name: str, source: Path, site: Path, progress: Progress) -> list[_Part]:
    parts: list[_Part] = []
    with open(source, "rb") as file:
        while (content := file.read(_PART)) or not parts:
            part = _Part(f"bundle/{name}.{len(parts):03}", len(content), hashlib.sha256(content).hexdigest())
            _write(site / part.path, content, progress)
            parts.append(part)
    return parts


def _copy(source: Traversable | Path, target: Path, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, open(target, "wb") as written:
        shutil.copyfileobj(read, written)
    progress(target.name, target.stat().st_size)


def _write(path: Path, content: bytes, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    progress(path.name, len(content))
