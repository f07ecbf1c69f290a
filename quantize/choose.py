"""A recipe from measured sensitivity: fewer bits first where they cost least for each byte that they save.

In: what `sensitivity.measure` found, and a budget or a share of the cost to avoid. Out: the bits of each group, and the
recipe as TOML text that a user can edit. Costs of groups are taken to add up, which holds while they are small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from voxrill.quantize.groups import Inventory
from voxrill.quantize.recipe import K_QUANT
from voxrill.quantize.sensitivity import MeasuredGroup
from voxrill.runtime.errors import UsageError

AVOIDED = 0.75
"""Share of the cost of the fewest bits that a recipe avoids if no budget is given."""


@dataclass(frozen=True)
class Step:
    """A group gets fewer bits: how much more they cost than those before, and the bytes that they save."""

    group: MeasuredGroup
    bits: int
    added: float
    saved: int

    @property
    def rank(self) -> float:
        """Cost for each saved byte."""
        return self.added / self.saved


@dataclass(frozen=True)
class BitsChosen:
    """The bits of each group, in the order of the measured ones; cost and size: of the whole bundle."""

    bits: list[int]
    cost: float
    size: int


def choose(measured: Sequence[MeasuredGroup], inventory: Inventory, budget: int | None = None) -> BitsChosen:
    """The bits of every group.

    Args:
        measured: the groups.
        inventory: the bundle that they are from.
        budget: bytes that the bundle may have. None: avoid `AVOIDED` of the cost of the fewest bits everywhere.

    Raises:
        UsageError: the bundle would be too large even with the fewest bits everywhere.
    """
    ways = path(measured, inventory)
    if budget is None:
        most = ways[0].cost + (1 - AVOIDED) * (ways[-1].cost - ways[0].cost)
        return [way for way in ways if way.cost <= most][-1]
    fitting = next((way for way in ways if way.size <= budget), None)
    if fitting is None:
        least = math.ceil(ways[-1].size / 1e4) / 100  # rounded up: what is said is enough
        raise UsageError(
            f"the bundle cannot have {budget / 1e6:.1f} MB",
            f"Give a --budget of at least {least:.2f}MB, its size with the fewest bits everywhere",
        )
    return fitting


def path(measured: Sequence[MeasuredGroup], inventory: Inventory) -> list[BitsChosen]:
    """Every choice from the most bits everywhere to the fewest, one step after the other, the cheapest first."""
    bits = [max(group.costs) for group in measured]
    ways = [
        BitsChosen(bits, sum(group.costs[most] for group, most in zip(measured, bits, strict=True)), inventory.size)
    ]
    places = {id(group): place for place, group in enumerate(measured)}
    steps = [step for group in measured for step in steps_of(group)]
    for step in sorted(steps, key=lambda step: step.rank):  # stable: the steps of one group stay in their order
        before = ways[-1]
        bits = list(before.bits)
        bits[places[id(step.group)]] = step.bits
        ways.append(BitsChosen(bits, before.cost + step.added, before.size - step.saved))
    return ways


def steps_of(group: MeasuredGroup) -> list[Step]:
    """The steps of one group. Each costs at least as much a byte as the one before.

    A number of bits is left out where fewer bits cost less a byte, so that taking the cheapest step first is right.
    """
    steps: list[Step] = []
    for bits in sorted(group.costs, reverse=True)[1:]:
        steps.append(_step(group, steps[-1].bits if steps else max(group.costs), bits))
        while len(steps) > 1 and steps[-1].rank < steps[-2].rank:
            del steps[-2:]
            steps.append(_step(group, steps[-1].bits if steps else max(group.costs), bits))
    return steps


def _step(group: MeasuredGroup, before: int, after: int) -> Step:
    added = max(group.costs[after] - group.costs[before], 0.0)
    return Step(group, after, added, group.sizes[before] - group.sizes[after])


def as_toml(measured: Sequence[MeasuredGroup], choice: BitsChosen, about: str, block: int) -> str:
    """The recipe: 8 bits for all and for the KV cache, and an entry for each group that has fewer."""
    entries = [f'about = "{about}"\n', "[kv_cache]\nbits = 8\n", "[[weights]]\nbits = 8\n"]
    fewer = [(one, bits) for one, bits in zip(measured, choice.bits, strict=True) if bits < max(one.costs)]
    for one, bits in sorted(fewer, key=lambda pair: (pair[0].group.graph, pair[0].group.pattern)):
        costs = ", ".join(f"{cost:.2g} in {number} bits" for number, cost in sorted(one.costs.items()))
        entries.append(
            f"[[weights]]  # costs {costs}\n"
            f'graph = "{one.group.graph}"\nname = "{one.group.pattern}"\n'
            f'bits = {bits}\nblock = {block}\nmethod = "{K_QUANT}"\n'
        )
    return "\n".join(entries)
