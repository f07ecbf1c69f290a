"""What our own products and our attention compute on a machine, with every instruction set that it has.

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


KNOWN_AND_NEW = ((0, 1), (129, 1), (1100, 1), (250, 7))
"""Positions in the cache, and those that attend."""


def write_own_products(folder: Path) -> None:
    """Models and activations. Only where onnx is."""
    from tests.kernels.attention import HEADS, attention_model, inputs
    from tests.kernels.products import BITS, RandomProduct, activations

    folder.mkdir(exist_ok=True)
    for sizes in HEADS:
        for known, new in KNOWN_AND_NEW:
            name = folder / f"attention-{sizes}-{known}-{new}"
            name.with_suffix(".onnx").write_bytes(attention_model(sizes))
            np.savez(name.with_suffix(".npz"), **inputs(sizes, known, new))
    for columns, rows, block in SIZES:
        for bits in BITS:
            for asymmetric in (True, False):
                product = RandomProduct(columns, rows, bits, block, asymmetric)
                name = folder / f"{columns}-{rows}-{block}-{bits}-{'a' if asymmetric else 's'}"
                name.with_suffix(".onnx").write_bytes(product.model())
                np.save(name.with_suffix(".npy"), activations(product, sum(ROWS)))


def results(folder: Path) -> dict[str, np.ndarray]:
    """Each model's results: a product's in calls of `ROWS` rows, an attention's output and the caches that it wrote."""
    found = {}
    for path in sorted(folder.glob("*.onnx")):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        register(options)
        session = ort.InferenceSession(path, options)
        if path.with_suffix(".npz").exists():
            outputs = session.run(None, dict(np.load(path.with_suffix(".npz"))))
            found[path.stem] = np.concatenate([np.ravel(output).astype(np.float32) for output in outputs])
            continue
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
