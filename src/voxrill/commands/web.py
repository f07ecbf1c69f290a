"""The command about browsers: `voxrill web`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.options import BundleArgument, ForceOption, JsonOption, open_named
from voxrill.commands.output import err, file_progress, print_json, size
from voxrill.runtime.printable import as_unicode
from voxrill.runtime.upkeep.web_packages import web_packages
from voxrill.runtime.upkeep.web_site import check_bundle, write_site


def web(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write: a site for any web server.")],
    bundle: BundleArgument = None,
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder with onnxruntime-web's files; without it, npm fetches them.", show_default=False),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Write a site that runs a bundle in the browser, on a phone too."""
    opened = open_named(bundle)
    check_bundle(opened.manifest)
    with err.status("fetching onnxruntime-web") if err.is_terminal else err.capture():
        folder = web_packages(packages)
    with file_progress("writing", opened.manifest.size) as progress:
        site = write_site(opened, out, folder, force, progress)
    if json:
        print_json({"site": as_unicode(site.folder), "files": site.files, "bytes": site.bytes, "bundle": site.bundle})
        return
    err.print(f"wrote {out} ({size(site.bytes)}, of which the model has {size(site.bundle)})")
    err.print("Serve it over HTTPS. To try it on this machine:")
    err.print(f"python -m http.server -b 127.0.0.1 -d {shlex.quote(str(out))}", soft_wrap=True, markup=False)
