"""The command for a person who has exported the real weights: accept.

The table, or a line of JSON a row, goes to stdout. A comparison that fails is in the exit status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxrill.commands.options import JsonOption, Loading, loads_model
from voxrill.commands.output import err, print_columns, print_json
from voxrill.runtime.errors import UsageError, VoxrillError, needs_extra
from voxrill.runtime.progress import step_progress

if TYPE_CHECKING:
    from voxrill.runtime.apps.acceptance.folder import PublishedFolder
    from voxrill.runtime.apps.acceptance.rows import AcceptanceRow

PublishedOption = Annotated[
    Path | None,
    typer.Option(
        "--published",
        envvar="VOXRILL_PUBLISHED",
        help="Folder of published outputs; docs/acceptance.md lists its files.",
    ),
]


@loads_model
def accept(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, exported from LFM2.5-Audio-1.5B.")],
    published: PublishedOption = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage, and the files that it reads; may be repeated.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The checkpoint's folder: compares two whole layers too. Needs the extra export."),
    ] = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
) -> None:
    """Hold a bundle to what the real weights are known to say."""
    from voxrill.runtime.apps.acceptance.accept import accept as compared
    from voxrill.runtime.apps.acceptance.accept import check_published, chosen_stages
    from voxrill.runtime.apps.acceptance.folder import PublishedFolder
    from voxrill.runtime.bundle.bundle import open_bundle

    if published is None:
        raise UsageError("no folder of published outputs was named", "Give --published FOLDER; see docs/acceptance.md")
    folder, stages = PublishedFolder(published), chosen_stages(stage or ())
    revision = check_published(open_bundle(bundle).manifest, folder, stages)
    if not json:
        err.print(f"published outputs of revision {revision}", style="dim")
    rows: list[AcceptanceRow] = []
    with step_progress(err, "accept") as progress:
        rows += compared(loading.model(), folder, stages, progress)
    if "layers" in stages:
        rows += _layers(folder, checkpoint)
    _show(rows, json)
    failed = dict.fromkeys(row.stage for row in rows if row.verdict == "FAIL")
    if failed:
        raise VoxrillError(
            f"the bundle is not accepted: {', '.join(failed)}",
            "docs/acceptance.md says what each stage compares, and where to look",
        )


def _layers(folder: PublishedFolder, checkpoint: Path | None) -> Iterator[AcceptanceRow]:
    """Two whole layers, which no graph shows: the modules that were exported compute them from the checkpoint."""
    from voxrill.runtime.apps.acceptance.rows import AcceptanceRow

    if checkpoint is None:
        yield AcceptanceRow("layers", "layers 0 and 2, whole", note="give --checkpoint FOLDER")
        return
    with needs_extra("export"):
        from voxrill.export.checkpoint import open_checkpoint
        from voxrill.export.published_layers import layer_rows
    yield from layer_rows(open_checkpoint(checkpoint), folder)


def _show(rows: Sequence[AcceptanceRow], json: bool) -> None:
    verdicts = Counter(row.verdict for row in rows)
    ties = int(sum(one.value for row in rows for one in row.quantities if one.name == "near-ties"))
    if json:
        for row in rows:
            print_json(row.as_json())
        end = {"accepted": not verdicts["FAIL"], "complete": not verdicts["not compared"]}
        print_json({**end, "verdicts": dict(verdicts), "near_ties": ties})
        return
    heads = ("verdict", "stage", "compared", "found", "bound")
    print_columns([heads, *((row.verdict, row.stage, row.compared, row.found, row.bound) for row in rows)])
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    print(f"{counts}; {ties} near-ties, which bfloat16 may have decided either way")
