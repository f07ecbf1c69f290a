"""The command export, for a host. It imports the heavy packages only when it runs.

In: a checkpoint. Out: a bundle, quantised if a precision is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.options import ForceOption
from voxrill.commands.output import err
from voxrill.commands.quantize import quantiser
from voxrill.runtime.bundle.atomic_folder import hidden_folder, write_errors
from voxrill.runtime.bundle.contract import StaticShapes
from voxrill.runtime.bundle.manifest import FLOAT32
from voxrill.runtime.bundle.replacing import check_replaceable
from voxrill.runtime.errors import UsageError, needs_extra
from voxrill.runtime.progress import step_progress

_SHAPES = StaticShapes()


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Checkpoint folder, a GGUF pair (LFM3-Audio), or a hub id like LiquidAI/LFM2.5-Audio-1.5B."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Bundle folder to write.")],
    graphs: Annotated[
        str, typer.Option(help="Export only these graphs (comma-separated) into an existing bundle.")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="float32, or quantised as well: int8, int4, or a recipe file (TOML).")
    ] = FLOAT32,
    flavour: Annotated[str, typer.Option(help="cpu: any length. npu: fixed shapes, plain operators only.")] = "cpu",
    mel_frames: Annotated[
        int, typer.Option(help="npu: 10 ms log-mel frames the encoder takes.", min=8)
    ] = _SHAPES.mel_frames,
    prefill: Annotated[
        list[int] | None,
        typer.Option(
            help="npu: positions of a prefill call; may be repeated, for a graph each, which share their weights.  "
            f"[default: {_SHAPES.prefill}]",
            min=2,
        ),
    ] = None,
    context: Annotated[int, typer.Option(help="npu: positions of the KV cache.", min=8)] = _SHAPES.context,
    weights: Annotated[
        Path | None,
        typer.Option(help="Fine-tuned weights to lay over the checkpoint's: a safetensors file, or a folder with one."),
    ] = None,
    lora: Annotated[
        Path | None, typer.Option(help="LoRA adapter of peft to merge, after --weights: its folder.")
    ] = None,
    family: Annotated[
        str,
        typer.Option(
            help="Whose prompts and voices: lfm2-audio, lfm2.5-audio, lfm2.5-audio-jp or "
            "lfm3-audio.  "
            "[default: what the checkpoint shows]"
        ),
    ] = "",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use the hub's local cache only.")] = False,
    force: ForceOption = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs."""
    if flavour not in ("cpu", "npu"):
        raise UsageError(f"--flavour is {flavour!r}", "Give cpu or npu")
    chosen = tuple(name.strip() for name in graphs.split(",") if name.strip())
    quantise = None if precision == FLOAT32 else quantiser(precision, force=force)
    if quantise and chosen:
        raise UsageError(
            "--graphs exports only some graphs, and --precision quantises all of them",
            "Leave one of the two out, or run voxrill quantize on the float32 bundle afterwards",
        )
    check_replaceable(out, force or bool(chosen))
    with needs_extra("export"):
        from voxrill.export.fine_tune import fine_tuned
        from voxrill.export.hub import find_checkpoint
    static = _static(mel_frames, prefill, context) if flavour == "npu" else None
    opened, said = fine_tuned(find_checkpoint(checkpoint, revision, offline), weights, lora)
    for line in said:
        err.print(line, soft_wrap=True)
    with needs_extra("export"):  # after the checkpoint was found: the exporter takes seconds to import
        from voxrill.export.bundle import ExportOptions, export_bundle
    with _float32_folder(out) if quantise else nullcontext(out) as folder:
        with step_progress(err, "export", lines=True) as progress:
            bundle = export_bundle(opened, folder, ExportOptions(static, chosen, force, family), progress)
        smaller = ""
        if quantise:
            exported = bundle.manifest.size
            with step_progress(err, "quantize", lines=True) as progress:
                bundle = quantise(bundle, out, progress)
            smaller = f", {exported / bundle.manifest.size:.1f} times smaller than float32"
    err.print(
        f"wrote {out}: {len(bundle.manifest.graphs)} graphs, {bundle.manifest.size / 1e6:.0f} MB{smaller}, "
        f"of the family {bundle.manifest.family}",
        soft_wrap=True,
    )


def _static(mel_frames: int, prefill: Sequence[int] | None, context: int) -> StaticShapes:
    narrow, *wider = sorted(set(prefill or [_SHAPES.prefill]))
    return StaticShapes(mel_frames, narrow, context, wider_prefill=tuple(wider))


@contextmanager
def _float32_folder(target: Path) -> Iterator[Path]:
    """A hidden folder for the float32 bundle, removed at the end; beside `target` its files can be linked."""
    with write_errors(target, "nothing was written"), hidden_folder(target) as folder:
        yield folder / FLOAT32
