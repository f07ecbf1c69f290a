"""A Voxrill bundle as a contender.

In: a bundle folder and a number of threads. Out: the runtime's own objects, stage by stage. A conversation calls the
same code. Run by the benchmark as `python -m benchmarks.ours BUNDLE --threads N`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import voxrill
from benchmarks.protocol import Call, Contender, Json, Unsupported, serve
from tests.signals import speech_like
from voxrill.runtime.bundle.tuned import NotTuned
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.engine.state import FIRST_CAPACITY, BackboneState, Mark
from voxrill.runtime.graph_names import DECODER, TEXT_HEAD

PREFILLED = 200
"""Positions of a long context that are computed. The rest are zeros; see `Ours._grown`."""
CODEC_WARM_FRAMES = 50
"""Frames before the first timed one. Then the detokenizer's window (5 frames) and Mimi's conv states are full."""
SPOKEN_CONTEXT = 100
"""Positions before a step of speech: a prompt with a question of 4 s."""
LONGEST_ANSWER = 4000
ROOM = 32
"""Most steps of one request."""


class Ours(Contender):
    """One loaded bundle."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._bundle = bundle
        self._model = voxrill.load(bundle, threads=threads)
        self._parts = self._model.parts
        self._random = np.random.default_rng(0)
        self._context: tuple[int, BackboneState, Mark] | None = None
        self._stream = self._model.codec.stream()
        self._streamed = False

    def facts(self) -> Json:
        """Bytes of the bundle, with its tuned form, and of each graph with its weights."""
        manifest = self._model.manifest
        graphs = {name: manifest.graph_size(name) for name in manifest.graphs}
        step = graphs[DECODER]
        return {
            "bytes": sum(file.stat().st_size for file in self._bundle.rglob("*") if file.is_file())
            + self._model.tuned.size,
            "graphs": graphs,
            "read_per_step": {"step": step, "step_with_head": step + graphs[TEXT_HEAD]},
            "tuned": sorted(self._model.tuned.graphs),
            "precision": {name: graph.precision for name, graph in manifest.graphs.items()},
            "tools": manifest.tools,
            "codec": manifest.model.codec.graph,
        }

    def settle(self) -> None:
        """Wait until the weights lie on huge pages."""
        self._model.huge_pages.wait()

    def decode(self, context: int, head: bool) -> Call:
        """One position after `context` of them, with or without text logits."""
        backbone, state = self._parts.backbone, self._grown(context)
        token = self._tokens(1)

        def step() -> None:
            hidden = backbone.forward(self._parts.embed_tokens(token), state)[-1]
            if head:
                backbone.logits(hidden)

        return step

    def prefill(self, positions: int) -> Call:
        """A prompt of `positions` positions, and the logits after it."""
        backbone, rows = self._parts.backbone, self._parts.embed_tokens(self._tokens(positions))

        def run() -> None:
            backbone.logits(backbone.forward(rows, backbone.new_state())[-1])

        return run

    def frame(self) -> Call:
        """The depthformer: 8 codes, 80 ms of sound."""
        hidden = self._random.standard_normal(self._parts.spec.backbone.hidden_size).astype(np.float32)
        sampling, sampler = self._model.manifest.tasks.chat.audio, Sampler(0)

        def run() -> None:
            self._parts.depthformer.frame(hidden, sampling, sampler)

        return run

    def spoken_step(self) -> Call:
        """One position of speech: backbone and depthformer."""
        step, frame = self.decode(SPOKEN_CONTEXT, head=False), self.frame()

        def run() -> None:
            step()
            frame()

        return run

    def first_text(self, seconds: float) -> Call:
        """From the end of a spoken question to the first token of the answer, without any earlier work."""

        def run() -> None:
            next(self._answer(seconds, voxrill.TextEvent))

        return run

    def encoder(self, seconds: float) -> Call:
        """Log-mel and encoder for `seconds` of sound."""
        waveform = speech_like(int(16_000 * seconds), 1)

        def run() -> None:
            self._parts.encoder.encode(waveform)

        return run

    def codec(self) -> Call:
        """The next frame of a sound that began earlier."""
        spec = self._parts.spec.codes

        def frames(count: int) -> None:
            self._stream.push(self._random.integers(0, spec.end_of_audio, (spec.codebooks, count)))

        if not self._streamed:
            frames(CODEC_WARM_FRAMES)
            self._streamed = True
        return lambda: frames(1)

    def first_audio(self, seconds: float) -> Call:
        """From the end of a spoken question to the first sound of the answer, without any earlier work."""

        def run() -> None:
            next(self._answer(seconds, voxrill.AudioEvent))

        return run

    def speech(self, seconds: float) -> Call:
        """One round of interleaved speech (6 text tokens, 12 frames): time per second of sound."""
        pattern = self._parts.spec.interleave
        texts = self._answer(seconds, voxrill.TextEvent)
        frame_seconds = self._model.codec.spec.frame_samples / self._model.sample_rate

        def cycle() -> float:
            for _ in range(pattern.text):
                next(texts)
            return pattern.audio * frame_seconds

        cycle()  # the question's prefill, and the first call of every graph
        return cycle

    def _answer(self, seconds: float, kind: type) -> Iterator[voxrill.Event]:
        """The events of one kind of a spoken answer."""
        waveform = speech_like(int(16_000 * seconds), 1)
        for event in self._model.chat(audio=waveform, sample_rate=16_000, max_new_tokens=LONGEST_ANSWER, seed=0):
            if isinstance(event, kind):
                yield event
        raise Unsupported("this model's answer ended before enough was measured")

    def _tokens(self, count: int) -> list[int]:
        return [int(i) for i in self._random.integers(0, self._parts.spec.backbone.vocab_size, count)]

    def _grown(self, context: int) -> BackboneState:
        """A state of `context` positions, the same one every time.

        After the first few hundred, keys and values are zeros: a step costs the same with any content, and a prompt of
        16,384 positions would take minutes. A state can be set to a mark, so it can also be set to a made-up one. The
        copy into new buffers touches all of the memory, as the real computation would.
        """
        if self._context is None or self._context[0] != context:
            backbone, state = self._parts.backbone, self._parts.backbone.new_state()
            self._context = None
            backbone.forward(self._parts.embed_tokens(self._tokens(min(context - 1, PREFILLED))), state)
            # Buffers double when they are full, so one real step at the end of each makes them grow to the context.
            reach = FIRST_CAPACITY
            while state.length < context - 1:
                state.rewind(replace(state.mark(), length=min(context - 1, reach)))
                if state.length < context - 1:
                    backbone.forward(self._parts.embed_tokens([0]), state)
                reach *= 2
            content = state.content()
            state.offload()
            state.reload(content)
            backbone.forward(self._parts.embed_tokens([0]), state)
            self._context = (context, state, state.mark())
            # The buffers grow now, and not during the measurement.
            backbone.forward(self._parts.embed_tokens([0] * ROOM), state)
        _, state, mark = self._context
        state.rewind(mark)
        return state


def main() -> None:
    """Serve one bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    warnings.simplefilter("error", NotTuned)  # otherwise the plain form would be measured under the tuned form's name
    serve(lambda: Ours(args.model, args.threads))


if __name__ == "__main__":
    main()
