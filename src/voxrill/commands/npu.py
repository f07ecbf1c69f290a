"""The commands that prove and compile a bundle for an NPU: npu-check (Qualcomm's, or Rockchip's), compile.

stdout is data (a table, or JSON), stderr is everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from voxrill.commands.options import JsonOption, open_path
from voxrill.commands.output import err, print_json
from voxrill.commands.output import out as stdout
from voxrill.devices.qnn import Htp
from voxrill.devices.socs import CHECKED, Soc, find_soc
from voxrill.runtime.bundle.compiled import compile_bundle, compiled_folder
from voxrill.runtime.errors import UsageError, needs_extra
from voxrill.runtime.progress import step_progress

if TYPE_CHECKING:
    from voxrill.export.npu_check import GraphCheck
    from voxrill.export.rknn_check import RknnCheck

NOT_READY = 1
"""Exit status of a check that found a graph which is not ready."""

_TITLE = "Simulated on this machine; the seconds are the compiler's"
_RKNN_TITLE = "RK3588, simulated on this machine; the seconds are the toolkit's"

NpuBundle = Annotated[Path, typer.Argument(help="Bundle folder of the npu flavour.")]


def npu_check(
    bundle: NpuBundle,
    soc: Annotated[
        list[str] | None, typer.Option(help=f"Chip to compile for; may be repeated.  [default: {' '.join(CHECKED)}]")
    ] = None,
    graph: Annotated[list[str] | None, typer.Option(help="Only this graph; may be repeated.")] = None,
    rknn: Annotated[
        Path | None,
        typer.Option(
            help="Check encoder and codec of a float32 bundle for the RK3588 instead, with the rknn-toolkit2 of this "
            "Python interpreter.",
            metavar="PYTHON",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compile a bundle's graphs for NPUs, and simulate them."""
    if rknn and soc:
        raise UsageError("--rknn is for the RK3588, --soc for Qualcomm's chips", "Run the command once for each")
    socs = [_soc(name) for name in soc or CHECKED]
    with needs_extra("npu"):
        from voxrill.export.npu_check import check_bundle
        from voxrill.export.rknn_check import check_for_rknn
    if rknn:
        with step_progress(err, "npu-check", lines=True) as progress:
            built = check_for_rknn(open_path(bundle), rknn, graph or (), progress)
        _tell(built, _rknn_table(built), json)
    else:
        with step_progress(err, "npu-check", lines=True) as progress:
            compiled = check_bundle(open_path(bundle), socs, graph or (), progress)
        _tell(compiled, _table(compiled), json)


def _tell(checks: Sequence[GraphCheck] | Sequence[RknnCheck], table: Table, json: bool) -> None:
    """What was found on stdout, and whether it is enough in the exit status."""
    ready = all(check.ready for check in checks)
    if json:
        print_json({"ready": ready, "graphs": [{**asdict(check), "ready": check.ready} for check in checks]})
    else:
        stdout.print(table)
        stdout.print("ready, by simulation" if ready else "not ready")
    if not ready:
        raise typer.Exit(NOT_READY)


def _table(checks: Sequence[GraphCheck]) -> Table:
    table = Table("graph", "MB", "HTP", "compiled", "context", "from the CPU", "read back", title=_TITLE)
    for check in checks:
        for chip in check.chips:
            table.add_row(
                check.graph,
                f"{check.size / 1e6:.1f}",
                f"v{chip.arch}",
                f"{chip.seconds:.1f} s",
                f"{chip.context / 1e6:.1f} MB",
                f"{100 * chip.difference:.2f} %",
                "same bits" if chip.same_bits else "other bits",
            )
    return table


def _rknn_table(checks: Sequence[RknnCheck]) -> Table:
    table = Table("graph", "precision", "built", "from the CPU", "left to the CPU", "refused", title=_RKNN_TITLE)
    for check in checks:
        for form in check.forms:
            table.add_row(
                check.graph,
                form.precision,
                f"{form.seconds:.1f} s",
                f"{100 * form.difference:.2f} %",
                f"{len(form.on_cpu)} nodes",
                ", ".join(form.refused) or "none",
            )
    return table


def compile_for(
    bundle: NpuBundle,
    soc: Annotated[str, typer.Option(help="The phone's chip, such as SM8650.")],
    json: JsonOption = False,
) -> None:
    """Compile a bundle for the NPU of a Qualcomm chip."""
    htp, opened = Htp(_soc(soc)), open_path(bundle)
    with step_progress(err, "compile", lines=True) as progress:
        form = compile_bundle(opened, htp, progress)
    folder = compiled_folder(opened, htp.soc)
    if json:
        graphs = {name: {"bytes": graph.size, "seconds": graph.seconds} for name, graph in form.graphs.items()}
        print_json({"folder": str(folder), "soc": form.soc, "sdk": form.sdk, "graphs": graphs})
        return
    for name, graph in form.graphs.items():
        print(f"{name}: {graph.size / 1e6:.1f} MB, {graph.seconds:.1f} s")
    err.print(f"wrote {folder} for {htp.soc.sold_as}, with Qualcomm's SDK {form.sdk}", soft_wrap=True)


def _soc(name: str) -> Soc:
    return find_soc(name)
