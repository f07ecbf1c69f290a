"""Silence alone against end-of-turn models: `python -m benchmarks.turns --people FOLDER --model FILE`.

The table or JSON goes to stdout, progress to stderr. What the models said is kept in a file, so that a measurement that
was interrupted goes on, and the figures can be made again in a second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.turns import report
from benchmarks.turns.clips import find_clips, own_clips
from benchmarks.turns.pauses import measure
from benchmarks.turns.policies import OWN, SMART_TURN
from voxrill.commands.output import check_plot, err
from voxrill.devices.processor import processor
from voxrill.model import Model
from voxrill.runtime.apps.own_end import OwnEnd
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.audio.end_of_turn import AUTO, find_model
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.progress import step_progress

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.command()
def turns(
    people: Annotated[Path, typer.Option(help="Folder of recordings: see benchmarks/README.md.")],
    model: Annotated[str, typer.Option(help="The end-of-turn model: its file, or auto for an installed one.")] = AUTO,
    said: Annotated[Path, typer.Option(help="File for what the models said.")] = Path("build/turns.jsonl"),
    stretch: Annotated[list[float] | None, typer.Option(help="Length of pauses: 1 as recorded.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw.")] = None,
) -> None:
    """Compare when turns of people would end: by silence alone, by an end-of-turn model, by the built-in model."""
    if plot is not None:
        check_plot(plot)
    ends = find_model(model)
    if ends is None:
        raise UsageError("there is no end-of-turn model", "Install pipecat-ai, or give its file with --model")
    clips = [*find_clips(people), *own_clips()]
    models = {SMART_TURN: ends, OWN: OwnEnd(Model(open_builtin(), 1)).probability}
    said.parent.mkdir(parents=True, exist_ok=True)
    with step_progress(err, "asking") as progress:
        utterances = measure(clips, stretch or [1.0, 0.5, 2.0], models, said, progress)
    found = {"processor": processor(), **report.results(utterances)}
    if json is not None:
        with atomic_write(json) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    if plot is not None:
        report.plot(found, plot, found["processor"])
    out = Console(highlight=False, markup=False, emoji=False)
    for table in report.tables(found):
        out.print(table)
    out.print("processor time of a judgement, ms:", found["cpu_ms"])


if __name__ == "__main__":
    try:
        app(prog_name="python -m benchmarks.turns")
    except VoxrillError as error:
        sys.exit(f"benchmarks.turns: {error}")
