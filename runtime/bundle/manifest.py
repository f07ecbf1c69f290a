"""The manifest: what a bundle says of itself, as typed structs that read and write `manifest.json`.

In: JSON (a bundle folder's `manifest.json`). Out: a `Manifest`. Unknown families, tasks or graphs are data here, not
code: a later model family is a new manifest, and a new entry in `export/families.py`.
"""

from __future__ import annotations

import codecs
import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from voxrill.runtime.bundle.atomic_folder import aside_of
from voxrill.runtime.bundle.contract import (
    DECODER_PREFILL,
    FORMAT_VERSION,
    FRAME_DECODERS,
    GraphName,
    GraphSpec,
    ModelSpec,
    Positions,
    StaticShapes,
    Width,
    graph_specs,
)
from voxrill.runtime.errors import BundleError, NewerFormat

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
REPORT_FILE = "export_report.json"
QUANTIZE_REPORT_FILE = "quantize_report.json"
LICENCE_FILE = "WEIGHTS_LICENCE"

CHECKPOINT_FILE = "config.json"
"""A folder with this file and no manifest is a checkpoint."""

MANIFEST_LIMIT = 1 << 20
"""Bytes that a manifest may have; the built-in bundle's has 6 thousand."""

_LONGEST_SAID = 300
"""Characters of a refused manifest's value that are shown."""

FLOAT32 = "float32"

Line = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=1000)]
Prose = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")]
"""Words that are shown on a terminal: without its control codes."""

Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

Language = Annotated[str, msgspec.Meta(pattern="^[a-z]{2}$")]

Flavour = Literal["cpu", "npu"]
Mode = Literal["sequential", "interleaved"]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a token or code is drawn.

    temperature 0 is greedy; top_k 0 keeps every candidate. top_p: the likeliest tokens that have this probability
    together are kept; a manifest has none. penalty: a code that its codebook had in the last penalty_frames frames of
    this answer is made less likely by this factor.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | msgspec.UnsetType = msgspec.UNSET
    penalty: Annotated[float, msgspec.Meta(ge=1, le=100)] | msgspec.UnsetType = msgspec.UNSET
    penalty_frames: Positions | msgspec.UnsetType = msgspec.UNSET

    @property
    def greedy(self) -> bool:
        """Whether the most likely candidate is always taken."""
        return self.temperature <= 0 or self.top_k == 1


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The family's own way to do one job.

    system: the system prompt, with `{voice}` where a voice goes in; mode: how text and audio follow each other;
    voices: the names the model knows (empty: any description); voice: the default; opening: special tokens that every
    answer begins with; spoken: the system prompt for a language that is named, with `{language}` in its place.
    """

    system: Prose
    mode: Mode
    text: Sampling = Sampling()
    audio: Sampling = Sampling()
    max_new_tokens: Positions = 512
    voice: Line = ""
    voices: tuple[Line, ...] = ()
    opening: tuple[Line, ...] | msgspec.UnsetType = msgspec.UNSET
    spoken: Prose | msgspec.UnsetType = msgspec.UNSET

    @property
    def openings(self) -> tuple[str, ...]:
        """The special tokens that every answer begins with."""
        return () if isinstance(self.opening, msgspec.UnsetType) else self.opening


class LiveTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recognition while the user speaks: the sound goes into the assistant's turn chunk by chunk, text after each.

    system: the system prompt; rows: embeddings of a chunk; end: the special token that ends a chunk's text; last: the
    one that follows the last chunk; most_tokens, last_tokens: of a chunk's text, and of the last one's; unwritten:
    special tokens that are not drawn; closes: those that end the last chunk's text, too; context_rows: embeddings after
    which a new context begins; quiet_rows: the same after a chunk without text.
    """

    system: Prose
    rows: Positions
    end: Line
    last: Line
    most_tokens: Positions
    last_tokens: Positions
    context_rows: Positions
    quiet_rows: Positions
    unwritten: Annotated[tuple[Line, ...], msgspec.Meta(max_length=1000)] = ()
    closes: Annotated[tuple[Line, ...], msgspec.Meta(max_length=1000)] = ()


class CallMarks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model was taught to call functions.

    listing: what stands before the list of them; begin: the special token that every call begins with.
    """

    listing: Line
    begin: Line


class Tasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The jobs every bundle can be asked to do: `chat` answers aloud, `write` in text.

    language: what is heard and spoken in all of them, as ISO 639-1 has it. A bundle for English does not write it.
    languages: what else, by their codes the names that prompts call them by; unwritten: special tokens that are never
    written as text, though the model has logits for them; ends: those that end an answer in text beside `<|im_end|>`;
    live: how speech is recognised while it is spoken, where the model was taught that; calls: how functions are called,
    where the model was taught that.
    """

    transcribe: Task
    speak: Task
    chat: Task
    write: Task
    language: Language = "en"
    languages: dict[Language, Line] = {}
    unwritten: Annotated[tuple[Line, ...], msgspec.Meta(max_length=1000)] = ()
    ends: Annotated[tuple[Line, ...], msgspec.Meta(max_length=1000)] = ()
    live: LiveTask | None = None
    calls: CallMarks | None = None

    @property
    def marks(self) -> set[str]:
        """All special tokens that are named here."""
        named = (task for task in msgspec.structs.astuple(self) if isinstance(task, Task))
        live = self.live and (self.live.end, self.live.last, *self.live.unwritten, *self.live.closes)
        calls = (self.calls.begin,) if self.calls else ()
        openings = (mark for task in named for mark in task.openings)
        return {*self.unwritten, *self.ends, *(live or ()), *calls, *openings}


class Taught(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model was taught beside its family's tasks; a family's published models have none of it.

    labels: the answers that it was taught, by the task that they name, such as "intent"; it is asked by the task's name
    alone. refusal: the sentence with which it answers what it does not know; empty if it has none. turns: how many
    earlier turns of a conversation it can use; None for as many as fit into its context. examples: a few questions that
    it answers well, to be shown to a user who does not know what to ask. written: the system prompt of its written
    answers; empty if it needs none. least_confidence: a transcript that is less certain was probably not meant for it;
    a model that was not taught what is has none. trim_silence: whether it hears only the speech in a sound (see
    `speech_in`): it was taught with sounds that begin and end with their words, and mishears others. Otherwise it hears
    every sound as it is, as the published models' reference does.
    """

    labels: dict[Line, tuple[Line, ...]] = {}
    refusal: Line = ""
    turns: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] | None = None
    trim_silence: bool = False
    examples: Annotated[tuple[Line, ...], msgspec.Meta(max_length=12)] = ()
    written: Line = ""
    least_confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | msgspec.UnsetType = msgspec.UNSET


class Overlay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was laid over a checkpoint's weights: whole tensors, or a LoRA adapter that was merged.

    name: of its file or folder; sha256: of its files' bytes, in order (for an adapter, its config first).
    """

    kind: Literal["weights", "lora"]
    name: Line
    sha256: Sha256


class WeightsSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the weights came from: a hub id or folder name, its revision, and the weights' own hash and licence.

    overlays: what was laid over them, in order. A bundle without any does not write the field.
    """

    name: Line
    revision: Line
    weights_sha256: Line
    licence: Line
    licence_url: Line
    overlays: tuple[Overlay, ...] = ()


class GraphFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One graph of the bundle: its file, the precision of its weights, and its products of quantised weights.

    products: operators with their bits, such as "MatMulNBits 3". Graphs in float32 and older bundles have none.
    """

    file: str
    precision: Line = FLOAT32
    products: Annotated[tuple[Line, ...], msgspec.Meta(max_length=16)] | msgspec.UnsetType = msgspec.UNSET


class Blocks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows of 2- to 4-bit numbers are stored, as a quantised product has them.

    size: numbers of a row that share a factor and a zero point, the last block of a row filled up; factors: their type,
    (rows, blocks); zero_points: offset in bytes of the zero points of each row, a stream of `bits` bits, or a byte for
    each block if `bits` is 3.
    """

    bits: Literal[2, 3, 4]
    size: Literal[16, 32, 64, 128, 256]
    factors: Literal["float16", "float32"]
    zero_points: Bytes

    def row(self, width: int) -> tuple[int, int, int]:
        """Of a row of `width` numbers: its blocks, the bytes of a block, and the bytes of its zero points."""
        blocks = -(-width // self.size)
        return blocks, self.size * self.bits // 8, blocks if self.bits == 3 else -(-blocks * self.bits // 8)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An embedding table inside a file of the bundle, memory-mapped and never copied.

    offset in bytes; shape (rows, hidden_size); scales: offset in bytes of one float32 factor a row, where the numbers
    are 8-bit integers, or of the blocks' factors; transposed: stored (hidden_size, rows), as a matrix product wants it;
    blocks: how numbers of fewer bits are stored, whose dtype is uint8.
    """

    file: str
    offset: Bytes
    shape: tuple[Positions, Width]
    dtype: Literal["float32", "int8", "uint8"] = "float32"
    scales: Bytes | None = None
    transposed: bool = False
    blocks: Blocks | msgspec.UnsetType = msgspec.UNSET

    @property
    def end(self) -> int:
        """The first byte of the file that the table does not need."""
        if self.blocks and self.scales is not None:
            rows, (blocks, block, zeros) = self.shape[0], self.blocks.row(self.shape[1])
            factors = self.scales + rows * blocks * (2 if self.blocks.factors == "float16" else 4)
            return max(self.offset + rows * blocks * block, factors, self.blocks.zero_points + rows * zeros)
        numbers = self.offset + math.prod(self.shape) * (4 if self.dtype == "float32" else 1)
        return numbers if self.scales is None else max(numbers, self.scales + 4 * self.shape[0])


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256 of one file of the bundle."""

    size: Bytes
    sha256: Sha256


class _Format(msgspec.Struct):
    """What is read of a manifest of any format."""

    format: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All a bundle says of itself; the one file that is read before anything else."""

    format: int
    name: Line
    family: Line
    source: WeightsSource
    flavour: Flavour
    model: ModelSpec
    tasks: Tasks
    graphs: dict[GraphName, GraphFile]
    text_embeddings: Table
    audio_embeddings: Table
    files: dict[str, FileEntry]
    tools: dict[Line, Line]
    static: StaticShapes | None = None
    taught: Taught = Taught()

    def specs(self) -> dict[str, GraphSpec]:
        """The contract of every graph of this bundle."""
        return graph_specs(self.model, self.static, prefill=DECODER_PREFILL in self.graphs)

    @property
    def context_positions(self) -> int:
        """Positions that prompt and answers may take together (a text token is one, a second of sound 12.5)."""
        return self.static.context if self.static else self.model.backbone.max_positions

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files.values())

    def graph_size(self, graph: str) -> int:
        """Bytes of a graph, with those of its data file."""
        file = self.graphs[graph].file
        return sum(self.files[name].size for name in (file, f"{file}.data") if name in self.files)


def read_manifest(bundle: Path) -> Manifest:
    """Read `bundle/manifest.json`.

    Raises:
        BundleError: there is no such folder or manifest, or it is not valid.
        NewerFormat: it was written by a newer Voxrill.
    """
    path = bundle / MANIFEST_FILE
    if not bundle.exists():
        _tell_of_aside(bundle)
        raise _no_bundle(bundle)
    if bundle.is_file():
        raise BundleError(
            f"{bundle} is a file, not a bundle folder", f"If it is a packed bundle: voxrill unpack {bundle}"
        )
    unreadable = BundleError(f"{bundle} has no readable {MANIFEST_FILE}", "Name a folder that voxrill export wrote")
    if (bundle / CHECKPOINT_FILE).is_file() and not path.exists():
        raise BundleError(
            f"{bundle} is a checkpoint, and a bundle is needed",
            f"Export it: voxrill export {bundle} -o {bundle.absolute().name}.bundle",
        )
    if not path.is_file():  # a pipe or a device could be read for ever
        raise unreadable
    try:
        with path.open("rb") as file:
            raw = file.read(MANIFEST_LIMIT + 1)
    except OSError:
        raise unreadable from None
    return decode_manifest(raw, str(path))


def _no_bundle(bundle: Path) -> BundleError:
    """The error for a folder that is not there. A name on the hub is a checkpoint, which is made a bundle first."""
    name, problem = bundle.as_posix(), f"there is no bundle at {bundle}"
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) and not bundle.parent.exists():
        remedy = (
            f"If that is a name on the hub, make a bundle of it: voxrill export {name} -o {bundle.name}; and load that"
        )
        return BundleError(problem, remedy)
    return BundleError(problem, "Make one with: voxrill export CHECKPOINT -o BUNDLE")


def _tell_of_aside(bundle: Path) -> None:
    aside = aside_of(bundle)
    if aside.is_dir():
        raise BundleError(
            f"there is no bundle at {bundle}: a command that was replacing it was stopped",
            f"Give the old one its name again: mv {aside} {bundle}",
        )


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Parse manifest bytes; `where` names them in errors.

    Raises:
        BundleError: they are not valid.
        NewerFormat: a newer Voxrill wrote them.
    """
    if len(raw) > MANIFEST_LIMIT:
        raise BundleError(f"{where} has more than {MANIFEST_LIMIT} bytes", "Do not use this bundle")
    if raw.startswith(codecs.BOM_UTF8):
        raise BundleError(f"{where} begins with a byte order mark (BOM)", "Save it as UTF-8 without one")
    try:
        found = msgspec.json.decode(raw, type=_Format).format
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BundleError(f"{where} is not a bundle manifest ({_short(error)})", "Export the bundle again") from None
    if found > FORMAT_VERSION:
        raise NewerFormat(
            f"{where} has bundle format {found}; this Voxrill reads up to {FORMAT_VERSION}",
            "Update: pip install --upgrade voxrill",
        )
    if found < FORMAT_VERSION:
        raise BundleError(
            f"{where} has bundle format {found}, of an older Voxrill; this one reads {FORMAT_VERSION}",
            "Export the bundle again",
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BundleError(f"{where} is not valid: {_short(error)}", _remedy(error)) from None
    if manifest.model.frame_decoder not in FRAME_DECODERS:
        raise BundleError(
            f"{where} decodes frames with {_short(manifest.model.frame_decoder)}, which this Voxrill does not know",
            f"It knows {', '.join(FRAME_DECODERS)}; update: pip install --upgrade voxrill",
        )
    return manifest


def _short(said: object) -> str:
    """What msgspec says, which quotes the value however long it is."""
    text = str(said)
    return text if len(text) < _LONGEST_SAID else f"{text[:_LONGEST_SAID]} ..."


def _remedy(error: Exception) -> str:
    unknown = "contains unknown field" in str(error)  # msgspec's message, which names it and where it stands
    return "Remove it; if a newer Voxrill wrote it: pip install --upgrade voxrill" if unknown else "Export it again"


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON, one trailing newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
