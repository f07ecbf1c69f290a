"""A picture of a comparison: errors of each graph, flipped codes of each codebook, and the share of equal answers.

In: a `Comparison`. Out: a PNG.
"""

from __future__ import annotations

from pathlib import Path

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
