"""A whole bundle with fewer bits: every graph, the embedding tables and the manifest, or nothing at all.

In: a float32 bundle and a recipe. Out: a bundle that the runtime loads like any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from voxrill.export.shared_weights import share_weights
from voxrill.quantize.a16w8 import A16W8, record_feeds, to_a16w8
from voxrill.quantize.calibration import Calibration
from voxrill.quantize.graph import (
    Moments,
    QuantizeReport,
    Weight,
    external_place,
    large_weights,
    quantize_graph,
    small_weights,
)
from voxrill.quantize.kv_cache import hold_cache_in_int8, measure_scales
from voxrill.quantize.recipe import GPTQ, Recipe, read_recipe
from voxrill.quantize.turns import record
from voxrill.quantize.weights import to_int8
from voxrill.runtime.bundle.bundle import Bundle, link_file, open_bundle, write_manifest
from voxrill.runtime.bundle.contract import DECODER, DECODER_PREFILL, TEXT_HEAD, ModelSpec, is_prefill
from voxrill.runtime.bundle.manifest import FLOAT32, QUANTIZE_REPORT_FILE, Blocks, GraphFile, Table
from voxrill.runtime.bundle.replacing import check_replaceable, replacing_bundle
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.progress import Progress, no_progress

AUDIO_EMBEDDINGS = "audio_embeddings"
"""The name of the table of spoken frames in recipes."""
AUDIO_TABLE_FILE = "audio_embeddings.i8"


def quantize_bundle(
    bundle: Bundle,
    target: Path,
    recipe: Recipe,
    progress: Progress = no_progress,
    fast_prefill: bool = False,
    sounds: Sequence[NDArray[np.float32]] = (),
    force: bool = False,
) -> Bundle:
    """Quantise `bundle` into the bundle folder `target`.

    Args:
        bundle: the float32 bundle.
        target: the folder to write.
        recipe: how many bits each weight gets.
        progress: told what is being done.
        fast_prefill: add a second decoder for prefill, always in 8 bits. With many positions its products take half
            the time of 4-bit ones. It costs a second copy of the decoder's weights.
        sounds: questions (samples,) at 16 kHz, a few dozen. They show gptq and a16w8 what weights are multiplied with.
        force: replace an older bundle.

    Raises:
        UsageError: the bundle is quantised already or of another flavour, or `target` may not be replaced.
        DataError: the recipe does not fit the bundle.
        BundleError: a graph cannot be read, the disk is full, or Ctrl-C; `target` is as it was.
    """
    manifest = bundle.manifest
    for name, graph in manifest.graphs.items():
        if graph.precision != FLOAT32:
            raise UsageError(f"{bundle.directory} holds {name} in {graph.precision}", "Start from the float32 bundle")
    if target.exists() and target.resolve() == bundle.directory.resolve():
        raise UsageError(f"{target} is the bundle that is to be quantised", "Give -o another folder")
    check_replaceable(target, force)
    if fast_prefill and DECODER_PREFILL in manifest.graphs:
        raise UsageError(f"{bundle.directory} has a prefill graph of its own", "Leave --fast-prefill out")
    weights = {name: large_weights(bundle.path(graph.file)) for name, graph in manifest.graphs.items()}
    known = {
        name: [*(weight.name for weight in weights[name]), *small_weights(bundle.path(graph.file))]
        for name, graph in manifest.graphs.items()
    }
    recipe.check_names({**known, AUDIO_EMBEDDINGS: [AUDIO_EMBEDDINGS]})
    total = len(manifest.graphs) + 1
    progress("calibration", 0, total)
    moments = _calibrate(bundle, recipe, weights, sounds)
    feeds = _recorded_feeds(bundle, recipe, sounds)
    scales = measure_scales(Engine(bundle), sounds) if recipe.kv_cache.bits == 8 and manifest.static is None else {}
    replaced = {manifest.audio_embeddings.file}
    reports: dict[str, QuantizeReport] = {}
    graphs: dict[str, GraphFile] = {}
    with replacing_bundle(target, force) as partial:
        for done, (name, graph) in enumerate(manifest.graphs.items()):
            progress(name, done, total)
            external = name == TEXT_HEAD
            source, made = bundle.path(graph.file), partial / graph.file
            if name in feeds:
                to_a16w8(source, made, feeds[name])
                graphs[name] = GraphFile(graph.file, A16W8)
            else:
                reports[name] = quantize_graph(name, source, made, recipe, external, moments=moments.get(name))
                graphs[name] = reports[name].entry(graph.file)
            replaced |= {graph.file, f"{graph.file}.data"}
        if scales:
            hold_cache_in_int8(partial / graphs[DECODER].file, scales)
        prefills = [partial / graph.file for name, graph in graphs.items() if is_prefill(name)]
        share_weights(partial / graphs[DECODER].file, prefills)
        if fast_prefill:
            progress(DECODER_PREFILL, total - 1, total)
            graphs[DECODER_PREFILL], reports[DECODER_PREFILL] = _prefill(bundle, partial)
            if scales:
                hold_cache_in_int8(partial / graphs[DECODER_PREFILL].file, scales)
        progress("tables and manifest", total - 1, total)
        tables = {
            "text_embeddings": _text_table(bundle, partial, reports[TEXT_HEAD]),
            "audio_embeddings": _audio_table(bundle, partial, recipe),
        }
        for file in set(manifest.files) - replaced:
            link_file(bundle.path(file), partial / file)
        _write_report(partial, recipe, reports)
        tools = {**manifest.tools, "voxrill": version("voxrill"), "onnx": version("onnx")}
        model = with_cache(manifest.model, "int8") if scales else manifest.model
        write_manifest(partial, msgspec.structs.replace(manifest, model=model, graphs=graphs, tools=tools, **tables))
        progress("done", total, total)
    return open_bundle(target)


def _calibrate(
    bundle: Bundle, recipe: Recipe, weights: dict[str, list[Weight]], sounds: Sequence[NDArray[np.float32]]
) -> dict[str, Moments]:
    """What gptq needs, by graph; empty if the recipe does not use gptq."""
    asked = {
        graph: [weight for weight in of_graph if recipe.rule(graph, weight.name).method == GPTQ]
        for graph, of_graph in weights.items()
    }
    asked = {graph: of_graph for graph, of_graph in asked.items() if of_graph}
    if not asked:
        return {}
    model = Engine(bundle)
    tasks = bundle.manifest.tasks
    turns = [record(model, sound, task) for sound in sounds for task in (tasks.chat, tasks.transcribe)]
    return {graph: Calibration(model, graph, of_graph, turns).moments for graph, of_graph in asked.items()}


def _recorded_feeds(
    bundle: Bundle, recipe: Recipe, sounds: Sequence[NDArray[np.float32]]
) -> dict[str, list[dict[str, NDArray[Any]]]]:
    """The feeds of each graph that becomes a16w8; empty if the recipe names none."""
    if not recipe.static:
        return {}
    if bundle.manifest.static is None:
        raise UsageError(
            f"the recipe is for an NPU, and {bundle.directory} is of the cpu flavour",
            "Start from: voxrill export CHECKPOINT --flavour npu",
        )
    recorded = record_feeds(Engine(bundle), sounds)
    return {graph: feeds for graph, feeds in recorded.items() if recipe.is_static(graph)}


def with_cache(model: ModelSpec, dtype: Literal["int8"]) -> ModelSpec:
    """The model with another type of KV cache."""
    return msgspec.structs.replace(model, backbone=msgspec.structs.replace(model.backbone, kv_cache=dtype))


def _prefill(bundle: Bundle, partial: Path) -> tuple[GraphFile, QuantizeReport]:
    """A second decoder, in 8 bits."""
    file = f"{DECODER_PREFILL}.onnx"
    source = bundle.path(bundle.manifest.graphs[DECODER].file)
    report = quantize_graph(DECODER_PREFILL, source, partial / file, read_recipe("int8"))
    return report.entry(file), report


def _text_table(bundle: Bundle, partial: Path, report: QuantizeReport) -> Table:
    """Where the text head's weight lies in its data file: its columns are the text embeddings."""
    old = bundle.manifest.text_embeddings
    name = next(iter(report.bits))
    proto = onnx.load(str(partial / bundle.manifest.graphs[TEXT_HEAD].file), load_external_data=False)
    places = {tensor.name: external_place(tensor) for tensor in proto.graph.initializer}
    bits = report.bits[name]
    if bits == 32:
        return Table(*places[name], old.shape)
    if bits != 8:
        return _packed_table(proto, places, name, bits, old.shape)
    _, scales = places[f"{name}_scales"]
    return Table(*places[f"{name}_int8"], old.shape, dtype="int8", scales=scales, transposed=True)


def _packed_table(
    proto: onnx.ModelProto, places: dict[str, tuple[str, int]], name: str, bits: int, shape: tuple[int, int]
) -> Table:
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    size = tensors[f"{name}_int{bits}"].dims[-1] * 8 // bits
    (_, scales), (_, zeros) = places[f"{name}_scales"], places[f"{name}_zero_points"]
    blocks = Blocks(bits, size, "float32" if bits == 4 else "float16", zeros)  # type: ignore[arg-type]
    return Table(*places[f"{name}_int{bits}"], shape, dtype="uint8", scales=scales, blocks=blocks)


def _audio_table(bundle: Bundle, partial: Path, recipe: Recipe) -> Table:
    """The embeddings of spoken frames: all rows, then a scale for each row."""
    old = bundle.manifest.audio_embeddings
    bits = recipe.rule(AUDIO_EMBEDDINGS, AUDIO_EMBEDDINGS).bits
    if bits == 32:
        link_file(bundle.path(old.file), partial / old.file)
        return old
    if bits != 8:
        raise DataError(f"the recipe gives {AUDIO_EMBEDDINGS} {bits} bits", "Give it 8 or 32")
    rows = np.arange(old.shape[0])
    matrix = to_int8(bundle.table(old).rows(rows), axis=0)
    with (partial / AUDIO_TABLE_FILE).open("wb") as stream:
        matrix.values.tofile(stream)
        matrix.scales.tofile(stream)
    return Table(AUDIO_TABLE_FILE, 0, old.shape, dtype="int8", scales=matrix.values.nbytes)


def _write_report(partial: Path, recipe: Recipe, reports: dict[str, QuantizeReport]) -> None:
    content: dict[str, Any] = {
        "recipe": msgspec.to_builtins(recipe),
        "graphs": {name: asdict(report) for name, report in reports.items()},
    }
    (partial / QUANTIZE_REPORT_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
