"""The command that fits a bundle to the device it is on: tune.

What it gains goes to stdout, as text or JSON; progress to stderr.
"""

from __future__ import annotations

from dataclasses import asdict

import typer

from voxrill.runtime.builtin import open_builtin
from voxrill.runtime.bundle import open_bundle
from voxrill.runtime.cli import BundleArgument, JsonOption, err, print_json
from voxrill.runtime.steps import step_progress
from voxrill.runtime.tuning import Load, Report
from voxrill.runtime.tuning import tune as tune_bundle


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(tune)


def tune(bundle: BundleArgument = None, json: JsonOption = False) -> None:
    """Fit a bundle to this device: weights ready to be mapped, and the best number of threads."""
    opened = open_builtin() if bundle is None else open_bundle(bundle)
    with step_progress(err, "tune") as progress:
        report = tune_bundle(opened, progress)
    if json:
        print_json({**asdict(report), "folder": str(report.folder)})
    else:
        _show(report)


def _show(report: Report) -> None:
    print(f"wrote {report.folder}: {report.size / 1e6:.1f} MB; {len(report.graphs)} graphs, the same bits as before")
    print(f"loading: {_load(report.before)} before, {_load(report.after)} now")
    for threads, stages in report.timings.items():
        times = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in stages.items())
        print(f"{threads} thread{'s' * (threads > 1)}: {times}{' (the best)' * (threads == report.threads)}")


def _load(load: Load) -> str:
    memory = "" if load.private is None else f" and {load.private / 1e6:.0f} MB of its own memory"
    return f"{load.seconds:.2f} s{memory}"
