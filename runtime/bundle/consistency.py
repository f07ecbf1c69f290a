"""Whether what a manifest says holds together: its files, graphs, tables and sizes.

In: a decoded manifest, in which each value by itself is within its bounds. Out: nothing, or an error that names what
does not fit. A manifest may come from anywhere, so nothing is computed from it before this check.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from voxrill.runtime.bundle.contract import (
    AUDIO_ENCODER,
    DECODER,
    DECODER_PREFILL,
    FRAME_DECODERS,
    TEXT_HEAD,
    ModelSpec,
    StaticShapes,
    TensorSpec,
)
from voxrill.runtime.bundle.manifest import FLOAT32, MANIFEST_FILE, TOKENIZER_FILE, Manifest, Table
from voxrill.runtime.errors import BundleError

MOST_FILES = 1000
"""Files that a bundle may have; one has 10 to 20."""

_PART_OF_A_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.+-]{0,98}[A-Za-z0-9_+-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices, whatever follows the first dot."""

_DEEPEST = 4
"""Folders in folders that a bundle may have."""

_LARGEST_STATE = 1 << 26
"""Numbers of one tensor of a state."""


def check_manifest(manifest: Manifest, where: str) -> None:
    """Refuse a manifest that does not hold together; `where` names it.

    Raises:
        BundleError: naming the first thing that does not fit.
    """
    for name in manifest.files:
        if not _is_plain(name):
            raise BundleError(
                f"{where} lists a file by a name that no file of a bundle may have: {name[:200]!r}",
                "Do not use this bundle",
            )
    wrong = next(_wrongs(manifest), None)
    if wrong:
        raise BundleError(f"{where} {wrong}", "Export the bundle again")


def _is_plain(name: str) -> bool:
    """Whether a file's name means the same file, inside the bundle, on every system: no `..`, no `:`, no device."""
    parts = name.split("/")
    plain = all(_PART_OF_A_NAME.fullmatch(part) and not _RESERVED.fullmatch(part) for part in parts)
    return plain and len(parts) <= _DEEPEST and name.casefold() != MANIFEST_FILE


def _wrongs(manifest: Manifest) -> Iterator[str]:
    """What does not fit, each as the end of a sentence about the manifest."""
    yield from _wrong_files(manifest)
    yield from _wrong_model(manifest.model)
    yield from _wrong_shapes(manifest)
    yield from _wrong_graphs(manifest)
    model = manifest.model
    codes = model.codes.codebooks * model.codes.vocab_size
    yield from _wrong_table(manifest, manifest.text_embeddings, model.backbone.vocab_size)
    yield from _wrong_table(manifest, manifest.audio_embeddings, codes)


def _wrong_files(manifest: Manifest) -> Iterator[str]:
    if len(manifest.files) > MOST_FILES:
        yield f"lists more than {MOST_FILES} files"
    if len({name.casefold() for name in manifest.files}) < len(manifest.files):
        yield "lists two files whose names differ only in capitals"
    graphs = [graph.file for graph in manifest.graphs.values()]
    for file in (TOKENIZER_FILE, *graphs, manifest.text_embeddings.file, manifest.audio_embeddings.file):
        if file not in manifest.files:
            yield f"does not list {file[:200]} among its files"


def _wrong_model(model: ModelSpec) -> Iterator[str]:
    codec = model.codec
    if codec.graph in (AUDIO_ENCODER, DECODER, DECODER_PREFILL, TEXT_HEAD, *FRAME_DECODERS):
        yield f"names {codec.graph} as the codec, which is another graph"
    if model.codes.end_of_audio >= model.codes.vocab_size:
        yield f"ends audio with the code {model.codes.end_of_audio} of {model.codes.vocab_size}"
    if codec.hop > codec.n_fft or (codec.n_fft > 0) != (codec.hop > 0):
        yield f"has a codec with an n_fft of {codec.n_fft} and a hop of {codec.hop}"
    backbone = model.backbone
    if (backbone.window or 0) * backbone.kv_heads * backbone.head_dim > _LARGEST_STATE:
        yield f"has layers with a window of {backbone.window} positions"
    yield from _wrong_state("codec", codec.state)
    yield from _wrong_state("audio encoder", model.encoder.streaming)


def _wrong_state(part: str, state: tuple[TensorSpec, ...]) -> Iterator[str]:
    if len({tensor.name for tensor in state}) < len(state):
        yield f"names a tensor of the {part}'s state twice"
    for tensor in state:
        sizes = [size for size in tensor.shape if isinstance(size, int)]
        if not tensor.name.startswith("past_"):
            yield f"has a tensor {tensor.name} in the {part}'s state: their names begin with past_"
        if len(sizes) < len(tensor.shape) or min(sizes, default=1) < 1 or math.prod(sizes) > _LARGEST_STATE:
            yield f"gives {tensor.name} of the {part}'s state the shape {list(tensor.shape)}"


def _wrong_shapes(manifest: Manifest) -> Iterator[str]:
    """The fixed shapes of the npu flavour."""
    static = manifest.static
    if (manifest.flavour == "npu") != (static is not None):
        yield f"is of the {manifest.flavour} flavour {'without' if static is None else 'with'} fixed shapes"
    if static is not None:
        yield from _wrong_widths(static)
        if manifest.model.backbone.kv_cache != FLOAT32:
            yield f"is of the npu flavour with a KV cache of {manifest.model.backbone.kv_cache}"


def _wrong_widths(static: StaticShapes) -> Iterator[str]:
    widths = [1, static.prefill, *static.wider_prefill]
    if widths != sorted(set(widths)) or widths[-1] > static.context:
        yield f"has prefill widths of {widths[1:]} positions for a context of {static.context}"


def _wrong_graphs(manifest: Manifest) -> Iterator[str]:
    for graph in manifest.specs():
        if graph not in manifest.graphs:
            yield f"names no file for the graph {graph}"


def _wrong_table(manifest: Manifest, table: Table, rows: int) -> Iterator[str]:
    """An embedding table has a row for each id, of the backbone's width, inside its file."""
    wanted = (rows, manifest.model.backbone.hidden_size)
    if table.shape != wanted:
        yield f"gives a table in {table.file} the shape {list(table.shape)}, not {list(wanted)}"
    if (table.dtype == "uint8") != bool(table.blocks) or (table.blocks and table.transposed):
        yield f"has a table of {table.dtype} in {table.file} that {'has' if table.blocks else 'lacks'} blocks"
    if (table.dtype == "float32") != (table.scales is None):
        yield f"has a table of {table.dtype} in {table.file} {'without' if table.scales is None else 'with'} scales"
    if table.end > manifest.files[table.file].size:
        yield f"has a table that reaches beyond {table.file}"
