"""A recipe from measured sensitivity: 8 bits where 4 cost most for each byte that they save, 4 bits elsewhere.

In: what `sensitivity.measure` found, and a size or a share of the cost to avoid. Out: the recipe as TOML text that a
user can edit.
"""

from __future__ import annotations

from collections.abc import Sequence

from voxrill.quantize.groups import Inventory
from voxrill.quantize.recipe import K_QUANT
from voxrill.quantize.sensitivity import MeasuredGroup
from voxrill.runtime.errors import UsageError

AVOIDED = 0.75
"""Share of the cost of 4 bits that a recipe avoids if no size is given."""


def choose(measured: Sequence[MeasuredGroup], inventory: Inventory, size: int | None = None) -> list[MeasuredGroup]:
    """The groups that get 4 bits.

    Args:
        measured: the groups. Those where 4 bits cost most for each saved byte come first.
        inventory: the bundle that they are from.
        size: bytes that the bundle may have. None: avoid `AVOIDED` of the cost of 4 bits everywhere.

    Raises:
        UsageError: the bundle would be too large even with 4 bits everywhere.
    """
    if size is None:
        return _cheap(measured)
    chosen, left = [], inventory.size
    for group in reversed(measured):
        if left <= size:
            break
        chosen.append(group)
        left -= group.saved
    if left > size:
        raise UsageError(
            f"the bundle cannot have {size / 1e6:.1f} MB",
            f"Give a --size of at least {left / 1e6:.1f}, its size with all weights in 4 bits",
        )
    return chosen


def _cheap(measured: Sequence[MeasuredGroup]) -> list[MeasuredGroup]:
    """All groups but the most expensive ones, which together make up most of the cost."""
    wanted, avoided = AVOIDED * sum(group.added for group in measured), 0.0
    for index, group in enumerate(measured):
        if avoided >= wanted:
            return list(measured[index:])
        avoided += group.added
    return []


def as_toml(chosen: Sequence[MeasuredGroup], about: str, block: int) -> str:
    """The recipe: 8 bits for all, 4 for the chosen groups."""
    entries = [f'about = "{about}"\n', "[[weights]]\nbits = 8\n"]
    for one in sorted(chosen, key=lambda one: (one.group.graph, one.group.pattern)):
        entries.append(
            f"[[weights]]  # in 4 bits {one.cost4:.2g}, in 8 bits {one.cost8:.2g}\n"
            f'graph = "{one.group.graph}"\nname = "{one.group.pattern}"\n'
            f'bits = 4\nblock = {block}\nmethod = "{K_QUANT}"\n'
        )
    return "\n".join(entries)
