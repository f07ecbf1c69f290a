"""The command for a person who has exported the real weights: accept.

The table, or a line of JSON a row, goes to stdout. A comparison that fails is in the exit status.
"""

from __future__ import annotations

import os
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
    from voxrill.runtime.apps.acceptance.by_itself import SpokenSentence
    from voxrill.runtime.apps.acceptance.folder import PublishedFolder
    from voxrill.runtime.apps.acceptance.rows import AcceptanceRow

SAID = ("kitchen lights on", "what time is it")
"""What the built-in model says to a model without published outputs."""

PUBLISHED = "VOXRILL_PUBLISHED"
PublishedOption = Annotated[
    Path | None,
    typer.Option(
        "--published",
        help="Folder of published outputs of LFM2.5-Audio-1.5B; docs/models/acceptance.md lists its files. Without it "
        f"and the environment variable {PUBLISHED}, or with --audio, the model is held to what it hears and says.",
    ),
]


@loads_model
def accept(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    published: PublishedOption = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage, and the files that it reads; may be repeated.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The checkpoint's folder: compares two whole layers too. Needs the extra export."),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Without published outputs: a sentence that somebody said. Needs --text.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What is said in --audio.")] = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
) -> None:
    """Hold a bundle to what the real weights are known to say."""
    from voxrill.runtime.apps.acceptance.accept import accept as compared
    from voxrill.runtime.apps.acceptance.accept import check_published, chosen_stages
    from voxrill.runtime.apps.acceptance.folder import PublishedFolder
    from voxrill.runtime.bundle.bundle import open_bundle

    if (audio is None) != (text is None):
        raise UsageError("--audio and --text belong together", "Give a sound, and the text that is said in it")
    if published is None and audio is None and os.environ.get(PUBLISHED):
        published = Path(os.environ[PUBLISHED])
    if published is None:
        if checkpoint is not None:
            raise UsageError(
                "--checkpoint needs published outputs", "Give --published FOLDER; see docs/models/acceptance.md"
            )
        _judge(_by_itself(loading, audio, text, stage or ()), json)
        return
    if audio is not None:
        raise UsageError("--audio is for a model without published outputs", "Leave out --published, or --audio")
    folder, stages = PublishedFolder(published), chosen_stages(stage or ())
    revision = check_published(open_bundle(bundle).manifest, folder, stages)
    if not json:
        err.print(f"published outputs of revision {revision}", style="dim")
    rows: list[AcceptanceRow] = []
    with step_progress(err, "accept") as progress:
        rows += compared(loading.model(), folder, stages, progress)
    if "layers" in stages:
        rows += _layers(folder, checkpoint)
    _judge(rows, json)


def _by_itself(loading: Loading, audio: Path | None, text: str | None, stages: Sequence[str]) -> list[AcceptanceRow]:
    """What the model makes of sentences that somebody else says, and of its own."""
    from voxrill.runtime.apps.acceptance.by_itself import accept_by_itself, chosen_checks

    checks = chosen_checks(stages)
    said = list(_spoken(audio, text))
    with step_progress(err, "accept") as progress:
        return list(accept_by_itself(loading.model(), said, checks, progress))


def _spoken(audio: Path | None, text: str | None) -> Iterator[SpokenSentence]:
    """The caller's sentence, else what the built-in model says."""
    from voxrill.model import load
    from voxrill.runtime.apps.acceptance.by_itself import SpokenSentence
    from voxrill.runtime.audio.sound_source import as_waveform

    if audio is not None and text is not None:
        yield SpokenSentence(text, as_waveform(audio), audio.name)
        return
    with load() as built_in:
        for sentence in SAID:
            said = built_in.speak(sentence, seed=0).result
            yield SpokenSentence(sentence, as_waveform(said.samples, said.sample_rate), "the built-in model")


def _judge(rows: Sequence[AcceptanceRow], json: bool) -> None:
    """Show the rows, and fail if one of them does."""
    _show(rows, json)
    failed = dict.fromkeys(row.stage for row in rows if row.verdict == "FAIL")
    if failed:
        raise VoxrillError(
            f"the bundle is not accepted: {', '.join(failed)}",
            "docs/models/acceptance.md says what each stage compares, and where to look",
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
