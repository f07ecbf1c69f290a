"""What fewer bits for some weights cost the model, measured for one group of weights at a time on recorded turns.

In: a float32 bundle and sounds. Out: for every group of weights, its cost in each number of bits, with all else in
float32. Each cost is kept in the user's cache as soon as it is known, so a run that was stopped goes on there, and
another budget takes no measurement.

The float32 model hears each sound twice, to transcribe it and to answer it. What it writes and speaks is kept. Then one
graph is opened with one group quantised, and gets exactly the rows and codes of those turns (teacher forcing): the
prompt at once and the answer row by row, as on a device. The cost is how far the predictions move: the mean
Kullback-Leibler divergence from float32's predictions of the next text token and the next code. The codec predicts
nothing. Its cost is the power of the error in the sound over the power of the sound, which also grows with the square
of the error. The text head's weight is the table of text embeddings as well, so its cost counts both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from voxrill.quantize.graph import fitting_block, quantize_graph
from voxrill.quantize.groups import WeightGroup
from voxrill.quantize.k_quant import to_k_quant
from voxrill.quantize.known_costs import KnownCosts
from voxrill.quantize.recipe import K_QUANT, ROUND, Bits, Recipe, Rule
from voxrill.quantize.turns import CapturedTurn, record
from voxrill.quantize.weights import to_int8, unpacked
from voxrill.runtime.bundle.bundle import Bundle, link_file
from voxrill.runtime.bundle.contract import AUDIO_ENCODER, DECODER, TEXT_HEAD
from voxrill.runtime.bundle.manifest import FLOAT32
from voxrill.runtime.engine.audio_encoder import AudioEncoder
from voxrill.runtime.engine.backbone import Backbone
from voxrill.runtime.engine.codec import Codec
from voxrill.runtime.engine.depthformer import Depthformer
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Frame, Token
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.errors import UsageError
from voxrill.runtime.progress import Progress, no_progress

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ReferenceTurn:
    """A recorded turn with the predictions of float32.

    hidden (steps, hidden): the hidden state before each step of the answer; logits: of each step, (vocab,) or
    (codebooks, vocab).
    """

    turn: CapturedTurn
    hidden: Floats
    logits: list[Floats]


@dataclass
class Cost:
    """Divergences in nats of `text` tokens and of `codes`, and the codec's error power; 0 where nothing changed."""

    text: list[float] = field(default_factory=list)
    codes: list[float] = field(default_factory=list)
    error: float = 0.0
    power: float = 0.0

    @property
    def total(self) -> float:
        """One figure to rank by."""
        means = sum(float(np.mean(values)) for values in (self.text, self.codes) if values)
        return means + (self.error / self.power if self.power else 0.0)


@dataclass(frozen=True)
class MeasuredGroup:
    """The cost of a group and its bytes, by bits."""

    group: WeightGroup
    costs: dict[int, float]
    sizes: dict[int, int]


def measure(
    bundle: Bundle,
    groups: Sequence[WeightGroup],
    sounds: Sequence[Floats],
    folder: Path,
    block: int = 128,
    threads: int = 0,
    progress: Progress = no_progress,
    bits: Sequence[Bits] = (4, 8),
) -> list[MeasuredGroup]:
    """Measure every group.

    Args:
        bundle: the float32 bundle.
        groups: what to measure.
        sounds: sounds (samples,) at 16 kHz; a dozen are enough to rank by.
        folder: where to put temporary files. On the bundle's file system they need little space.
        block: rows that share a scale in 2 to 4 bits.
        threads: threads of a graph.
        progress: is told what is being measured.
        bits: how many bits to measure.

    Raises:
        UsageError: the bundle is not float32 of the cpu flavour.
    """
    quantised = [name for name, graph in bundle.manifest.graphs.items() if graph.precision != FLOAT32]
    if quantised:
        raise UsageError(f"{bundle.directory} is quantised already", "Give the float32 bundle")
    if bundle.manifest.static:
        raise UsageError(f"{bundle.directory} is of the npu flavour", "Measure the cpu flavour: the recipe fits both")
    known = KnownCosts(bundle, sounds, block)
    wanted = [(group, number) for group in groups for number in bits]
    missing = [(group, number) for group, number in wanted if known.get(group, number) is None]
    total = len(wanted) + 1
    progress("float32", 0, total)
    if missing:
        with _scratch(folder) as scratch:
            trials = _Trials(bundle, sounds, scratch, threads)
            for done, (group, number) in enumerate(missing, total - len(missing)):
                progress(f"{group.graph} {group.pattern}", done, total)
                method = ROUND if number == 8 else K_QUANT
                rule = Rule(number, group.graph, block=block, method=method)
                known.add(group, number, trials.cost(group, rule).total)
    progress("done", total, total)
    return [
        MeasuredGroup(
            group,
            {number: known.of(group, number) for number in bits},
            {number: group.size(number, block) for number in bits},
        )
        for group in groups
    ]


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix=".sensitivity-", dir=folder) as name:
            yield Path(name)
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be written ({error.strerror or error})", "Give -o another place"
        ) from None


class _Trials:
    """Tries one changed graph at a time on the turns of the float32 model."""

    def __init__(self, bundle: Bundle, sounds: Sequence[Floats], scratch: Path, threads: int) -> None:
        self.bundle, self.scratch, self.threads = bundle, scratch, threads
        self.model = Engine(bundle, threads)
        tasks = bundle.manifest.tasks
        turns = [record(self.model, sound, task) for sound in sounds for task in (tasks.transcribe, tasks.chat)]
        # some models say nothing when they hear silence
        self.references = [_reference_turn(self.model, turn) for turn in turns if turn.steps]
        spec = bundle.manifest.model
        self._stages: dict[str, Callable[[Graph, Rule, Cost], None]] = {
            TEXT_HEAD: self._head,
            AUDIO_ENCODER: self._encoder,
            DECODER: self._decoder,
            spec.frame_decoder: self._frame_decoder,
            spec.codec.graph: self._codec,
        }

    def cost(self, group: WeightGroup, rule: Rule) -> Cost:
        """The cost of storing `group` as `rule` says, with everything else in float32."""
        rules = [replace(rule, name=weight.name) for weight in group.weights]
        source = self.bundle.path(self.bundle.manifest.graphs[group.graph].file)
        target, data = self.scratch / source.name, f"{source.name}.data"
        if data in self.bundle.manifest.files and not (self.scratch / data).exists():
            link_file(self.bundle.path(data), self.scratch / data)
        quantize_graph(group.graph, source, target, Recipe("", tuple(rules)), data_stays=True)
        spec = self.bundle.manifest.specs()[group.graph]
        cost = Cost()
        graph = Graph(target, spec, times=StageTimes(), threads=self.threads, repack=True)
        self._stages[group.graph](graph, rule, cost)
        return cost

    def _encoder(self, graph: Graph, _rule: Rule, cost: Cost) -> None:
        spec = self.bundle.manifest.model
        encoder = AudioEncoder(graph, spec.log_mel, StageTimes(), None, spec.encoder)
        for reference in self.references:
            rows = reference.turn.rows.copy()
            rows[reference.turn.heard] = encoder.encode(reference.turn.sound)
            self._compare(reference, _states(self.model.parts.backbone, rows, reference.turn), cost)

    def _decoder(self, graph: Graph, _rule: Rule, cost: Cost) -> None:
        limit = self.bundle.manifest.model.backbone.max_positions
        backbone = Backbone(graph, graph, (), None, limit)  # this backbone never uses its text head
        for reference in self.references:
            self._compare(reference, _states(backbone, reference.turn.rows, reference.turn), cost)

    def _frame_decoder(self, graph: Graph, _rule: Rule, cost: Cost) -> None:
        depthformer = Depthformer(graph, self.bundle.manifest.model.codes)
        for reference in self.references:
            self._compare(reference, reference.hidden, cost, depthformer)

    def _codec(self, graph: Graph, _rule: Rule, cost: Cost) -> None:
        model = self.model
        codec = Codec(graph, model.manifest.model.codec, model.manifest.model.codes, None)
        for reference in self.references:
            spoken = [
                step.codes for step in reference.turn.steps if isinstance(step, Frame) and codec.decodes(step.codes)
            ]
            if spoken:
                wanted, got = (one.decode(np.stack(spoken, 1)).astype(np.float64) for one in (model.codec, codec))
                cost.error += float(((wanted - got) ** 2).sum())
                cost.power += float((wanted**2).sum())

    def _head(self, graph: Graph, rule: Rule, cost: Cost) -> None:
        for reference in self.references:
            turn = reference.turn
            rows, written = turn.rows.copy(), turn.written
            rows[written] = _rounded_rows(rows[written], rule)
            hidden = _states(self.model.parts.backbone, rows, turn)
            for step, state, wanted in zip(turn.steps, hidden, reference.logits, strict=True):
                if isinstance(step, Token):
                    cost.text.append(divergence(wanted, graph.run({"hidden_state": state[None]})["logits"][0]))
                else:
                    cost.codes.append(divergence(wanted, self.model.parts.depthformer.logits(state, step.codes)))

    def _compare(
        self, reference: ReferenceTurn, hidden: Floats, cost: Cost, depthformer: Depthformer | None = None
    ) -> None:
        """Compare predictions from other hidden states, or by another depthformer, with those of float32."""
        for step, state, wanted in zip(reference.turn.steps, hidden, reference.logits, strict=True):
            if isinstance(step, Token):
                if depthformer is None:
                    cost.text.append(divergence(wanted, self.model.parts.backbone.logits(state)))
            else:
                got = (depthformer or self.model.parts.depthformer).logits(state, step.codes)
                cost.codes.append(divergence(wanted, got))


def _rounded_rows(rows: Floats, rule: Rule) -> Floats:
    """Rows (n, hidden) of the text table, as they are read from a head that was rounded by `rule`."""
    if rule.bits == 8:
        matrix = to_int8(rows, axis=0)
        return matrix.values * matrix.scales[:, None]
    return unpacked(to_k_quant(rows.T, rule.bits, fitting_block(rule.block, rows.shape[1])), rows.shape[1]).T


def _reference_turn(model: Engine, turn: CapturedTurn) -> ReferenceTurn:
    """A sound and the model's greedy transcript or answer."""
    parts = model.parts
    hidden = _states(parts.backbone, turn.rows, turn)
    logits = [
        parts.backbone.logits(state) if isinstance(step, Token) else parts.depthformer.logits(state, step.codes)
        for step, state in zip(turn.steps, hidden, strict=True)
    ]
    return ReferenceTurn(turn, hidden, logits)


def _states(backbone: Backbone, rows: Floats, turn: CapturedTurn) -> Floats:
    """The hidden state before each step of the answer. The prompt is run at once, and the answer row by row."""
    state = backbone.new_state()
    hidden = [backbone.forward(rows[: turn.prompt], state)[-1:]]
    hidden += [backbone.forward(row[None], state) for row in rows[turn.prompt : -1]]  # nothing follows the last row
    return np.concatenate(hidden)


def divergence(wanted: Floats, got: Floats) -> float:
    """Mean Kullback-Leibler divergence in nats between the softmaxes of logits (..., vocab)."""
    p, q = (_log_softmax(logits.astype(np.float64)) for logits in (wanted, got))
    terms = np.where(np.isfinite(p), np.exp(p) * (p - q), 0.0)
    return float(terms.sum(-1).mean())


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
