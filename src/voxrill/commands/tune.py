"""The command that fits a bundle to the device it is on: tune.

What it gains goes to stdout, as text or JSON; progress to stderr.
"""

from __future__ import annotations

from dataclasses import asdict

from voxrill.commands.options import BundleArgument, JsonOption, open_path
from voxrill.commands.output import err, print_json
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.printable import printable
from voxrill.runtime.progress import step_progress
from voxrill.runtime.upkeep.tuning import Load, TuneReport
from voxrill.runtime.upkeep.tuning import tune as tune_bundle


def tune(bundle: BundleArgument = None, json: JsonOption = False) -> None:
    """Fit a bundle to this device: weights ready to be mapped, threads."""
    opened = open_builtin() if bundle is None else open_path(bundle)
    with step_progress(err, "tune") as progress:
        report = tune_bundle(opened, progress)
    if json:
        print_json({**asdict(report), "folder": str(report.folder)})
    else:
        _show(report)


def _show(report: TuneReport) -> None:
    wrote = f"{report.size / 1e6:.1f} MB; {len(report.graphs)} graphs, the same bits as before"
    print(f"wrote {printable(report.folder)}: {wrote if report.graphs else 'the number of threads'}")
    if report.answers:
        print(_compared(report))
    print(f"loading: {_load(report.before)} before, {_load(report.after)} now")
    for threads, stages in report.timings.items():
        times = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in stages.items())
        print(f"{threads} thread{'s' * (threads > 1)}: {times}{' (the best)' * (threads == report.threads)}")


def _compared(report: TuneReport) -> str:
    """What the two ways to hold weights take, and which is kept."""
    times = ", ".join(f"{form} {ms:.0f} ms" for form, ms in report.answers.items())
    kept = "mapped" if report.graphs else "copied onto huge pages; loading stays as it was"
    return f"an answer with weights that are {times}; they will be {kept}"


def _load(load: Load) -> str:
    memory = "" if load.private is None else f" and {load.private / 1e6:.0f} MB of its own memory"
    return f"{load.seconds:.2f} s{memory}"
