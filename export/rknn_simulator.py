"""One graph on Rockchip's simulator: a program for the interpreter that has rknn-toolkit2. It does not import Voxrill.

    PYTHON rknn_simulator.py GRAPH [DATASET]

GRAPH is an ONNX file of opset 19 or older. With DATASET, a text file with a line of .npy files for each call, it is
built in 8 bits, else in float16. Then a line is written to stdout. Each line of stdin names a .npz file of inputs, in
the graph's order, and a .npz file for the outputs; a line on stdout answers it. The toolkit's messages go to stderr.
"""

from __future__ import annotations

import ctypes
import os
import sys

import numpy as np
from rknn.api import RKNN

PLATFORM = "rk3588"


def build(graph: str, dataset: str | None) -> RKNN:
    """The graph, ready to run. verbose: the toolkit also says which processor runs each node."""
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
        ctypes.CDLL(None).fflush(None)  # the toolkit's library writes to the old stdout
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
