"""A figure as a picture file, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.errors import UsageError, needs_extra
from voxrill.runtime.user_folders import user_cache
from voxrill.runtime.version import MAKER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
"""What can be written, by the end of the file's name."""


def figure_class(extra: str) -> type[Figure]:
    """Matplotlib's figures. What matplotlib keeps for itself, a list of fonts, goes into our own cache.

    Args:
        extra: what brings matplotlib, to be named where it is missing.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    cache = user_cache() / "matplotlib"
    os.environ.setdefault("MPLCONFIGDIR", str(cache))  # read when matplotlib is imported
    with needs_extra(extra):
        from matplotlib.figure import Figure
    return Figure


def check_picture(path: Path) -> None:
    """Refuse a place where no picture can be written, before the work that it is to show.

    Raises:
        UsageError: its name ends in something else, or its folder does not exist.
    """
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"{path} is not the name of a picture", f"Give a name that ends in {', '.join(PICTURES)}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", f"Make it first, or give another place for {path.name}")


def save_picture(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure.

    Raises:
        UsageError: see `check_picture`.
        OSError: the file cannot be written.
    """
    check_picture(path)
    form = path.suffix[1:].lower()
    with atomic_write(path) as part:
        figure.savefig(part, dpi=dpi, format=form, metadata={"Software" if form == "png" else "Creator": MAKER})
