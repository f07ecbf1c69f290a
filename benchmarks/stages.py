"""Every stage of a talk with bundles of any family, side by side: those of docs/models/lfm3-audio.md.

In: bundles. Out: a table with a column for each, wall time and processor time in ms. Each bundle is measured in a
process of its own, all of them in turn, as often as `--rounds` says; the medians of all calls count. A family whose
encoder works while the user speaks has more stages: a piece of 80 ms, an answer to a question that was heard while it
was spoken, live recognition.

    python -m benchmarks.stages BUNDLE BUNDLE --threads 2 --rounds 2
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.ours import Ours
from benchmarks.protocol import Unsupported, timed
from benchmarks.report import table
from tests.signals import speech_like
from voxrill.runtime.apps.live_recognition import LiveRecogniser
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.events import AudioEvent, TextEvent
from voxrill.runtime.talk.answer import TalkAnswer

CONTEXT, QUESTION, RATE, BLOCK = 200, 4.0, 16_000, 512
PIECE, CHUNK = 1280, 15_360
"""Samples of 80 ms, and of a chunk of live recognition."""

Times = list[tuple[float, float]]
"""Seconds of each call: of the clock and of the processor."""


class Draws:
    """Stands in for a sampler: any token some times, and then the one that ends a chunk."""

    def __init__(self, count: int, end: int) -> None:
        self._count, self._end, self._drawn = count, end, 0

    def token(self, logits: Any, _sampling: Any, _banned: Any) -> int:
        """The next token."""
        logits.argmax()
        self._drawn = (self._drawn + 1) % self._count
        return 100 + self._drawn if self._drawn else self._end


class BundleStages(Ours):
    """One loaded bundle, and what `Ours` does not measure."""

    def positions(self, count: int) -> Callable[[], object]:
        """Several positions at once, after a conversation."""
        backbone, state = self._parts.backbone, self._grown(CONTEXT)
        mark, rows = state.mark(), self._parts.embed_tokens(self._tokens(count))

        def run() -> None:
            state.rewind(mark)
            backbone.forward(rows, state)

        return run

    def piece(self) -> Callable[[], object]:
        """The encoder's next 80 ms."""
        stream, piece = self._parts.encoder.stream(rows=1), speech_like(PIECE, 1)
        return lambda: list(stream.push(piece))

    def frame_graph(self) -> Callable[[], object]:
        """The graph of a frame's codes, with the inputs of one that was drawn."""
        self.frame()()
        return self._parts.depthformer._binding.run

    def heard(self, calls: int) -> dict[str, Times]:
        """Questions that are heard while they are spoken: the work meanwhile, and after their end."""
        sound, found = speech_like(int(RATE * QUESTION), 1), dict[str, Times]()
        for _ in range(calls):
            conversation = self._model.conversation()
            while conversation.prepare():
                pass
            spoken = timed(lambda talk=conversation: _hear(talk, sound))  # type: ignore[misc]
            cores = os.cpu_count() or 1
            found.setdefault("work while 1 s is spoken, of all cores", []).append(
                (spoken[0] / QUESTION, spoken[1] / QUESTION / cores)
            )
            answer = TalkAnswer(conversation, sound, None, 0)
            started = time.perf_counter(), time.process_time()
            for kind, name in ((TextEvent, "first text"), (AudioEvent, "first sound")):
                while not isinstance(answer.step(), kind):
                    pass
                took = time.perf_counter() - started[0], time.process_time() - started[1]
                found.setdefault(f"{name} after a question heard while it was spoken", []).append(took)
        return found

    def live(self, tokens: int, chunks: int) -> Times:
        """Chunks of live recognition in which so many tokens are drawn, the one that ends them included."""
        task = self._model.manifest.tasks.live
        assert task is not None, "a model that hears as sound comes has a task for it"
        recogniser, took = LiveRecogniser(self._model, task), list[tuple[float, float]]()
        (end,) = self._parts.tokenizer.special([task.end])
        recogniser._sampler = Draws(tokens, end)  # type: ignore[assignment]

        def pieces() -> Iterator[Any]:
            for number in range(chunks):
                started = time.perf_counter(), time.process_time()
                yield speech_like(CHUNK, number)
                took.append((time.perf_counter() - started[0], time.process_time() - started[1]))

        for _ in recogniser.stream(pieces()):
            pass
        return took[2:]

    def all(self, calls: int) -> dict[str, Times]:
        """Every stage."""
        self.settle()
        few = max(3, calls // 6)
        stages: dict[str, Callable[[], Times]] = {
            "decode step, 200 positions before": lambda: repeated(self.decode(CONTEXT, False), calls),
            "the same with text logits": lambda: repeated(self.decode(CONTEXT, True), calls),
            "two positions": lambda: repeated(self.positions(2), calls),
            "nine positions": lambda: repeated(self.positions(9), calls),
            "a frame's codes": lambda: repeated(self.frame(), calls),
            "its graph alone": lambda: repeated(self.frame_graph(), calls),
            "codec, one frame": lambda: repeated(self.codec(), calls),
            "encoder: 4 s at once": lambda: repeated(self.encoder(QUESTION), few),
            "first sound after a question of 4 s, heard at its end": lambda: repeated(self.first_audio(QUESTION), 3),
            "interleaved speech, for 1 s of sound": lambda: self._speech(few),
        }
        if self._parts.encoder.streams:
            stages |= {
                "encoder: a piece of 80 ms": lambda: repeated(self.piece(), calls),
                "a chunk of live recognition, 1 token drawn": lambda: self.live(1, few + 2),
                "a chunk of live recognition, 4 tokens drawn": lambda: self.live(4, few + 2),
            }
        found = dict[str, Times]()
        for name, measure in stages.items():
            with suppress(Unsupported, StopIteration):  # a small model's answer ends too early
                found[name] = measure()
        if self._parts.encoder.streams:
            with suppress(StopIteration):
                found |= self.heard(few)
        return found

    def _speech(self, rounds: int) -> Times:
        """Rounds of interleaved speech, after the first; only where each has as many frames as the pattern says."""
        pattern, took = self._parts.spec.interleave, list[tuple[float, float]]()
        events = self._model.chat(
            audio=speech_like(int(RATE * QUESTION), 1), sample_rate=RATE, max_new_tokens=2000, seed=0
        )
        for _ in range(rounds + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            round_of = [next(events) for _ in range(pattern.text + pattern.audio)]
            frames = [event for event in round_of if isinstance(event, AudioEvent)]
            if len(frames) != pattern.audio:
                raise Unsupported("this model's answer ended before enough was measured")
            seconds = sum(len(event.samples) / event.sample_rate for event in frames)
            took.append(((time.perf_counter() - wall) / seconds, (time.process_time() - cpu) / seconds))
        return took[1:]


def _hear(conversation: Conversation, sound: Any) -> None:
    for start in range(0, len(sound), BLOCK):
        conversation.hear(sound[start : start + BLOCK])


def repeated(call: Callable[[], object], calls: int) -> Times:
    """Several calls, after two that warm up."""
    return [timed(call) for _ in range(calls + 2)][2:]


def measured(bundle: Path, threads: int, calls: int) -> tuple[dict[str, Times], float]:
    """The stages of a bundle, and the most memory of this process in GB."""
    found = BundleStages(bundle, threads).all(calls)
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    found: list[dict[str, Times]] = [{} for _ in args.bundles]
    memory = [0.0 for _ in args.bundles]
    for _ in range(args.rounds):
        for place, bundle in enumerate(args.bundles):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                stages, used = pool.submit(measured, bundle, args.threads, args.calls).result()
            memory[place] = max(memory[place], used)
            for name, times in stages.items():
                found[place].setdefault(name, []).extend(times)
    names = list(dict.fromkeys(name for stages in found for name in stages))
    rows = [[name, *(_cell(stages.get(name)) for stages in found)] for name in names]
    rows.append(["memory, GB", *(f"{used:.2f}" for used in memory)])
    print(table(f"medians, ms (processor), {args.threads} threads", ["", *(str(one) for one in args.bundles)], rows))


def _cell(times: Times | None) -> str:
    if times is None:
        return ""
    wall, cpu = (1000 * median(one[part] for one in times) for part in (0, 1))
    return f"{wall:.3g} ({cpu:.3g})"


if __name__ == "__main__":
    main()
