"""From plans to advice: which precision to take for each task on a device, and what would fit where none does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from voxrill.devices.planner import TASKS, Plan, Task, best, plan
from voxrill.devices.profile import NO_DOT_PRODUCT, Profile, read_profile, shipped_profiles
from voxrill.devices.stages import ModelShape

_TARGET_ONLY = "only a bundle is made for it: this runtime does not run there"
_WHOLE_BYTES = ("float32", "int8")
_FALLBACK = "its processor has no dot product, and computes products of 4 bits and fewer in float32"


def plans(profile: Profile, models: list[ModelShape], threads: int, memory_gb: float | None = None) -> list[Plan]:
    """A plan for every task with every model. `models` come in the order of their bits, most first."""
    machine = profile.machine(memory_gb)
    found = [plan(task, model, machine, threads) for task in TASKS for model in models]
    return found if profile.runnable else [_refused(entry) for entry in found]


def _refused(entry: Plan) -> Plan:
    return replace(entry, verdict="not on this device", delay=0.0, reason=_TARGET_ONLY)


@dataclass(frozen=True)
class Holding:
    """One memory size that a device is sold with: GB in all, GB left for a model, and the precisions that fit."""

    memory_gb: float
    free_gb: float
    precisions: tuple[str, ...]


def holdings(profile: Profile, models: list[ModelShape]) -> list[Holding]:
    """What each memory size of a device holds, smallest first. `models` come in the order of their bits."""
    found = []
    for size in profile.memory_sizes_gb or (profile.memory_gb.value,):
        machine = profile.machine(size)
        fitting = tuple(model.precision for model in models if model.on(machine).memory <= machine.memory)
        found.append(Holding(size, machine.memory / 1e9, fitting))
    return found


def advise(profile: Profile, models: list[ModelShape], threads: int) -> dict[Task, str]:
    """One sentence for each task: which precision to take, or what would fit instead."""
    found = plans(profile, models, threads)
    return {task: _advice(profile, models, threads, task, _of(found, task)) for task in TASKS}


def _of(found: list[Plan], task: Task) -> list[Plan]:
    return [entry for entry in found if entry.task == task]


def _advice(profile: Profile, models: list[ModelShape], threads: int, task: Task, found: list[Plan]) -> str:
    chosen = best(found)
    if chosen:
        why = f"; {_FALLBACK}" if _suffers(profile, found) else ""
        words = describe(chosen)
        if task == "talk" and not chosen.live:
            return f"{words} ({chosen.precision}){why}"
        return f"take {chosen.precision}: {words}{why}"
    for size in profile.memory_sizes_gb:
        larger = best(_of(plans(profile, models, threads, size), task))
        if larger:
            return f"not with {profile.memory_gb.value:g} GB; with {size:g} GB {larger.precision}: {describe(larger)}"
    return f"not on this device; {_elsewhere(models, task)}"


def _suffers(profile: Profile, found: list[Plan]) -> bool:
    """Whether this processor is slow at one of the precisions."""
    return profile.instruction_set.value in NO_DOT_PRODUCT and any(e.precision not in _WHOLE_BYTES for e in found)


def _elsewhere(models: list[ModelShape], task: Task) -> str:
    """Of the devices that come with Voxrill, the one with the slowest memory on which this task runs."""
    fitting = []
    for name in shipped_profiles():
        profile = read_profile(name)
        chosen = best(_of(plans(profile, models, profile.cores.value), task))
        if chosen and (chosen.live or task != "talk"):
            fitting.append((profile.bandwidth_gbps.value, f"{name} would do ({chosen.precision}: {describe(chosen)})"))
    return min(fitting)[1] if fitting else "nor on any other that Voxrill knows: quantize the bundle"


def describe(entry: Plan) -> str:
    """A verdict in words."""
    if entry.verdict == "buffered":
        waiting = f"{math.ceil(entry.delay)} s of waiting for 10 s of sound"
        return f"buffered, {waiting}" if entry.live else f"not usable live, {waiting}"
    return f"{entry.verdict}{f': {entry.reason}' if entry.reason else ''}"
