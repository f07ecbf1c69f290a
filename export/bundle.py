"""A whole bundle from a checkpoint: graphs, tables, tokenizer, report and manifest, or nothing at all.

In: a `Checkpoint` and a target folder. Out: the bundle. It is built beside the target under another name. It takes the
target's place only when every graph has passed its check, so an older bundle survives a full disk or Ctrl-C.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from voxrill.export.checkpoint import Checkpoint, sensible_config
from voxrill.export.families import Family, detect_family
from voxrill.export.graphs import GraphPlan
from voxrill.export.onnx_config import largest_differences
from voxrill.export.shared_weights import share_weights
from voxrill.export.tensors import sha256
from voxrill.export.write import write_graph
from voxrill.runtime.bundle.atomic_folder import remove
from voxrill.runtime.bundle.bundle import Bundle, link_file, open_bundle, write_manifest
from voxrill.runtime.bundle.contract import DECODER, FORMAT_VERSION, TEXT_HEAD, ModelSpec, StaticShapes, is_prefill
from voxrill.runtime.bundle.manifest import (
    LICENCE_FILE,
    REPORT_FILE,
    TOKENIZER_FILE,
    GraphFile,
    Manifest,
    Overlay,
    Table,
    WeightsSource,
)
from voxrill.runtime.bundle.replacing import check_replaceable, replacing_bundle
from voxrill.runtime.engine.tokenizer import Tokenizer
from voxrill.runtime.errors import ExportError, UsageError
from voxrill.runtime.progress import Progress, no_progress

AUDIO_TABLE_FILE = "audio_embeddings.f32"
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "optimum", "transformers", "numpy")


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    static: shapes of the npu flavour, None for cpu; graphs: only these are exported, and the others are kept from the
    older bundle; force: replace an older bundle; family: its name, empty for the one that the checkpoint shows.
    """

    static: StaticShapes | None = None
    graphs: Sequence[str] = ()
    force: bool = False
    family: str = ""

    @property
    def replaces(self) -> bool:
        """Whether an older bundle is replaced, as a whole or in some of its graphs."""
        return self.force or bool(self.graphs)


def export_bundle(
    checkpoint: Checkpoint, target: Path, options: ExportOptions | None = None, progress: Progress = no_progress
) -> Bundle:
    """Export `checkpoint` to the bundle folder `target`.

    Raises:
        CheckpointError: the checkpoint is incomplete or not of a known family.
        ExportError: a graph did not match its module; `target` is as it was.
        BundleError: the disk is full, or Ctrl-C; `target` is as it was.
        UsageError: `target` is not a bundle, or is one and `force` is missing; or `graphs` names an unknown graph.
    """
    options = options or ExportOptions()
    check_replaceable(target, options.replaces)
    family = detect_family(checkpoint, options.family)
    with sensible_config():
        model = family.graphs.sizes(checkpoint)
        plans = family.graphs.plans(checkpoint, model, options.static)
    _check_tokenizer(checkpoint, family)
    kept = _kept_bundle(target, options, plans)
    _check_space(checkpoint, target)
    with replacing_bundle(target, options.replaces) as partial:
        _Export(checkpoint, family, model, plans, options, partial, kept, progress).run()
    return open_bundle(target)


@dataclass
class _Export:
    """One running export; `run` writes everything into `directory`."""

    checkpoint: Checkpoint
    family: Family
    model: ModelSpec
    plans: dict[str, GraphPlan]
    options: ExportOptions
    directory: Path
    kept: Bundle | None
    progress: Progress

    def run(self) -> None:
        wanted = self._wanted()
        total = len(wanted) + 2
        self.progress("reading weights", 0, total)
        source = self._source()
        if self.kept:
            self._keep(self.kept, source)
        report = self._old_report()
        for done, name in enumerate(wanted, 1):
            self.progress(name, done, total)
            report[name] = self._graph(self.plans[name])
        share_weights(self._file(DECODER), [self._file(name) for name in self.plans if is_prefill(name)])
        self.progress("manifest", total - 1, total)
        self._tokenizer_and_licence()
        tables = {"text_embeddings": self._text_table(), "audio_embeddings": self._audio_table()}
        (self.directory / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        self._manifest(source, tables)
        self.progress("done", total, total)

    def _wanted(self) -> list[str]:
        """The graphs to export. Prefill graphs share the decoder's weights, so they are exported with it."""
        chosen = self.options.graphs or list(self.plans)
        return [name for name in self.plans if name in chosen or (DECODER in chosen and is_prefill(name))]

    def _file(self, graph: str) -> Path:
        return self.directory / f"{graph}.onnx"

    def _source(self) -> WeightsSource:
        """Name, revision, hash and licence of the weights, the codec's included."""
        checkpoint = self.checkpoint
        return WeightsSource(
            name=checkpoint.name,
            revision=checkpoint.revision,
            weights_sha256=sha256(checkpoint.files),
            licence=self.family.licence,
            licence_url=self.family.licence_url,
            overlays=tuple(Overlay(change.kind, change.name, change.sha256) for change in checkpoint.changes),
        )

    def _keep(self, kept: Bundle, source: WeightsSource) -> None:
        if _weights_of(kept.manifest.source) != _weights_of(source):
            raise UsageError(
                f"{kept.directory} was exported from other weights", "Leave --graphs out to export all of it"
            )
        for name in kept.manifest.files:
            link_file(kept.path(name), self.directory / name)

    def _old_report(self) -> dict[str, Any]:
        path = self.directory / REPORT_FILE
        if not self.kept or not path.is_file():
            return {}
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()  # a link to the old bundle's file: never write through it
        return report

    def _graph(self, plan: GraphPlan) -> dict[str, Any]:
        for suffix in (".onnx", ".onnx.data"):
            remove(self.directory / f"{plan.spec.name}{suffix}")
        start = time.perf_counter()
        tried = write_graph(plan, self.directory)
        return {
            "max_relative_difference": dict(largest_differences(tried)),
            "tried": tried,
            "seconds": round(time.perf_counter() - start, 2),
            **_peak_memory(),
        }

    def _tokenizer_and_licence(self) -> None:
        tokenizer = self.directory / TOKENIZER_FILE
        remove(tokenizer)
        tokenizer.write_bytes(self.checkpoint.tokenizer())
        licence = self.checkpoint.directory / "LICENSE"
        target = self.directory / LICENCE_FILE
        if licence.is_file():
            _fresh_copy(licence, target)
            return
        remove(target)
        target.write_text(
            f"The weights in this bundle are under the {self.family.licence}: {self.family.licence_url}\n",
            encoding="utf-8",
        )

    def _text_table(self) -> Table:
        """The text embeddings are the head's weight; they are read from its data file."""
        proto = onnx.load(str(self.directory / f"{TEXT_HEAD}.onnx"), load_external_data=False)
        shape = (self.model.backbone.vocab_size, self.model.backbone.hidden_size)
        for tensor in proto.graph.initializer:
            if tuple(tensor.dims) == shape:
                where = {entry.key: entry.value for entry in tensor.external_data}
                return Table(where["location"], int(where.get("offset", 0)), shape)
        raise ExportError(f"{TEXT_HEAD}.onnx does not hold the text embeddings", "Please report this")

    def _audio_table(self) -> Table:
        table = self.checkpoint.weights.read(self.family.graphs.frame_table)
        path = self.directory / AUDIO_TABLE_FILE
        remove(path)
        table.numpy().tofile(path)
        return Table(AUDIO_TABLE_FILE, 0, (table.shape[0], table.shape[1]))

    def _manifest(self, source: WeightsSource, tables: dict[str, Table]) -> None:
        manifest = Manifest(
            format=FORMAT_VERSION,
            name=self.checkpoint.name.split("/")[-1],
            family=self.family.name,
            source=source,
            flavour="npu" if self.options.static else "cpu",
            model=self.model,
            tasks=self.family.tasks,
            graphs={name: GraphFile(f"{name}.onnx") for name in self.plans},
            files={},
            tools={name: version(name) for name in ("voxrill", *TOOLS)},
            static=self.options.static,
            taught=self.family.taught,
            **tables,
        )
        write_manifest(self.directory, manifest)


def _weights_of(source: WeightsSource) -> tuple[object, ...]:
    """What decides the values of a bundle's graphs."""
    return source.weights_sha256, *((overlay.kind, overlay.sha256) for overlay in source.overlays)


def _peak_memory() -> dict[str, int]:
    """The most memory that this process has taken so far, MB; empty on Windows, where Python does not know."""
    try:
        import resource
    except ImportError:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mb": peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)}  # macOS counts bytes


def _fresh_copy(source: Path, target: Path) -> None:
    remove(target)
    shutil.copyfile(source, target)


def _kept_bundle(target: Path, options: ExportOptions, plans: dict[str, GraphPlan]) -> Bundle | None:
    """The older bundle, if only some graphs are exported and the others are kept."""
    unknown = set(options.graphs) - set(plans)
    if unknown:
        raise UsageError(f"there is no graph {', '.join(sorted(unknown))}", f"Give one of: {', '.join(plans)}")
    if not options.graphs:
        return None
    kept = open_bundle(target)
    if kept.manifest.static != options.static:
        raise UsageError(
            f"{target} has the {kept.manifest.flavour} flavour or other fixed shapes",
            "Export all graphs, or give the same flavour and shapes",
        )
    return kept


def _check_tokenizer(checkpoint: Checkpoint, family: Family) -> None:
    """Refuse a bad tokenizer before the long work, although it is written last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TOKENIZER_FILE
        path.write_bytes(checkpoint.tokenizer())
        Tokenizer(path).special(sorted(family.tasks.marks))


def _check_space(checkpoint: Checkpoint, target: Path) -> None:
    """Refuse at once what cannot fit on the disk: every weight becomes four bytes."""
    values = checkpoint.numbers
    parent = next(folder for folder in target.resolve().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < 4 * values:
        raise ExportError(
            f"{parent} has {free / 1e9:.1f} GB free; the bundle may need {4 * values / 1e9:.1f} GB",
            "Free some space, or give another place with -o",
        )
