"""Is a bundle ready for an NPU? Its graphs are compiled for several chips, and run in Qualcomm's simulator.

In: a bundle of the npu flavour and chips. Out, for each graph and chip: the seconds of compiling, the context's size,
how far the simulated outputs are from the CPU's, and whether the context gives the same bits after it was written and
read again. The outputs are compared over several steps. Each side starts a step from its own last state. None of this
says how fast a phone is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from voxrill.devices.providers import CPU, session_options
from voxrill.devices.qnn import Htp, context_file, sdk_version
from voxrill.devices.socs import Soc
from voxrill.export.npu_graphs import check_graph
from voxrill.export.shared_weights import weights_size
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.compiled import npu_graphs
from voxrill.runtime.bundle.contract import AUDIO_ENCODER, DECODER, GraphSpec, is_prefill
from voxrill.runtime.engine.codec import Codec
from voxrill.runtime.engine.state import PaddedState
from voxrill.runtime.errors import UsageError
from voxrill.runtime.progress import Progress, no_progress

Array = NDArray[Any]


class GraphSession(Protocol):
    """What runs a graph: onnxruntime, or another runtime with the same method."""

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """The named outputs."""


Loop = Callable[[GraphSession], list[Array]]
"""Runs a graph for some steps, each on the state of the last one. Gives the outputs and the state."""

STEPS = 4
"""How many steps are run on their own state."""
TOLERANCE = 0.03
"""Largest accepted difference from the CPU: root mean square, as a share of the output's own. The HTP computes in
float16 or 16-bit integers, and errors of one step carry over to the next."""
EXPANDED = 2.0
"""A context that is this many times larger than its graph has changed the form of the weights."""


@dataclass(frozen=True)
class Compiled:
    """One graph on one chip.

    seconds: compile time; context: bytes; difference: see `TOLERANCE`; same_bits: whether the context gave the same
    bits after it was read again.
    """

    soc: str
    arch: int
    seconds: float
    context: int
    difference: float
    same_bits: bool


@dataclass
class GraphCheck:
    """What was found for one graph, which has passed the static checks. size: bytes of its file and weights."""

    graph: str
    precision: str
    size: int
    chips: list[Compiled] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether every chip agrees with the CPU, reads back the same bits, and keeps the weights' form."""
        return all(
            chip.same_bits and chip.difference <= TOLERANCE and chip.context <= EXPANDED * self.size
            for chip in self.chips
        )


def check_bundle(
    bundle: Bundle, socs: Sequence[Soc], only: Sequence[str] = (), progress: Progress = no_progress
) -> list[GraphCheck]:
    """Check every graph of `bundle` that an NPU would run, or those in `only`, for every chip.

    Raises:
        UsageError: the bundle is of the cpu flavour, or `only` names another graph.
        DeviceError: onnxruntime-qnn is missing, or a graph is refused; the message names the node and the remedy.
    """
    chosen = choose_graphs(npu_graphs(bundle), only)
    sdk_version()
    for name in chosen:
        check_graph(bundle.path(bundle.manifest.graphs[name].file))
    return _checked(bundle, socs, chosen, progress)


def choose_graphs(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The names that are also in `only`; all names if `only` is empty.

    Raises:
        UsageError: `only` names another.
    """
    unknown = set(only) - set(names)
    if unknown:
        raise UsageError(
            f"this bundle has no graph {', '.join(sorted(unknown))} that an NPU runs",
            f"Give one of: {', '.join(names)}",
        )
    return [name for name in names if not only or name in only]


def _checked(bundle: Bundle, socs: Sequence[Soc], chosen: Sequence[str], progress: Progress) -> list[GraphCheck]:
    checks, total = [], len(chosen) * (len(socs) + 1)
    for index, name in enumerate(chosen):
        progress(f"{name} on the CPU", index * (len(socs) + 1), total)
        manifest = bundle.manifest
        path = bundle.path(manifest.graphs[name].file)
        loop = partial(state_loop, bundle, name)
        expected = on_cpu(path, loop)
        check = GraphCheck(name, manifest.graphs[name].precision, weights_size(path))
        for done, soc in enumerate(socs, index * (len(socs) + 1) + 1):
            progress(f"{name} for v{soc.arch}", done, total)
            check.chips.append(on_chip(path, soc, loop, expected))
        checks.append(check)
    progress("done", total, total)
    return checks


def on_cpu(path: Path, loop: Loop) -> list[Array]:
    """The outputs of a graph on the CPU."""
    return loop(ort.InferenceSession(str(path), session_options(), providers=[CPU]))


def on_chip(path: Path, soc: Soc, loop: Loop, expected: list[Array]) -> Compiled:
    """Compile a graph for a chip and simulate it; then simulate it again from its context.

    Raises:
        DeviceError: the package is missing, or the chip refuses a node.
    """
    htp = Htp(soc)
    with tempfile.TemporaryDirectory() as folder:
        written, start = Path(folder) / path.name, time.perf_counter()
        session = htp.session(path, context=written)  # onnxruntime compiles when a session is made
        seconds = time.perf_counter() - start
        simulated = loop(session)
        read = loop(htp.session(written))
        size = context_file(written).stat().st_size
    return Compiled(
        soc.name,
        soc.arch,
        round(seconds, 2),
        size,
        largest_difference(expected, simulated),
        all(np.array_equal(*pair) for pair in zip(simulated, read, strict=True)),
    )


def largest_difference(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """The largest of `difference`, array by array."""
    return max(difference(*pair) for pair in zip(expected, found, strict=True))


def difference(expected: Array, found: Array) -> float:
    """Root mean square of the difference, as a share of the expected values'; infinite if there is a NaN."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(expected - found) / max(np.linalg.norm(expected), np.finfo(np.float32).tiny))


class SessionGraph:
    """A session with the methods that the runtime's stages expect of a graph."""

    def __init__(self, spec: GraphSpec, session: GraphSession) -> None:
        self.spec = spec
        self._session = session

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Run once."""
        names = [tensor.name for tensor in self.spec.outputs]
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def state_loop(bundle: Bundle, name: str, session: GraphSession) -> list[Array]:
    """The outputs that the runtime reads, and the state, over some steps that each start from the last state."""
    graph, chance = SessionGraph(bundle.manifest.specs()[name], session), np.random.default_rng(0)
    if name == AUDIO_ENCODER:
        return _encode_clip(graph, chance)
    if name == DECODER or is_prefill(name):
        return _fill_context(bundle, graph, chance)
    return _decode_codes(bundle, graph, chance)


def _encode_clip(graph: SessionGraph, chance: np.random.Generator) -> list[Array]:
    """A clip that fills four fifths of the encoder. Its features have mean 0 and deviation 1, as normalised ones do."""
    mel = chance.standard_normal([int(size) for size in graph.spec.inputs[0].shape]).astype(np.float32)
    outputs = graph.run({"mel_spectrogram": mel, "mel_lengths": np.array([mel.shape[1] * 4 // 5], np.int64)})
    return [outputs["audio_embeddings"][:, : int(outputs["audio_lengths"][0])]]


def _fill_context(bundle: Bundle, graph: Any, chance: np.random.Generator) -> list[Array]:
    """Random words until the context is full; the last call is half full."""
    static, words = bundle.manifest.static, bundle.manifest.text_embeddings
    assert static is not None, "npu_graphs has seen to it"
    width = int(graph.spec.inputs[0].shape[1])
    # Whole calls and a half one: only padded positions show whether the graph masks them.
    count = min((STEPS - 1) * width + (width + 1) // 2, static.context)
    ids = chance.integers(0, words.shape[0], count)
    return run_backbone(graph, bundle.table(words).rows(ids), static.context)


def run_backbone(graph: Any, rows: Array, context: int) -> list[Array]:
    """Hidden states and the last state of a backbone's graph for rows (n, hidden), one width after the other."""
    state, width = PaddedState(graph.spec, context), int(graph.spec.inputs[0].shape[1])
    hidden = [state.step(graph, rows[start : start + width]) for start in range(0, len(rows), width)]
    return [*hidden, *state.content().values()]


def _decode_codes(bundle: Bundle, graph: Any, chance: np.random.Generator) -> list[Array]:
    """Random codes as one long sound: a short piece of it may be nearly silent and would hide errors."""
    manifest = bundle.manifest
    assert manifest.static is not None, "npu_graphs has seen to it"
    codes, frames = manifest.model.codes, manifest.static.frames
    stream = Codec(graph, manifest.model.codec, codes, frames).stream()
    spoken = chance.integers(0, codes.end_of_audio, (STEPS, codes.codebooks, frames))
    return [np.concatenate([*(stream.push(some) for some in spoken), stream.flush()])]
