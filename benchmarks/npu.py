"""True-size layers on Qualcomm's compiler and simulator: compile time, size of the context, agreement with the CPU.

One layer of each kind of the 1.5 B model (a gated short convolution or attention, and its feed-forward; 2048 wide),
random weights, one step on 1024 positions, in each form for NPUs. Random weights say nothing about quality, and the
seconds of a simulator say nothing about those of a phone.

    python -m benchmarks.npu --out benchmarks/results-npu.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxrill.devices.qnn import sdk_version
from voxrill.devices.socs import SOCS, Soc
from voxrill.export.decoder import DecoderModule
from voxrill.export.graphs import GraphPlan
from voxrill.export.layers import linears_to_matmuls
from voxrill.export.lfm import CONV, LfmConfig
from voxrill.export.npu_check import SessionGraph, on_chip, on_cpu, run_backbone
from voxrill.export.write import write_graph
from voxrill.quantize.a16w8 import A16W8, to_a16w8
from voxrill.quantize.graph import quantize_graph
from voxrill.quantize.recipe import read_recipe
from voxrill.runtime.atomic_write import write_text
from voxrill.runtime.bundle.contract import DECODER, BackboneSpec, GraphSpec, StaticShapes, decoder
from voxrill.runtime.bundle.manifest import FLOAT32

CONTEXT = 1024
KINDS = (CONV, "full_attention")
FORMS = (FLOAT32, "int4", A16W8)
SOC = SOCS["SM8650"]
STEPS = 2
"""Steps of the state loop. The simulator takes many seconds for one step of such a layer."""
CALIBRATION = 32
"""Steps of normal noise that a16w8 is calibrated with. Noise needs few: its range is always the same."""


def config(kind: str) -> LfmConfig:
    """One layer of the published backbone."""
    return LfmConfig(
        hidden=2048,
        layer_types=(kind,),
        heads=32,
        kv_heads=8,
        inner=8192,
        conv_cache=3,
        conv_bias=False,
        eps=1e-5,
        theta=1e6,
        vocab=65536,
        max_positions=128_000,
    )


def contract_of(layer: LfmConfig) -> GraphSpec:
    """A step's inputs and outputs."""
    backbone = BackboneSpec(
        layer.hidden, layer.vocab, layer.layer_types, layer.kv_heads, layer.head_dim, layer.conv_cache, CONTEXT
    )
    return decoder(backbone, StaticShapes(context=CONTEXT))


def random_decoder(layer: LfmConfig) -> torch.nn.Module:
    """Random weights whose products keep the size of their input."""
    torch.manual_seed(0)
    module = DecoderModule(layer, fixed=True)
    for weight in module.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return linears_to_matmuls(module.requires_grad_(False))


def make(form: str, source: Path, target: Path, spec: GraphSpec, rows: np.ndarray) -> None:
    """A form of the float32 graph."""
    if form == "int4":
        quantize_graph(DECODER, source, target, read_recipe("npu-int4"))
        return
    feeds: list[dict[str, Any]] = []
    on_cpu(source, lambda session: run_backbone(RecordedGraph(spec, session, feeds), rows, CONTEXT))
    to_a16w8(source, target, feeds)


class RecordedGraph(SessionGraph):
    """Keeps the feeds of a graph."""

    def __init__(self, spec: GraphSpec, session: Any, feeds: list[dict[str, Any]]) -> None:
        super().__init__(spec, session)
        self._feeds = feeds

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run once."""
        self._feeds.append({name: array.copy() for name, array in feeds.items()})
        return super().run(feeds)


def measure(kind: str, soc: Soc, folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every form of one layer."""
    layer, found = config(kind), []
    spec, source = contract_of(layer), folder / f"{DECODER}.onnx"
    write_graph(GraphPlan(spec, lambda: random_decoder(layer), {}, ({"example": 0},)), folder)
    rows = np.random.default_rng(0).standard_normal((CALIBRATION, layer.hidden)).astype(np.float32)
    for form in FORMS:
        path = source
        if form != FLOAT32:
            path = folder / form / source.name
            path.parent.mkdir()
            make(form, source, path, spec, rows)

        def loop(session: Any, given: np.ndarray = rows[:STEPS]) -> list[np.ndarray]:
            return run_backbone(SessionGraph(spec, session), given, CONTEXT)

        start = time.perf_counter()
        chip = on_chip(path, soc, loop, on_cpu(path, loop))
        size = sum(file.stat().st_size for file in path.parent.glob(f"{DECODER}.onnx*"))
        found.append({"layer": kind, "form": form, "bytes": size, **asdict(chip)})
        say(f"{kind} {form}: {json.dumps(found[-1])}, {time.perf_counter() - start:.0f} s in all")
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| layer | form | weights, MB | context, MB | compiled, s | from the CPU | read back |", "|---" * 7 + "|"]
    for one in results:
        sizes = f"{one['bytes'] / 1e6:.1f} | {one['context'] / 1e6:.1f}"
        same = "same bits" if one["same_bits"] else "other bits"
        difference = f"{100 * one['difference']:.2f} %"
        lines.append(f"| {one['layer']} | {one['form']} | {sizes} | {one['seconds']:.1f} | {difference} | {same} |")
    return "\n".join(lines)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            results += measure(kind, SOC, Path(folder), partial(print, flush=True))
    print(table(results))
    if args.out:
        content = {"sdk": sdk_version(), "results": results}
        write_text(args.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
