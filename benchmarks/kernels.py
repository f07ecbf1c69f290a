"""Our own products beside onnxruntime's, in one process and in turn.

    python -m benchmarks.kernels                    # all bits, rows and threads
    python -m benchmarks.kernels --bits 4 --rows 1 --json
    chrt -r 5 python -m benchmarks.kernels          # on a busy machine, as root

In: nothing; weights are random, a chain of products of the backbone's widths. Out: for each number of bits, rows and
threads the median wall time and processor time of both, and how fast ours reads its weights. onnxruntime has no
product of 3 bits: there its time is that of 4 bits.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from voxrill.devices.kernels import DOMAIN, OPERATOR, choose, memory, own_products, register
from voxrill.devices.pages import HugePages
from voxrill.devices.processor import processor
from voxrill.devices.providers import CPU, session_options
from voxrill.quantize.graph import CONTRIB

WIDTHS = (2048, 8192) * 6 + (2048,)
"""12 products of 16.8 million weights: 101 MB in 4 bits, more than the last cache holds."""
BLOCK = 128
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB, 1), helper.make_opsetid(DOMAIN, 1)]


@dataclass(frozen=True)
class Measured:
    """Medians of one number of bits, rows and threads, in milliseconds; theirs is onnxruntime's.

    ratio: of the wall times, theirs by ours; read_gbps: bytes of our weights by our wall time; huge_share: how much of
    our weights lies on huge pages.
    """

    bits: int
    rows: int
    threads: int
    own_ms: float
    own_processor_ms: float
    theirs_ms: float
    theirs_processor_ms: float
    ratio: float
    read_gbps: float
    huge_share: float


def chain(bits: int, domain: str) -> bytes:
    """A model of products in a row."""
    random, nodes, weights = np.random.default_rng(0), [], []
    for index, (columns, rows) in enumerate(pairwise(WIDTHS)):
        values = random.integers(0, 256, (rows, columns // BLOCK, BLOCK * bits // 8), np.uint8)
        scales = np.full(rows * (columns // BLOCK), 2.0 ** -(bits + 4), np.float32)
        names = [f"values{index}", f"scales{index}"]
        weights += [numpy_helper.from_array(values, names[0]), numpy_helper.from_array(scales, names[1])]
        sizes: dict[str, Any] = {"K": columns, "N": rows, "bits": bits, "block_size": BLOCK, "accuracy_level": 4}
        nodes.append(helper.make_node(OPERATOR, [f"x{index}", *names], [f"x{index + 1}"], domain=domain, **sizes))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
        for name, width in (("x0", WIDTHS[0]), (f"x{len(nodes)}", WIDTHS[-1]))
    )
    graph = helper.make_graph(nodes, "products", [x], [y], weights)
    return bytes(helper.make_model(graph, opset_imports=OPSETS, ir_version=9).SerializeToString())


def open_chain(bits: int, domain: str, threads: int) -> ort.InferenceSession:
    """A session of a chain, its weights on huge pages where the system gives them."""
    model = chain(bits, domain)
    pages = HugePages(expected=len(model))
    options = session_options(threads, repack=True)
    if domain == DOMAIN:
        register(options)
    session = ort.InferenceSession(model, sess_options=options, providers=[CPU])
    pages.begin()
    pages.wait()
    return session


def measure(bits: int, threads: int, rows: list[int], rounds: int) -> list[Measured]:
    """Both products in turn."""
    sessions = open_chain(bits, DOMAIN, threads), open_chain(4 if bits == 3 else bits, CONTRIB, threads)
    own = memory()
    share = own.huge_bytes / own.bytes
    size = sum(columns * wide for columns, wide in pairwise(WIDTHS)) * (bits + 16 / BLOCK) / 8
    found = []
    for count in rows:
        x = np.random.default_rng(1).standard_normal((count, WIDTHS[0])).astype(np.float32)
        times: list[list[tuple[float, float]]] = [[], []]
        for turn in range(rounds + 1):
            for session, taken in zip(sessions, times, strict=True):
                wall, busy = time.perf_counter(), time.process_time()
                session.run(None, {"x0": x})
                if turn:  # the first is for the caches
                    taken.append((time.perf_counter() - wall, time.process_time() - busy))
        ours, theirs = ([median(part) * 1e3 for part in zip(*taken, strict=True)] for taken in times)
        speed = size / ours[0] / 1e6
        figures = [round(value, 2) for value in (*ours, *theirs, theirs[0] / ours[0], speed, share)]
        found.append(Measured(bits, count, threads, *figures))
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2], choices=(2, 3, 4, 8))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 100], help="of activations")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--instruction-set", help="instead of the best one")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    if args.instruction_set:
        choose(args.instruction_set)
    found: list[Measured] = []
    for bits, threads in product(args.bits, args.threads):
        found += measure(bits, threads, args.rows, args.rounds)
    about = {
        "processor": processor(),
        "instruction_set": args.instruction_set or own_products().chosen,
    }
    if args.json:
        print(json.dumps(about | {"measured": [asdict(one) for one in found]}, indent=1))
        return
    print(*(f"{name.replace('_', ' ')}: {value}" for name, value in about.items()), sep="\n")
    print(
        "| bits | rows | threads | own ms (processor) | onnxruntime ms (processor) | ratio | GB/s | huge pages |\n|"
        + "---|" * 8
    )
    for one in found:
        print(
            f"| {one.bits} | {one.rows} | {one.threads} | {one.own_ms} ({one.own_processor_ms}) "
            f"| {one.theirs_ms} ({one.theirs_processor_ms}) | {one.ratio} | {one.read_gbps} | {one.huge_share:.0%} |"
        )


if __name__ == "__main__":
    main()
