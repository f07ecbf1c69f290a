"""Qualcomm's chips with an NPU, the HTP: what the compiler must be told about each."""

from __future__ import annotations

from dataclasses import dataclass

from voxrill.runtime.errors import ChipError


@dataclass(frozen=True)
class Soc:
    """A chip: its number in Qualcomm's SDK, and the version of its HTP."""

    name: str
    model: int
    arch: int
    sold_as: str


SOCS = {
    soc.name: soc
    for soc in (
        Soc("SM8350", 30, 68, "Snapdragon 888"),
        Soc("SC8280XP", 37, 68, "Snapdragon 8cx Gen 3"),
        Soc("SM8450", 36, 69, "Snapdragon 8 Gen 1"),
        Soc("SM8475", 42, 69, "Snapdragon 8+ Gen 1"),
        Soc("SM8550", 43, 73, "Snapdragon 8 Gen 2"),
        Soc("SC8380XP", 60, 73, "Snapdragon X Elite"),
        Soc("SM8650", 57, 75, "Snapdragon 8 Gen 3"),
        Soc("SM8750", 69, 79, "Snapdragon 8 Elite"),
        Soc("SM8850", 87, 81, "Snapdragon 8 Elite Gen 5"),
    )
}
"""The numbers are from ExecuTorch's QcomChipset; those of the SC chips are from llama.cpp's QNN backend."""

INTEGERS_ONLY = 68
"""HTPs up to this version compute with integers only: they need the recipe npu-a16w8."""

CHECKED = ("SM8550", "SM8650", "SM8750")
"""One chip each with v73, v75 and v79. A graph is ready when it compiles for all three."""


def find_soc(name: str) -> Soc:
    """A chip by its name, in capitals or not.

    Raises:
        ChipError: it is not known; the message lists the known ones.
    """
    if name.upper() not in SOCS:
        known = ", ".join(f"{soc.name} ({soc.sold_as})" for soc in SOCS.values())
        raise ChipError(f"there is no chip {name!r}", f"Give one of: {known}")
    return SOCS[name.upper()]
