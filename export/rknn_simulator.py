"""One graph on Rockchip's simulator: a program for the interpreter that has rknn-toolkit2, which cannot be Voxrill's.

    PYTHON rknn_simulator.py GRAPH [DATASET]

GRAPH is an ONNX file of opset 19 or older. With DATASET, a text file with a line of .npy files for each call, it is
built in 8 bits, else in float16. When it is built a line is written to stdout. Then each line of stdin names a .npz
file of inputs, in the graph's order, and one to write the outputs to, in theirs; each is answered by a line. Whatever
the toolkit says goes to stderr.
"""

from __future__ import annotations

import ctypes
import os
import sys

import numpy as np
from rknn.api import RKNN

PLATFORM = "rk3588"


def build(graph: str, dataset: str | None) -> RKNN:
    """The graph, ready to be run. verbose: only then the toolkit says which processor a node is given to."""
    toolkit = RKNN(verbose=True)
    toolkit.config(target_platform=PLATFORM)
    for step in (
        lambda: toolkit.load_onnx(model=graph),
        lambda: toolkit.build(do_quantization=dataset is not None, dataset=dataset),
        toolkit.init_runtime,
    ):
        if step() != 0:
            sys.exit("the toolkit gave up")
    return toolkit


def main() -> None:
    """Build, then answer line by line."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        toolkit = build(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
        ctypes.CDLL(None).fflush(None)  # the toolkit's own library keeps what it says
        answers.write("built\n")
        for line in sys.stdin:
            source, target = line.split()
            with np.load(source) as feeds:
                inputs = [feeds[name] for name in feeds.files]
            outputs = toolkit.inference(inputs=inputs, data_format=["nchw"] * len(inputs))
            np.savez(target, *outputs)
            answers.write("done\n")


if __name__ == "__main__":
    main()
