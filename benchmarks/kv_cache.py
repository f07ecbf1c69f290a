"""Time a step of the decoder with a float32 and with an int8 KV cache, after more and more positions, in one run.

    python -m benchmarks.kv_cache BUNDLE [--threads N] [--prefill] [--json FILE]

In: a quantised bundle with a float32 cache. Out: for each length the median wall and processor time of a step (with
--prefill also of 512 further positions), and the bytes of the state. The int8 decoder is made of the bundle's own, with
factors of no meaning, because times do not depend on them. The two take turns, step by step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.protocol import timed
from voxrill.devices.memory import gigabytes
from voxrill.devices.processor import processor
from voxrill.quantize.bundle import with_cache
from voxrill.quantize.kv_cache import hold_cache_in_int8
from voxrill.runtime.bundle.bundle import Bundle, link_file, open_bundle
from voxrill.runtime.bundle.contract import DECODER, GraphSpec, decoder, state_bytes
from voxrill.runtime.engine.backbone import PREFILL_CHUNK
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.state import InPlaceState
from voxrill.runtime.engine.stats import StageTimes

LENGTHS = (200, 1000, 4000, 16_000, 32_000)
STEPS, PREFILLS = 15, 3
FACTOR = 0.05


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefill", action="store_true", help="time 512 further positions, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    if bundle.manifest.model.backbone.kv_cache != "float32":
        parser.error("give a bundle with a float32 cache: quantized with a recipe without [kv_cache]")
    rows = []
    print(f"{processor()}, {given.threads} threads; medians in ms: wall (processor)")
    with tempfile.TemporaryDirectory(dir=given.bundle.parent) as folder:
        graphs = make_graphs(bundle, Path(folder), given.threads)
        for positions in LENGTHS:
            rows.append(measure(graphs, bundle.manifest.model.backbone.hidden_size, positions, given.prefill))
            print(f"{positions:>6}  " + "  ".join(_said(kind, rows[-1][kind]) for kind in graphs), flush=True)
    if given.json:
        about = {"processor": processor(), "threads": given.threads, "bundle": bundle.manifest.name, "rows": rows}
        given.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _said(kind: str, found: dict[str, float]) -> str:
    parts = [
        f"{name} {found[f'{name}_ms']:.1f} ({found[f'{name}_cpu_ms']:.1f})"
        for name in ("step", "prefill")
        if f"{name}_ms" in found
    ]
    return f"{kind}: {', '.join(parts)}, {gigabytes(found['state_bytes'])};"


def make_graphs(bundle: Bundle, folder: Path, threads: int) -> dict[str, Graph]:
    """The bundle's decoder, and the same with an int8 cache, made in `folder`."""
    source = bundle.path(bundle.manifest.graphs[DECODER].file)
    backbone = bundle.manifest.model.backbone
    for file in source.parent.glob(f"{source.name}*"):
        (link_file if file.suffix == ".data" else _copy)(file, folder / file.name)
    shape = (backbone.kv_heads, 1, backbone.head_dim)
    spec = bundle.manifest.specs()[DECODER]
    caches = [tensor.name for tensor in spec.state if not tensor.name.startswith("past_conv.")]
    hold_cache_in_int8(folder / source.name, {name: np.full(shape, FACTOR, np.float32) for name in caches})
    small = decoder(with_cache(bundle.manifest.model, "int8").backbone)
    paths = {"float32": (source, spec), "int8": (folder / source.name, small)}
    return {kind: _opened(path, one, threads) for kind, (path, one) in paths.items()}


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _opened(path: Path, spec: GraphSpec, threads: int) -> Graph:
    return Graph(path, spec, times=StageTimes(), threads=threads, repack=True)


def measure(graphs: dict[str, Graph], hidden: int, positions: int, prefill: bool) -> dict[str, Any]:
    """Times and bytes by kind of cache, after so many positions."""
    states = {kind: _filled(graph.spec, positions) for kind, graph in graphs.items()}
    row: dict[str, Any] = {"positions": positions}
    for kind, graph in graphs.items():
        row[kind] = {"state_bytes": state_bytes(graph.spec, positions)}
    for name, count, repeats in (("step", 1, STEPS), ("prefill", PREFILL_CHUNK, PREFILLS if prefill else 0)):
        rows = np.random.default_rng(0).standard_normal((count, hidden)).astype(np.float32)
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in graphs}
        for _ in range(repeats):
            for kind, graph in graphs.items():
                states[kind].length = positions
                times[kind].append(timed(partial(states[kind].step, graph, rows)))
        for kind in graphs if repeats else ():
            wall, cpu = zip(*times[kind], strict=True)
            row[kind] |= {f"{name}_ms": 1e3 * median(wall), f"{name}_cpu_ms": 1e3 * median(cpu)}
    return row


def _filled(spec: GraphSpec, positions: int) -> InPlaceState:
    """A state of so many positions. Its pages are written: unwritten ones would all be one page of zeros."""
    room = positions + PREFILL_CHUNK
    state = InPlaceState(spec, room)
    state.reserve(room)
    state.length = room
    state.restore(room, {name: np.ones_like(tensor) for name, tensor in state.content().items()})
    return state


if __name__ == "__main__":
    main()
