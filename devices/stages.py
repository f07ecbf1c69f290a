"""How long every stage takes, predicted from a model's bytes and a machine's rates. Numbers go in and come out.

A stage that sees one position (a step, a frame) reads every weight once and multiplies it once. Reading and computing
overlap, so the slower of the two decides. Work that cores cannot share is added:

    first = max(bytes / (bandwidth · SHARE), Σ weights(f) / (rate(f) · speedup)) + overhead

f is a format of weights: 4 bits, 8 bits, float32. A step adds its attention: each key and value is read once for each
of the HEADS_PER_KEY heads that share it, context · kv_bytes · HEADS_PER_KEY / bandwidth. An int8 cache has a quarter of
the bytes, but its integers become floats on the way (INT8_KEYS). Positions after the first find the weights in the
processor's cache, so they cost computing only, at the rate of a product of matrices:

    n positions = first + (n - 1) · Σ weights(f) / (matrix_rate(f) · speedup)

The encoder also computes in float32: convolutions, in proportion to the positions, and attention, in proportion to
their square. The depthformer reads its layers once for each of the 8 codes; LFM3-Audio's depth decoder once for each of
its three passes, for several rows at once. Cores lose a little when they share work:
speedup(t) = t / (1 + LOSS · (t - 1)). A rate is a share of what the instruction set could do (`*_macs_per_cycle` times
clock). Shares that were found on one machine are used for all others. That is an assumption: no ARM core was measured.
Without a dot product (ARMv8.0) a 4-bit product is computed in float32.

Where the constants come from (measured on two cores of a Xeon with AVX-512 VNNI at 2.6 GHz,
`benchmarks/results-lfm2.5.json`):

- GEMV and LOSS: `products`, the kernels alone.
- SHARE: the float32 steps with one thread.
- MATRIX: prefill of 100 positions with one thread, in int8 and int4.
- ENCODER_FLOAT and ENCODER_OVERHEAD: the int8 encoder with one thread, 4 and 30 s.

These six samples are no test of the model, because it was fitted to them. `benchmarks/prediction.py` marks them and
judges by the others: two threads, other sizes, other precisions. All samples are of one machine, and the formulas were
chosen with them in view. So they show how well the model describes that machine, and not how well it predicts another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from voxrill.runtime.graph_names import DECODER, DEPTH_DECODER, DEPTHFORMER

GEMV = {4: 0.061, 8: 0.0436}
"""Share of the int8 peak that a product of one position reaches: 20.3e9 and 14.5e9 weights a second of 333e9. The 8-bit
product used 80 % of the bandwidth with one thread and with two, so its own limit may be higher."""
GEMV_WIDENED = 0.3
"""The same for 8 bits without a dot product, where the peak is much lower. Assumed."""
MATRIX = {4: 0.315, 8: 1.36}
"""Share of the int8 peak that products of many positions reach. 8 bits are above 1: that Xeon has matrix units
(AMX)."""
MATRIX_WITHOUT_UNITS = 0.7
"""The same for 8 bits without matrix units. Assumed."""
MATRIX_FLOAT = 0.75
"""Share of the float peak. Assumed; torch's float32 prefill of the same shapes reaches about as much."""
FALLBACK = 10.0
"""How many times slower a 4-bit product is than an 8-bit one without a dot product. Assumed, after trials under
emulation, which shows which code runs and not how fast it runs on the chip."""
SHARE = 0.87
"""Share of the probe's bandwidth that a float32 step reaches, which nothing else limits. By public figures llama.cpp
reaches 0.84 to 0.91 of a Pi 5's (`docs/deploy/devices.md`, which also shows where such figures and `GEMV` disagree)."""
LOSS = 0.09
"""Share of its work that each further core loses: two cores ran the kernels 1.81 to 1.87 times as fast as one. For more
than two it is assumed."""
HEADS_PER_KEY = 4
INT8_KEYS = 2.5
"""How many times longer a byte of an int8 KV cache takes than one of a float32 cache. The attention of a step read a
quarter of the bytes, and took 0.60 to 0.64 of the time (1k to 32k positions, EPYC with AVX-512 VNNI, one thread)."""
STEP_OVERHEAD = 0.0005
"""Seconds that Python and small operators take in each call, at REFERENCE_GHZ."""
REFERENCE_GHZ = 2.6
ENCODER_OTHER = 0.052
"""Float products of the encoder's convolutions for each weight and position: 6e6 a position in the 1.5 B model."""
ENCODER_ATTENTION = 2.27e-4
"""Float products of attention for each weight and pair of positions: 17 layers, three products 512 wide."""
ENCODER_FLOAT = 0.325
"""Share of the float peak that the encoder's convolutions and attention reach, with the small operators around them."""
ENCODER_OVERHEAD = 0.010
ENCODER_WEIGHTS = 114.8e6
"""Weights of the encoder that the two figures above belong to. Other sizes are scaled by the square root, a guess."""

FRAMES = 12.5
"""Frames of sound in a second, and positions that the encoder makes of a second: both last 80 ms."""
CODEC_POSITIONS = 6
TEXT_FIRST = 6
"""Text tokens before the first of 12 frames, where text and sound take turns."""
QUESTION = 4.0
PROMPT = 21
"""Positions of the chat template around a question, with the published tokenizer."""
CONTEXT = 200
LEFT = 10
"""Positions of a question that are left at its end, where it was taken in while it was spoken: two of its sound, and
the marks between it and the answer."""


@dataclass(frozen=True)
class Machine:
    """Rates: bytes a second by all cores and by one; cores; GHz; int8 and float products a core and cycle; memory.

    own: products a core and cycle that our own kernels reach, by bits: with one position, and with many.
    """

    memory: float
    bandwidth: float
    core_bandwidth: float
    cores: int
    clock_ghz: float
    int8_macs: float
    float_macs: float
    dot_product: bool = True
    matrix_units: bool = False
    own: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def speedup(self, threads: int) -> float:
        """How many times faster `threads` threads compute than one."""
        return threads / (1 + LOSS * (threads - 1))

    def read(self, threads: int) -> float:
        """Bytes a second that `threads` threads read, as the probe measures it."""
        return min(self.bandwidth, threads * self.core_bandwidth)

    def rate(self, bits: int, many: bool) -> float:
        """Weights a second that one core multiplies by one position; with `many`, weights times positions a second."""
        if bits in self.own:
            return 1e9 * self.clock_ghz * self.own[bits][many]
        bits = max(bits, 4)  # without our own products, weights of fewer bits run as those of 4
        peak, floats = 1e9 * self.clock_ghz * self.int8_macs, 1e9 * self.clock_ghz * self.float_macs
        if bits == 32 or (bits == 4 and many and not self.dot_product):
            return MATRIX_FLOAT * floats
        if many:
            return peak * (MATRIX[bits] if bits == 4 or self.matrix_units else MATRIX_WITHOUT_UNITS)
        if self.dot_product:
            return peak * GEMV[bits]
        return peak * GEMV_WIDENED / (FALLBACK if bits == 4 else 1.0)


BYTES = {2: 0.2734, 3: 0.3984, 4: 0.5357, 8: 1.0, 32: 4.0}
"""Bytes of a weight by its bits; fewer than 8 bits have a scale for every 128 weights. 2 and 3 bits are those of our
own kernels: 2.19 and 3.19 bits with scales and zero points."""
MIXED: dict[tuple[str, tuple[int, ...]], float] = {
    (DECODER, (4, 8)): 0.628,
    (DECODER, (3, 4)): 0.4286,
    (DECODER, (2, 3)): 0.3391,
    (DEPTHFORMER, (4, 8)): 0.733,
    (DEPTHFORMER, (3, 8)): 0.6676,
    (DEPTH_DECODER, (4, 8)): 0.855,
    (DEPTH_DECODER, (3, 8)): 0.8196,
}
"""Bytes of a weight on average where a recipe mixes two widths, from the shapes of the 1.5 B model and of LFM3-Audio's
depth decoder: `mixed` and `int4`, `small`, `smallest`. Of any other mix, each width has as many weights."""
LAYERS, ONCE = 0.575, 0.288
"""Shares of the depthformer's weights that are read again for each code, and once; the rest are tables."""
PASSES = 3
"""Passes of a depth decoder that draws several codes at once."""
PASS_LAYERS, FRAME_ONCE = 0.312, 0.46
"""Shares of its weights that each pass reads (the layers), and that are read once a frame: the inputs, and each head in
the pass that draws its code. The rest is a table. From the shapes of LFM3-Audio-2B: 33.9, 25.2 + 24.8, and 24.8 of
108.7 million numbers."""
MORE_ROWS = 8.5
"""Rows after the first that a layer multiplies in a pass, on average: all 12 codebooks go through two layers and the
keys and values of the third, and the four that are drawn through the rest of it."""


@dataclass(frozen=True)
class Part:
    """How many weights of each format (2, 3, 4, 8 or 32 bits) one call multiplies."""

    weights: dict[int, float]

    @property
    def size(self) -> float:
        """Bytes read."""
        return sum(BYTES[bits] * count for bits, count in self.weights.items())

    @property
    def count(self) -> float:
        """Weights of all formats."""
        return sum(self.weights.values())

    def widened(self) -> Part:
        """The same weights where there is no product of 3 bits: onnxruntime multiplies by them as weights of 4."""
        weights = {bits: count for bits, count in self.weights.items() if bits != 3}
        if 3 in self.weights:
            weights[4] = weights.get(4, 0.0) + self.weights[3]
        return Part(weights)


_WIDTHS = {"float32": (32,), "int8": (8,), "a16w8": (8,), "int4": (4,), "int3": (3,), "int2": (2,)}


def widths_of(precision: str, products: Iterable[str] = ()) -> tuple[int, ...]:
    """The bits that a graph's weights have, fewest first, from its entry in the manifest.

    Args:
        precision: one word.
        products: such as "MatMulNBits 3". Where an older mixed graph names none, it has 4 and 8 bits.
    """
    if precision in _WIDTHS:
        return _WIDTHS[precision]
    named = {int(bits) for bits in (product.rsplit(" ", 1)[-1] for product in products) if bits.isdecimal()}
    return tuple(sorted(named & set(BYTES))) or (4, 8)


def part(graph: str, size: float, widths: tuple[int, ...]) -> Part:
    """A graph's weights, from its bytes and the bits that they have."""
    if (graph, widths) not in MIXED:
        each = size / sum(BYTES[bits] for bits in widths)
        return Part(dict.fromkeys(widths, each))
    # x weights of the fewer bits and total - x of the others: x * BYTES[low] + (total - x) * BYTES[high] == size.
    low, high = widths
    total = size / MIXED[graph, widths]
    fewer = (total * BYTES[high] - size) / (BYTES[high] - BYTES[low])
    return Part({low: fewer, high: total - fewer})


def frame_part(size: float, widths: tuple[int, ...], codes: int = 8) -> Part:
    """What the depthformer multiplies for one frame: its layers once for each code, inputs and heads once."""
    return _layers_and_rest(part(DEPTHFORMER, size, widths).count, widths, codes * LAYERS, ONCE)


def passes_part(size: float, widths: tuple[int, ...]) -> Part:
    """What a depth decoder of several passes reads for one frame: its layers in each pass, inputs and heads once."""
    return _layers_and_rest(part(DEPTH_DECODER, size, widths).count, widths, PASSES * PASS_LAYERS, FRAME_ONCE)


def _layers_and_rest(total: float, widths: tuple[int, ...], layers: float, rest: float) -> Part:
    """Shares of `total` weights: recipes give the layers the fewer bits."""
    if len(widths) == 1:
        return Part({widths[0]: total * (layers + rest)})
    return Part({widths[0]: total * layers, widths[-1]: total * rest})


def passes_rows(size: float, widths: tuple[int, ...]) -> Part:
    """What its layers multiply beyond the first row, in all passes of a frame."""
    return Part({widths[0]: part(DEPTH_DECODER, size, widths).count * PASSES * PASS_LAYERS * MORE_ROWS})


@dataclass(frozen=True)
class ModelShape:
    """A model at one precision: the parts of its graphs, bytes of keys and values for each position, and memory.

    memory: bytes of a conversation of `context` positions; each step reads the keys and values of all of them, which
    are float32 or int8 (`kv_cache`). hears: it takes a question in while it is spoken. frame_rows: what a frame
    multiplies beyond the first row of each product.
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
    kv_cache: str = "float32"
    hears: bool = False
    frame_rows: Part = Part({})

    def on(self, machine: Machine) -> ModelShape:
        """The model as a machine holds it: weights of 3 bits become 4 without our own products."""
        if machine.own:
            return self
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        wider: dict[str, Any] = {name: found.widened() for name, found in parts.items() if isinstance(found, Part)}
        more = sum(whole.size - parts[name].size for name, whole in wider.items() if name != "frame")  # 9 MB at most
        return replace(self, memory=self.memory + more, **wider)


class StageSeconds:
    """Predicted seconds of each stage of a model on a machine with `threads` threads."""

    def __init__(self, model: ModelShape, machine: Machine, threads: int) -> None:
        self.model, self.machine, self.threads = model.on(machine), machine, threads
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
        """One step after `context` positions; without it, after those of the model's conversation."""
        context = self.model.context if context is None else context
        read = self.model.kv_bytes * HEADS_PER_KEY * (INT8_KEYS if self.model.kv_cache == "int8" else 1)
        attention = context * read / self.machine.read(self.threads)
        logits = self.first(self.model.head) if head else 0.0
        return self.first(self.model.decoder) + logits + attention + self._overhead

    def prefill(self, positions: float) -> float:
        """A prompt, and the text logits after it."""
        decoder = self.model.prefill or self.model.decoder
        return self.positions(decoder, positions) + self.first(self.model.head) + self._overhead

    def encoder(self, seconds: float) -> float:
        """Log-mel and encoder of `seconds` of sound."""
        count, weights = FRAMES * seconds, self.model.encoder
        floats = weights.count * (ENCODER_OTHER * count + ENCODER_ATTENTION * count**2)
        machine = self.machine
        other = floats / (ENCODER_FLOAT * 1e9 * machine.clock_ghz * machine.float_macs * self._speedup)
        size = math.sqrt(weights.count / ENCODER_WEIGHTS)
        overhead = ENCODER_OVERHEAD * size * REFERENCE_GHZ / machine.clock_ghz
        return self.positions(weights, count) + other + overhead

    def frame(self) -> float:
        """The depthformer or depth decoder, one frame."""
        return self.first(self.model.frame) + self._products(self.model.frame_rows, many=True) + self._overhead

    def codec(self) -> float:
        """The codec, one frame."""
        return self.positions(self.model.codec, CODEC_POSITIONS) + self._overhead

    def sound(self) -> float:
        """One frame of sound: step, depthformer and codec."""
        return self.step() + self.frame() + self.codec()

    def first_audio(self, prompt: int = PROMPT, question: float = QUESTION) -> float:
        """From the end of a spoken question to the first sound of the answer."""
        if self.model.hears:
            return self.encoder(1 / FRAMES) + self.prefill(LEFT) + TEXT_FIRST * self.step(head=True) + self.sound()
        prefill = self.prefill(prompt + FRAMES * question)
        return self.encoder(question) + prefill + TEXT_FIRST * self.step(head=True) + self.sound()

    def speech(self) -> float:
        """Seconds of work for a second of sound, where 6 tokens of text and 12 frames take turns."""
        return FRAMES * self.sound() + FRAMES * TEXT_FIRST / 12 * self.step(head=True)
