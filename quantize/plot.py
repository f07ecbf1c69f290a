"""Pictures: what quantising changed, by graph, codebook and answer; and what fewer bits cost, by size.

In: a `Comparison`, or choices of bits. Out: a PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxrill.quantize.choose import BitsChosen
from voxrill.quantize.compare import Comparison
from voxrill.runtime.picture import figure_class, save_picture

PERCENT = 100


def draw(found: Comparison, path: Path) -> None:
    """Draw three panels.

    Raises:
        UsageError: the path is not that of a picture.
        OSError: the file cannot be written.
    """
    figure = figure_class("quantize")(figsize=(12, 3.6), layout="constrained")
    graphs, books, ends = figure.subplots(1, 3)
    names = list(found.graphs)
    graphs.barh(names, [max(1 - found.graphs[name]["cosine"], 1e-9) for name in names], color="#4477aa")
    graphs.set(title="1 - cosine, by graph", xscale="log")
    graphs.invert_yaxis()
    books.bar(
        range(1, len(found.codes_flipped) + 1), [PERCENT * share for share in found.codes_flipped], color="#aa7744"
    )
    books.set(title="codes flipped, step by step", xlabel="codebook", ylabel="%")
    shares = {name: value for name, value in found.end_to_end.items() if not name.endswith("distance")}
    ends.barh([name.replace("_", " ") for name in shares], [PERCENT * v for v in shares.values()], color="#448855")
    ends.set(title=f"end to end, {found.sounds} sounds", xlabel="%")
    ends.invert_yaxis()
    save_picture(figure, path)


def draw_choices(ways: Sequence[BitsChosen], chosen: BitsChosen, path: Path) -> None:
    """Draw the measured cost against the size of the bundle, for every choice; the chosen one is marked.

    Raises:
        UsageError: the path is not that of a picture.
        OSError: the file cannot be written.
    """
    figure = figure_class("quantize")(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([way.size / 1e6 for way in ways], [way.cost for way in ways], ".-", color="#4477aa", label="choices")
    axes.plot([chosen.size / 1e6], [chosen.cost], "o", color="#aa4455", label="chosen")
    axes.set(xlabel="size of the bundle, MB", ylabel="cost: divergence from float32", yscale="log")
    axes.legend()
    save_picture(figure, path)
