"""The command that runs on the host: export. The heavy packages are imported when it runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from voxrill.runtime.contract import StaticShapes
from voxrill.runtime.errors import MissingDependency, UsageError
from voxrill.runtime.steps import step_progress

_err = Console(stderr=True, highlight=False, markup=False, emoji=False)
_SHAPES = StaticShapes()


def register(app: typer.Typer) -> None:
    """Add this room's command to the command line."""
    app.command()(export)


def export(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, or a hub id like LiquidAI/LFM2.5-Audio-1.5B.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Bundle folder to write.")],
    graphs: Annotated[
        str, typer.Option(help="Export only these graphs (comma-separated) into an existing bundle.")
    ] = "",
    flavour: Annotated[str, typer.Option(help="cpu: any length. npu: fixed shapes, plain operators only.")] = "cpu",
    mel_frames: Annotated[
        int, typer.Option(help="npu: 10 ms log-mel frames the encoder takes.", min=8)
    ] = _SHAPES.mel_frames,
    prefill: Annotated[int, typer.Option(help="npu: positions of a prefill call.", min=2)] = _SHAPES.prefill,
    context: Annotated[int, typer.Option(help="npu: positions of the KV cache.", min=8)] = _SHAPES.context,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use the hub's local cache only.")] = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs."""
    if flavour not in ("cpu", "npu"):
        raise UsageError(f"--flavour is {flavour!r}", "Give cpu or npu")
    try:
        from voxrill.export.bundle import ExportOptions, export_bundle
        from voxrill.export.hub import find_checkpoint
    except ImportError as error:
        raise MissingDependency("export", error.name or "") from None
    static = StaticShapes(mel_frames, prefill, context) if flavour == "npu" else None
    chosen = tuple(name.strip() for name in graphs.split(",") if name.strip())
    opened = find_checkpoint(checkpoint, revision, offline)
    with step_progress(_err, "export") as progress:
        bundle = export_bundle(opened, out, ExportOptions(static, chosen), progress)
    _err.print(
        f"wrote {out}: {len(bundle.manifest.graphs)} graphs, {bundle.manifest.size / 1e6:.0f} MB",
        soft_wrap=True,
    )
