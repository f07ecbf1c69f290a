"""The command that measures for minutes: bench --minutes N.

The table or JSON goes to stdout; the live line and the rest go to stderr. Ctrl-C ends it and shows what was measured.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from voxrill.commands.options import (
    JsonOption,
    Loading,
    loads_model,
)
from voxrill.commands.output import check_plot, err, print_columns, print_json
from voxrill.devices.heat import BASELINE, Sample, Verdict, judge
from voxrill.runtime.errors import UsageError
from voxrill.runtime.picture import figure_class, save_picture
from voxrill.runtime.progress import step_progress

if TYPE_CHECKING:
    from voxrill.devices.energy import Meter
    from voxrill.runtime.progress import Progress

group = typer.Typer(name="bench", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
"""The command bench. The commands under it are hidden: they say where the repository's own benchmarks are."""

_ROWS = 10
_HEADER = ("from, min", "sound a second", "°C", "GHz", "J for 1 s of sound")


@group.callback(invoke_without_command=True)
@loads_model
def sustained(
    context: typer.Context,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="How long to speak without a pause, to see whether heat slows this machine."),
    ] = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw.")] = None,
) -> None:
    """Speak for minutes, and see whether heat slows this machine."""
    if context.invoked_subcommand is not None:
        return
    if minutes is None:
        raise UsageError("there is nothing to measure", "Give --minutes N, or a command: voxrill bench --help")
    from voxrill.commands.output_files import check_output
    from voxrill.devices.energy import open_meter
    from voxrill.devices.processor import processor
    from voxrill.runtime.upkeep.sustained import sustain

    if plot is not None:
        check_plot(plot)
        check_output(plot)
    model = loading.model()
    samples: list[Sample] = []
    meter, missing = open_meter()
    with step_progress(err, "speaking") as progress, suppress(KeyboardInterrupt):
        for sample in sustain(model, 60 * minutes, meter=meter):
            samples.append(sample)
            _tell(progress, samples, 60 * minutes)
    if not samples:
        raise UsageError("it ended before the first sample", "Let it run for some seconds")
    verdict = judge(samples)
    if plot is not None:
        _plot(samples, plot)
    if json:
        joules = _joules(samples)
        energy = {"of": meter.name if meter else None, "joules_per_second_of_sound": joules, "missing": missing}
        about = {"processor": processor(), "threads": model.threads, "verdict": asdict(verdict), "energy": energy}
        print_json({**about, "samples": list(map(asdict, samples))})
    else:
        print_columns([_HEADER, *_rows(samples)])
        print(describe(verdict))
        print(_energy(samples, meter, missing))


_ANY = {"ignore_unknown_options": True, "allow_extra_args": True}
"""For a command that only says where the real one is: it takes any options."""


@group.command("talk", hidden=True, context_settings=_ANY)
def talk() -> None:
    """Time answers to recorded questions: `python -m benchmarks.talk talk` in a clone of the repository."""
    raise _in_the_repository("talk")


@group.command("first-sound", hidden=True, context_settings=_ANY)
def first_sound() -> None:
    """Time the first sound, stage by stage: `python -m benchmarks.talk first-sound` in a clone of the repository."""
    raise _in_the_repository("first-sound")


def _in_the_repository(command: str) -> UsageError:
    return UsageError(
        f"bench {command} is not part of the installed package: it asks with a virtual user that no device needs",
        f"In a clone of the repository run: python -m benchmarks.talk {command}",
    )


def describe(verdict: Verdict) -> str:
    """A verdict in words."""
    change = f"at the end {100 * verdict.kept:.0f} % of the first {BASELINE} samples' rate"
    if verdict.since is not None:
        return f"throttled from {verdict.since / 60:.1f} min on: clock and rate fell together; {change}"
    if not verdict.known:
        return f"this system shows no clock, so throttling cannot be told from other programs; {change}"
    return f"not throttled: clock and rate did not fall together; {change}"


def _energy(samples: list[Sample], meter: Meter | None, missing: str) -> str:
    """The energy in words."""
    if meter is None:
        return f"energy not measured: {missing}"
    joules, rate = _joules(samples), median(sample.rate for sample in samples)
    if joules is None:
        return f"energy not measured: the sensor of the {meter.name} cannot be read any more"
    return f"{joules:.3g} J for a second of speech, {joules * rate:.3g} W: {meter.name}, other programs included"


def _joules(samples: list[Sample]) -> float | None:
    found = [sample.joules for sample in samples if sample.joules is not None]
    return median(found) if found else None


def _tell(progress: Progress, samples: list[Sample], seconds: float) -> None:
    sample = samples[-1]
    parts = [f"{sample.rate:.2f} s of sound a second", *filter(None, (_celsius([sample]), _ghz([sample])))]
    progress(
        ", ".join([*parts, *(["throttled"] if judge(samples).since is not None else [])]), int(sample.at), int(seconds)
    )


def _rows(samples: list[Sample]) -> list[tuple[str, ...]]:
    """The run in ten parts, or in as many as there are samples: medians of each."""
    size = -(-len(samples) // _ROWS)  # rounded up, so that there are never more rows
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [
        (
            f"{part[0].at / 60:.1f}",
            f"{median(sample.rate for sample in part):.2f}",
            _celsius(part).removesuffix(" °C") or "?",
            _ghz(part).removesuffix(" GHz") or "?",
            "?" if (joules := _joules(part)) is None else f"{joules:.3g}",
        )
        for part in parts
    ]


def _celsius(samples: list[Sample]) -> str:
    found = [sample.celsius for sample in samples if sample.celsius is not None]
    return f"{median(found):.0f} °C" if found else ""


def _ghz(samples: list[Sample]) -> str:
    found = [sample.ghz for sample in samples if sample.ghz is not None]
    return f"{median(found):.2f} GHz" if found else ""


def _plot(samples: list[Sample], path: Path) -> None:
    """Draw rate, temperature and clock over time, as far as they are known."""
    figure = figure_class("demo")(figsize=(9, 6), layout="constrained")
    curves = (
        ("sound a second, s", [sample.rate for sample in samples]),
        ("°C", [sample.celsius for sample in samples]),
        ("GHz", [sample.ghz for sample in samples]),
        ("J for 1 s of sound", [sample.joules for sample in samples]),
    )
    known = [(label, values) for label, values in curves if None not in values]
    minutes = [sample.at / 60 for sample in samples]
    for axes, (label, values) in zip(figure.subplots(len(known), sharex=True, squeeze=False)[:, 0], known, strict=True):
        axes.plot(minutes, values)
        axes.set(ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
    axes.set_xlabel("minutes")
    save_picture(figure, path)
    err.print(f"wrote {path}")
