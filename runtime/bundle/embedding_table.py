"""An embedding table inside a bundle's file: memory-mapped, gathered row by row, float32 or 8 bits with a scale a row.

In: a file and its `Table` entry in the manifest. Out: float32 rows. Nothing is read until rows are gathered, and
nothing is kept twice: a table may be the very bytes that a graph multiplies with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.manifest import Table

Floats = NDArray[np.float32]


class EmbeddingTable:
    """Rows of one table.

    Args:
        path: the file it lies in.
        table: where in the file, and how its numbers are stored.
    """

    def __init__(self, path: Path, table: Table) -> None:
        rows, width = table.shape
        stored = (width, rows) if table.transposed else (rows, width)
        self.shape = table.shape
        self._values: NDArray[Any] = np.memmap(path, table.dtype, "r", table.offset, stored)
        self._transposed = table.transposed
        self._scales: Floats | None = None
        if table.scales is not None:
            self._scales = np.memmap(path, np.float32, "r", table.scales, (rows,))

    def rows(self, ids: NDArray[np.int64] | list[int]) -> Floats:
        """Float32 rows (*ids.shape, width) of integer `ids`."""
        found = np.moveaxis(self._values[:, ids], 0, -1) if self._transposed else self._values[ids]
        rows = np.asarray(found, np.float32)
        return rows if self._scales is None else rows * self._scales[ids][..., None]
