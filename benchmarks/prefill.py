"""What prefill costs with our own products, against onnxruntime's and against a second decoder in 8 bits.

    python -m benchmarks.prefill INT4-BUNDLE INT8-BUNDLE

In: two bundles of one model. Out: a line for the decoder of the first on our products, on onnxruntime's, and for that
of the second: medians of 100 positions and of a step, in ms. The three take turns in one process. On a machine
that does other work, processor time says more than the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.protocol import timed
from voxrill.devices.kernels import OFF, SWITCH, own_products
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.contract import DECODER
from voxrill.runtime.engine.backbone import Backbone
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.state import BackboneState
from voxrill.runtime.engine.stats import StageTimes

POSITIONS, ROUNDS, STEPS = 100, 9, 3


def decoder(folder: Path, threads: int, own: bool) -> Backbone:
    """A bundle's decoder, on our products or on onnxruntime's."""
    os.environ[SWITCH] = "" if own else OFF
    own_products.cache_clear()
    manifest = (bundle := open_bundle(folder)).manifest
    path, spec = bundle.path(manifest.graphs[DECODER].file), manifest.specs()[DECODER]
    graph = Graph(path, spec, times=StageTimes(), threads=threads, repack=True)
    return Backbone(graph, graph, (), None, manifest.model.backbone.max_positions)


def forwarded(backbone: Backbone, rows: NDArray[np.float32], state: BackboneState) -> tuple[float, float]:
    """Milliseconds by the clock, and of processor time."""
    wall, cpu = timed(lambda: backbone.forward(rows, state))
    return 1e3 * wall, 1e3 * cpu


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("int4", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    decoders = {
        "int4, our products": decoder(asked.int4, asked.threads, own=True),
        "int4, onnxruntime's": decoder(asked.int4, asked.threads, own=False),
        "int8, onnxruntime's": decoder(asked.int8, asked.threads, own=False),
    }
    width = open_bundle(asked.int4).manifest.model.backbone.hidden_size
    rows = (0.02 * np.random.default_rng(0).standard_normal((POSITIONS, width))).astype(np.float32)
    found = defaultdict(list)
    for _ in range(ROUNDS):
        for name, backbone in decoders.items():
            state = backbone.new_state()
            found[name, "prefill"].append(forwarded(backbone, rows, state))
            found[name, "step"] += [forwarded(backbone, rows[:1], state) for _ in range(STEPS)]
    for (name, what), times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:20} {what:8} {wall:7.1f} ms, {cpu:7.1f} ms of processor time")


if __name__ == "__main__":
    main()
