"""How long every stage takes: predicted from a model's bytes and a machine's rates. Pure: numbers in and out.

A stage that sees one position (a step, a frame) reads every weight once and multiplies it once. Reading and computing
overlap, so the slower of the two decides; what no core can share is added:

    first = max(bytes / (bandwidth · SHARE), Σ weights(f) / (rate(f) · speedup)) + overhead

f is a format of weights: 4 bits, 8 bits, float32. A step adds its attention: each key and value is read once for each
of the HEADS_PER_KEY heads that share it, context · kv_bytes · HEADS_PER_KEY / bandwidth. Positions after the first find
the weights in the cache, so they cost computing only, at the rate of a product of matrices:

    n positions = first + (n - 1) · Σ weights(f) / (matrix_rate(f) · speedup)

The encoder adds what it computes in float32: convolutions, in proportion to positions, and attention, to their square.
The depthformer reads its layers once for each of the 8 codes. Cores share work badly by a little,
speedup(t) = t / (1 + LOSS · (t - 1)). A rate is a share of what the instruction set could do, `*_macs_per_cycle` times
clock, so that shares found on one machine speak for another; that step is an assumption, and no ARM core has been
measured for it. Where there is no dot product (ARMv8.0) a 4-bit product is computed in float32.

Where the constants come from (two cores of a Xeon with AVX-512 VNNI at 2.6 GHz, `benchmarks/results-lfm2.5.json`):
`products` (kernels alone) gave GEMV and LOSS; the float32 steps with one thread SHARE; the prefill of 100 with one
thread, int8 and int4, MATRIX; the int8 encoder with one thread, 4 and 30 s, ENCODER_FLOAT and ENCODER_OVERHEAD. Those
six samples are therefore no test of the model; `benchmarks/prediction.py` marks them, and judges by the others: two
threads, other sizes, other precisions. All are of one machine, and the formulas were chosen with them in view, so even
those say how well the model describes that machine, not how well it foretells another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from voxrill.runtime.graph_names import DECODER, DEPTHFORMER

GEMV = {4: 0.061, 8: 0.0436}
"""Of the int8 peak: one position's product, 20.3e9 and 14.5e9 weights a second of 333e9. The 8-bit
product took 80 % of the bandwidth there with one thread and with two, so its own limit may lie higher."""
GEMV_WIDENED = 0.3
"""The same for 8 bits where there is no dot product, of a peak that is much lower. Assumed."""
MATRIX = {4: 0.315, 8: 1.36}
"""Of the int8 peak: products of many positions. Above 1 for 8 bits: that Xeon has matrix units (AMX)."""
MATRIX_WITHOUT_UNITS = 0.7
"""The same for 8 bits where there are no matrix units. Assumed."""
MATRIX_FLOAT = 0.75
"""Of the float peak. Assumed; torch's float32 prefill of the same shapes reaches about as much."""
FALLBACK = 10.0
"""How many times slower a 4-bit product is than an 8-bit one without dot product; assumed, after trials
under emulation, which shows the code path taken and not its speed on the chip."""
SHARE = 0.87
"""Of the probe's bandwidth: what a step in float32, limited by nothing else, reaches; llama.cpp reaches 0.84 to 0.91 of
a Pi 5's, by public figures (`docs/devices.md`, which also has where these disagree with the rates of `GEMV`)."""
LOSS = 0.09
"""Of a core's work, for each further core: two ran the kernels 1.81 to 1.87 times as fast as one. More is assumed."""
HEADS_PER_KEY = 4
STEP_OVERHEAD = 0.0005
"""Seconds of Python and small operators a call, at REFERENCE_GHZ."""
REFERENCE_GHZ = 2.6
ENCODER_OTHER = 0.052
"""Float products a weight and position, of the encoder's convolutions: 6e6 a position in the 1.5 B model."""
ENCODER_ATTENTION = 2.27e-4
"""Float products a weight and pair of positions: 17 layers, three products 512 wide."""
ENCODER_FLOAT = 0.325
"""Of the float peak, for the encoder's convolutions and attention with all the small operators around them."""
ENCODER_OVERHEAD = 0.010
ENCODER_WEIGHTS = 114.8e6
"""Weights of the encoder that the two encoder figures belong to; other sizes are scaled by the square root, a guess."""

FRAMES = 12.5
"""Frames of sound a second, and positions the encoder makes of a second: both last 80 ms."""
CODEC_POSITIONS = 6
TEXT_FIRST = 6
"""Words' tokens before the first of 12 frames, where text and sound take turns."""
QUESTION = 4.0
PROMPT = 21
"""Positions of the chat's own words around a question, with the published tokenizer."""
CONTEXT = 200


@dataclass(frozen=True)
class Machine:
    """Rates: bytes a second by all cores and by one; cores; GHz; int8 and float products a core and cycle; memory."""

    memory: float
    bandwidth: float
    core_bandwidth: float
    cores: int
    clock_ghz: float
    int8_macs: float
    float_macs: float
    dot_product: bool = True
    matrix_units: bool = False

    def speedup(self, threads: int) -> float:
        """How many times faster so many threads compute than one."""
        return threads / (1 + LOSS * (threads - 1))

    def read(self, threads: int) -> float:
        """Bytes a second that so many threads read, as the probe measures it."""
        return min(self.bandwidth, threads * self.core_bandwidth)

    def rate(self, bits: int, many: bool) -> float:
        """Weights a second of one core: for one position, or (many) weights times positions."""
        peak, floats = 1e9 * self.clock_ghz * self.int8_macs, 1e9 * self.clock_ghz * self.float_macs
        if bits == 32 or (bits == 4 and many and not self.dot_product):
            return MATRIX_FLOAT * floats
        if many:
            return peak * (MATRIX[bits] if bits == 4 or self.matrix_units else MATRIX_WITHOUT_UNITS)
        if self.dot_product:
            return peak * GEMV[bits]
        return peak * GEMV_WIDENED / (FALLBACK if bits == 4 else 1.0)


BYTES = {4: 0.5357, 8: 1.0, 32: 4.0}
"""Of a weight; in 4 bits with a scale for each 128."""
MIXED = {DECODER: 0.628, DEPTHFORMER: 0.733}
"""Bytes of a weight on average where a recipe mixes 4 and 8 bits, from the shapes of the 1.5 B model."""
LAYERS, ONCE = 0.575, 0.288
"""Of the depthformer's weights: those read again for each code, and those read once; the rest are tables."""


@dataclass(frozen=True)
class Part:
    """Weights that one call multiplies, by bits."""

    weights: dict[int, float]

    @property
    def size(self) -> float:
        """Bytes read."""
        return sum(BYTES[bits] * count for bits, count in self.weights.items())

    @property
    def count(self) -> float:
        """Weights of all formats."""
        return sum(self.weights.values())


def part(graph: str, size: float, precision: str) -> Part:
    """A graph's weights, from its bytes and the manifest's word for its precision."""
    bits = {"float32": 32, "int8": 8, "int4": 4}.get(precision)
    if bits:
        return Part({bits: size / BYTES[bits]})
    total = size / MIXED.get(graph, MIXED[DECODER])
    four = (total - size) / (1 - BYTES[4])
    return Part({4: four, 8: total - four})


def frame_part(size: float, precision: str, codes: int = 8) -> Part:
    """What the depthformer multiplies for one frame: its layers once a code, inputs and heads once."""
    if precision in ("float32", "int8"):
        bits = 32 if precision == "float32" else 8
        return Part({bits: size / BYTES[bits] * (codes * LAYERS + ONCE)})
    total = size / MIXED[DEPTHFORMER]
    return Part({4: total * codes * LAYERS, 8: total * ONCE})


@dataclass(frozen=True)
class ModelShape:
    """A model at one precision: its graphs' parts, bytes of keys and values a position, and memory of a conversation.

    context: positions of that conversation, which its steps look back on.
    """

    precision: str
    decoder: Part
    head: Part
    frame: Part
    encoder: Part
    codec: Part
    kv_bytes: float
    memory: float
    prefill: Part | None = None
    context: int = CONTEXT


class StageSeconds:
    """Predicted seconds of each stage of a model on a machine with so many threads."""

    def __init__(self, model: ModelShape, machine: Machine, threads: int) -> None:
        self.model, self.machine, self.threads = model, machine, threads
        self._speedup = machine.speedup(threads)
        self._overhead = STEP_OVERHEAD * REFERENCE_GHZ / machine.clock_ghz

    def _products(self, weights: Part, many: bool) -> float:
        rates = {bits: self.machine.rate(bits, many) for bits in weights.weights}
        return sum(count / rates[bits] for bits, count in weights.weights.items()) / self._speedup

    def first(self, weights: Part) -> float:
        """One position through some weights."""
        read = weights.size / (self.machine.read(self.threads) * SHARE)
        return max(read, self._products(weights, many=False))

    def positions(self, weights: Part, count: float) -> float:
        """Many positions through some weights at once."""
        return self.first(weights) + (count - 1) * self._products(weights, many=True)

    def step(self, context: int | None = None, head: bool = False) -> float:
        """One step after so many positions; without them, those of the model's conversation."""
        context = self.model.context if context is None else context
        attention = context * self.model.kv_bytes * HEADS_PER_KEY / self.machine.read(self.threads)
        logits = self.first(self.model.head) if head else 0.0
        return self.first(self.model.decoder) + logits + attention + self._overhead

    def prefill(self, positions: float) -> float:
        """A prompt, and the text logits after it."""
        decoder = self.model.prefill or self.model.decoder
        return self.positions(decoder, positions) + self.first(self.model.head) + self._overhead

    def encoder(self, seconds: float) -> float:
        """Log-mel and encoder of so many seconds."""
        count, weights = FRAMES * seconds, self.model.encoder
        floats = weights.count * (ENCODER_OTHER * count + ENCODER_ATTENTION * count**2)
        machine = self.machine
        other = floats / (ENCODER_FLOAT * 1e9 * machine.clock_ghz * machine.float_macs * self._speedup)
        size = math.sqrt(weights.count / ENCODER_WEIGHTS)
        overhead = ENCODER_OVERHEAD * size * REFERENCE_GHZ / machine.clock_ghz
        return self.positions(weights, count) + other + overhead

    def frame(self) -> float:
        """The depthformer, one frame."""
        return self.first(self.model.frame) + self._overhead

    def codec(self) -> float:
        """The codec, one frame."""
        return self.positions(self.model.codec, CODEC_POSITIONS) + self._overhead

    def sound(self) -> float:
        """All that one frame of sound takes."""
        return self.step() + self.frame() + self.codec()

    def first_audio(self, prompt: int = PROMPT, question: float = QUESTION) -> float:
        """From the end of a spoken question to the first sound of the answer."""
        prefill = self.prefill(prompt + FRAMES * question)
        return self.encoder(question) + prefill + TEXT_FIRST * self.step(head=True) + self.sound()

    def speech(self) -> float:
        """Seconds of work for a second of sound, where 6 tokens of text and 12 frames take turns."""
        return FRAMES * self.sound() + FRAMES * TEXT_FIRST / 12 * self.step(head=True)
