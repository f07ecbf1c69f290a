"""An embedding table inside a bundle's file: memory-mapped, and gathered row by row.

Its numbers are float32, of 8 bits with a scale a row, or of fewer bits with a scale a block. In: a file and its
`Table` entry in the manifest. Out: float32 rows. Nothing is read until rows are gathered, and nothing is kept twice: a
table may be the very bytes that a graph multiplies with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.bit_stream import from_stream
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
        self.shape = table.shape
        self._blocks = _PackedRows(path, table) if table.blocks else None
        if self._blocks is not None:
            return
        stored = (width, rows) if table.transposed else (rows, width)
        self._values: NDArray[Any] = np.memmap(path, table.dtype, "r", table.offset, stored)
        self._transposed = table.transposed
        self._scales: Floats | None = None
        if table.scales is not None:
            self._scales = np.memmap(path, np.float32, "r", table.scales, (rows,))

    def rows(self, ids: NDArray[np.int64] | list[int]) -> Floats:
        """Float32 rows (*ids.shape, width) of integer `ids`."""
        if self._blocks is not None:
            return self._blocks.rows(np.asarray(ids))
        found = np.moveaxis(self._values[:, ids], 0, -1) if self._transposed else self._values[ids]
        rows = np.asarray(found, np.float32)
        return rows if self._scales is None else rows * self._scales[ids][..., None]


class _PackedRows:
    """Rows of 2- to 4-bit numbers in blocks."""

    def __init__(self, path: Path, table: Table) -> None:
        stored = table.blocks
        assert stored and table.scales is not None, "the manifest was checked"
        (rows, self._width), self._bits = table.shape, stored.bits
        blocks, block, zeros = stored.row(self._width)
        self._values = np.memmap(path, np.uint8, "r", table.offset, (rows, blocks, block))
        self._factors: NDArray[Any] = np.memmap(path, stored.factors, "r", table.scales, (rows, blocks))
        self._zeros = np.memmap(path, np.uint8, "r", stored.zero_points, (rows, zeros))

    def rows(self, ids: NDArray[np.int64]) -> Floats:
        factors = self._factors[ids].astype(np.float32)
        zeros = self._zeros[ids] if self._bits == 3 else from_stream(self._zeros[ids], self._bits)
        zeros = zeros[..., : factors.shape[-1], None].astype(np.float32)
        rows = (from_stream(self._values[ids], self._bits) - zeros) * factors[..., None]
        return rows.reshape(*ids.shape, -1)[..., : self._width]
