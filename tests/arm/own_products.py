"""What our own products compute on a machine, with every instruction set that it has.

    python own_products.py OUT FOLDER

In: models and activations as `write_own_products` writes them on the host. Out, in the folder OUT: `sets.json`, the
instruction sets, and `SET.npz` for each: results by the name of the model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

from voxrill.devices.kernels import choose, own_products, register

SIZES = ((128, 48, 32), (300, 33, 64), (256, 20, 256))
"""Columns, rows and block: whole and broken groups and blocks."""
ROWS = (1, 2, 3, 13)


def write_own_products(folder: Path) -> None:
    """Models and activations, and what the host's plain C++ makes of them. Only where onnx is."""
    from tests.kernels.products import BITS, RandomProduct, activations

    for columns, rows, block in SIZES:
        for bits in BITS:
            for asymmetric in (True, False):
                product = RandomProduct(columns, rows, bits, block, asymmetric)
                name = folder / f"{columns}-{rows}-{block}-{bits}-{'a' if asymmetric else 's'}"
                folder.mkdir(exist_ok=True)
                name.with_suffix(".onnx").write_bytes(product.model())
                np.save(name.with_suffix(".npy"), activations(product, sum(ROWS)))


def results(folder: Path) -> dict[str, np.ndarray]:
    """Each model's results, in calls of `ROWS` rows."""
    found = {}
    for path in sorted(folder.glob("*.onnx")):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        register(options)
        session = ort.InferenceSession(path, options)
        parts = np.split(np.load(path.with_suffix(".npy")), np.cumsum(ROWS)[:-1])
        found[path.stem] = np.concatenate([session.run(None, {"x": part})[0] for part in parts])
    return found


def main() -> None:
    """Command line of this module."""
    out, folder = map(Path, sys.argv[1:])
    out.mkdir(parents=True)
    sets = own_products().sets
    for name in sets:
        choose(name)
        np.savez(out / f"{name}.npz", **results(folder))
    (out / "sets.json").write_text(json.dumps(sets), encoding="utf-8")


if __name__ == "__main__":
    main()
