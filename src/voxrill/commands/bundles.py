"""The commands about bundles: inspect, verify, pack, unpack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from voxrill.commands.options import BundleArgument, ForceOption, JsonOption, open_named
from voxrill.commands.output import err, file_progress, new_table, print_json, size
from voxrill.commands.output import out as stdout
from voxrill.commands.output_files import check_output
from voxrill.runtime.bundle import pack as packing
from voxrill.runtime.bundle.bundle import verify_files
from voxrill.runtime.bundle.contract import DECODER, state_bytes
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, Manifest, Sampling, Task
from voxrill.runtime.bundle.replacing import unlisted
from voxrill.runtime.bundle.tuned import open_tuned, verify_tuned
from voxrill.runtime.engine.languages import languages
from voxrill.runtime.printable import as_unicode, printable
from voxrill.runtime.upkeep.smoke import smoke_run

_POSITIONS = 1000
"""For which the size of the state is shown: fewer if the model takes fewer; those of the flavour npu are fixed."""

_NAMED = 5
"""Files beside the bundle's that `verify` names; JSON has all."""


def inspect(bundle: BundleArgument = None, json: JsonOption = False) -> None:
    """Show what a bundle is: family, source, licence, graphs, files."""
    manifest = open_named(bundle).manifest
    if json:
        print_json(manifest)
        return
    for table in _tables(manifest):
        stdout.print(table)


def verify(bundle: BundleArgument = None, json: JsonOption = False) -> None:
    """Check a bundle: hashes, contracts, and a short run of all graphs."""
    opened = open_named(bundle)
    tuned = open_tuned(opened)
    with file_progress("checking", opened.manifest.size + tuned.size) as progress:
        verify_files(opened, progress)
        verify_tuned(tuned, progress)
    stages, files = smoke_run(opened, tuned), len(opened.manifest.files)
    further = unlisted(opened.directory, opened.manifest)
    if json:
        about = {"bundle": as_unicode(opened.directory), "sha256": opened.sha256, "tuned": len(tuned.files)}
        print_json({**about, "ok": True, "files": files, "unlisted": further, "smoke_run_ms": stages})
        return
    print(f"{printable(opened.directory)}: {files} files, {len(stages)} stages: all as the manifest says")
    if tuned.files:
        print(f"{tuned.folder}: {len(tuned.files)} files of the tuned form: all as voxrill tune wrote them")
    if further:
        names = ", ".join(map(printable, further[:_NAMED]))
        print(f"{len(further)} further files, which the manifest does not list: {names}")


def pack(
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write, e.g. model.voxrill.")],
    bundle: BundleArgument = None,
    force: ForceOption = False,
) -> None:
    """Make one file of a bundle, to carry to a device that is offline."""
    opened = open_named(bundle)
    check_output(out, map(opened.path, (MANIFEST_FILE, *opened.manifest.files)), force=force, makes_folder=True)
    with file_progress("packing", opened.manifest.size) as progress:
        packing.pack(opened, out, progress)
    err.print(f"wrote {out} ({size(out.stat().st_size)})")


def unpack(
    packed: Annotated[Path, typer.Argument(help="A file that voxrill pack wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle folder to write.")],
    force: ForceOption = False,
) -> None:
    """Take a packed bundle apart, checking every hash."""
    with file_progress("unpacking", packed.stat().st_size if packed.is_file() else 0) as progress:
        packing.unpack(packed, out, progress, force)
    err.print(f"wrote {out}")


def _tables(manifest: Manifest) -> Iterator[Table]:
    source = manifest.source
    positions = manifest.static.context if manifest.static else min(_POSITIONS, manifest.context_positions)
    state = state_bytes(manifest.specs()[DECODER], positions)
    about = new_table(manifest.name, "", "")
    for key, value in {
        "family": f"{manifest.family} ({', '.join(languages(manifest.tasks))})",
        "flavour": manifest.flavour + (f" {manifest.static}" if manifest.static else ""),
        "source": f"{source.name} @ {source.revision}",
        "weights sha256": source.weights_sha256,
        **{f"{overlay.kind} laid over": f"{overlay.name} ({overlay.sha256})" for overlay in source.overlays},
        "licence of the weights": f"{source.licence} ({source.licence_url})",
        "codebooks": f"{manifest.model.codes.codebooks} x {manifest.model.codes.vocab_size}",
        "codec": f"{manifest.model.codec.graph}, {manifest.model.codec.sample_rate} Hz",
        "interleaved": f"{manifest.model.interleave.text} text : {manifest.model.interleave.audio} audio",
        "KV cache": f"{manifest.model.backbone.kv_cache}, {size(state)} with all state for {positions} positions",
        "size": size(manifest.size),
        "made with": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()),
    }.items():
        about.add_row(key, value)
    yield about
    graphs = new_table("graphs", "graph", "precision", "size")
    for name, graph in manifest.graphs.items():
        graphs.add_row(name, graph.precision, size(manifest.graph_size(name)))
    yield graphs
    tasks = new_table("tasks", "task", "mode", "system prompt", "audio sampling", "voices")
    for name in ("transcribe", "speak", "chat", "write"):
        task: Task = getattr(manifest.tasks, name)
        tasks.add_row(name, task.mode, task.system, _sampling_text(task.audio), ", ".join(task.voices) or task.voice)
    yield tasks


def _sampling_text(sampling: Sampling) -> str:
    return "greedy" if sampling.greedy else f"temperature {sampling.temperature}, top-k {sampling.top_k}"
