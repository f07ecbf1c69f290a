"""Rounding to 2, 3 or 4 bits that knows what the weight is multiplied with: the rows after a row correct its error.

In: a weight (rows, columns), and the second moments of what it is multiplied with on real turns. Out: the
`PackedMatrix`. Source: Frantar et al. 2022 (GPTQ). The scale of a block is searched when the block begins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.quantize.k_quant import searched
from voxrill.quantize.weights import PackedMatrix, largest_level, pack

Floats = NDArray[np.float32]

DAMPING = 0.01
"""Share of the diagonal's mean that is added to it, so that the matrix can be inverted if some inputs never vary."""


def to_gptq(weight: Floats, bits: int, block: int, moments: Floats) -> PackedMatrix:
    """Round to so many bits. `block` rows of a column share a scale; asymmetric.

    Args:
        weight: (rows, columns).
        bits: 2, 3 or 4.
        block: rows of a column that share a scale.
        moments: (rows, rows), the sum of x x^T over the inputs x of its product.
    """
    rows, columns = weight.shape
    blocks = -(-rows // block)
    left = weight.astype(np.float32).copy()
    feedback = _feedback(moments)
    values = np.zeros((blocks * block, columns), np.uint8)
    scales, zeros = np.zeros((blocks, columns), np.float32), np.zeros((blocks, columns), np.uint8)
    for index in range(blocks):
        start, stop = index * block, min((index + 1) * block, rows)
        _, (scales[index],), (zeros[index],) = (found.T for found in searched(left[start:stop].T[:, None], bits))
        errors = np.zeros((stop - start, columns), np.float32)
        for row in range(start, stop):
            steps = np.clip(np.rint(left[row] / scales[index]) + zeros[index], 0, largest_level(bits))
            values[row] = steps
            errors[row - start] = (left[row] - (steps - zeros[index]) * scales[index]) / feedback[row, row]
            # Within the block the correction is made row by row, so that the next row sees it ...
            left[row + 1 : stop] -= feedback[row, row + 1 : stop, None] * errors[row - start]
        # ... and for all rows after the block in one product, which is much faster.
        left[stop:] -= feedback[start:stop, stop:].T @ errors
        values[stop : (index + 1) * block] = zeros[index]  # padding that stands for 0
    return pack(values.T.reshape(columns, blocks, block), scales.T, zeros.T, bits)


def _feedback(moments: Floats) -> Floats:
    """Upper Cholesky factor (rows, rows) of the inverse of the inputs' second moments."""
    damped = moments.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * np.trace(damped) / len(damped) + 1e-9
    inverse = np.linalg.inv(damped)
    upper: Floats = np.linalg.cholesky(inverse).T.astype(np.float32)
    return upper
