"""The command that says what will run on a device before it is bought: plan.

The table or JSON goes to stdout; everything else goes to stderr.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from voxrill.commands.options import JsonOption, open_path
from voxrill.commands.output import err, print_columns, print_json
from voxrill.devices.advice import Holding, advise, describe, holdings, plans
from voxrill.devices.known import SIZES, known_bits, known_model, model
from voxrill.devices.planner import SMALL_MARGIN, Plan, margin
from voxrill.devices.profile import OWN, Profile, read_profile, shipped_profiles
from voxrill.devices.stages import CONTEXT, ModelShape, widths_of
from voxrill.runtime.errors import UsageError

if TYPE_CHECKING:
    from voxrill.runtime.bundle.manifest import Manifest

THIS = "this"


class Whose(StrEnum):
    """Whose products of weights are planned with."""

    onnxruntime = "onnxruntime"
    own = OWN


_PROCESS = 60e6
"""Bytes that Python, numpy and onnxruntime take before a model is loaded, as measured."""

_SMALL_NOTE = f"This is a small model: it may take up to {SMALL_MARGIN:g} times as long as these predictions."
"""For stderr; the verdicts allow for it."""

_HEADER = ("task", "precision", "step, ms", "x sound", "first, s", "memory, GB", "verdict")


def plan(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            envvar="VOXRILL_BUNDLE",
            help="Bundle folder; without one, the 1.5 B model at every precision.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help=f"this (measured in 3 s), a profile's file, or one of: {', '.join(shipped_profiles())}."),
    ] = THIS,
    precision: Annotated[
        str | None, typer.Option(help=f"Without a bundle, only this one: {', '.join(SIZES)}.", show_default=False)
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option(min=2, max=4, help="Without a bundle: bits of a weight of the backbone on average, such as 3.3."),
    ] = None,
    products: Annotated[
        Whose | None,
        typer.Option(help="Whose matrix products; without it, our own where they are known.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: one on each core that helps.")] = 0,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Positions that a conversation needs: 1 for a token, 12.5 for a second of sound."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Predict what will run on a device, how fast, and in how much memory."""
    profile = _profile(device)
    if products is not None:
        profile = profile.planned_with(products.value)
    models = [_bits(bits, profile, bundle, precision, context)] if bits else _models(bundle, precision, context)
    count = _threads(profile, threads)
    if margin(models[0]) == SMALL_MARGIN:
        err.print(_SMALL_NOTE, soft_wrap=True)
    found, fits, advice = plans(profile, models, count), holdings(profile, models), advise(profile, models, count)
    if json:
        figures = {name: msgspec.to_builtins(figure) for name, figure in profile.figures.items()}
        about = {"name": profile.name, "runnable": profile.runnable, **figures}
        found_plans = [{**asdict(entry), "live": entry.live} for entry in found]
        tables = {"plans": found_plans, "fits": list(map(asdict, fits))}
        print_json({"device": about, "evidence": profile.evidence, **tables, "advice": advice})
    else:
        print("\n".join(f"{task}: {words}" for task, words in advice.items()))
        print()
        _show(profile, count, found)
        print(f"memory: {'; '.join(map(_holding, fits))}")


def _bits(bits: float, profile: Profile, bundle: Path | None, precision: str | None, context: int | None) -> ModelShape:
    """The 1.5 B model at some bits of a weight."""
    if bundle is not None or precision is not None:
        other = "--precision" if bundle is None else "a bundle"
        raise UsageError(f"{other} says how many bits a weight has", f"Give --bits or {other}, not both")
    if bits < 4 and not profile.machine().own:
        raise UsageError(
            f"how fast products of fewer than 4 bits are on {profile.name} is not known",
            "Give --bits 4, or a --device whose own products are known, such as pi5",
        )
    return known_bits(bits, context or CONTEXT)


def _models(bundle: Path | None, precision: str | None, context: int | None) -> list[ModelShape]:
    """The bundle's model, or the 1.5 B one, most bits first."""
    if bundle is not None:
        if precision is not None:
            raise UsageError("a bundle has its own precision", "Give a bundle or --precision, not both")
        return [bundle_model(open_path(bundle).manifest, context)]
    if precision is not None and precision not in SIZES:
        raise UsageError(f"there is no precision {precision!r}", f"Give one of: {', '.join(SIZES)}")
    return [known_model(name, context or CONTEXT) for name in SIZES if precision in (None, name)]


def bundle_model(manifest: Manifest, context: int | None = None) -> ModelShape:
    """What the planner needs to know about a bundle.

    Args:
        manifest: the bundle's.
        context: positions of the conversation that is planned; None for a usual one.

    Raises:
        UsageError: the model takes fewer positions.
    """
    from voxrill.runtime.bundle.contract import DECODER, state_bytes
    from voxrill.runtime.bundle.memory import USUAL_CONTEXT, memory_needed

    most = manifest.context_positions
    if context is not None and context > most:
        raise UsageError(f"{context} positions are more than the bundle's model takes", f"Give at most {most}")
    graphs = {
        name: (manifest.graph_size(name), widths_of(graph.precision, graph.products or ()))
        for name, graph in manifest.graphs.items()
    }
    decoder = manifest.specs()[DECODER]
    kv_bytes = state_bytes(decoder, 2) - state_bytes(decoder, 1)  # what one position adds
    memory = memory_needed(manifest, context or USUAL_CONTEXT) + _PROCESS
    kv_cache = manifest.model.backbone.kv_cache
    shape = model(manifest.graphs[DECODER].precision, graphs, kv_bytes, memory, context or CONTEXT, kv_cache)
    return replace(shape, hears=bool(manifest.model.encoder.streaming))


def _profile(device: str) -> Profile:
    if device != THIS:
        return read_profile(device)
    from voxrill.devices.this import this_machine

    return this_machine()


def _threads(profile: Profile, wanted: int) -> int:
    cores = profile.cores.value
    if wanted > cores:
        raise UsageError(f"{profile.name} has {cores} cores, and {wanted} threads need as many", f"Give 1 to {cores}")
    return wanted or cores


def _show(profile: Profile, threads: int, found: list[Plan]) -> None:
    """Aligned columns, the verdict last."""
    bandwidth = profile.bandwidth_gbps
    print(
        f"{profile.name}: {threads} thread{'s' * (threads > 1)}, {profile.instruction_set.value}, "
        f"{bandwidth.value:.1f} GB/s ({bandwidth.evidence}). These are predictions. The least certain figure that they "
        f"use is {profile.evidence}."
    )
    print_columns([_HEADER, *map(_cells, found)])


def _holding(entry: Holding) -> str:
    """What one size of memory holds, in words."""
    held = ", ".join(entry.precisions) or "none of these"
    return f"{entry.memory_gb:.3g} GB ({entry.free_gb:.3g} free) hold {held}"


def _cells(entry: Plan) -> tuple[str, ...]:
    """One line of the table."""
    figures = (1e3 * entry.step, entry.real_time_factor, entry.first, entry.memory / 1e9)
    return (entry.task, entry.precision, *(f"{figure:.2f}" for figure in figures), describe(entry))
