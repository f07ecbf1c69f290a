"""Segments: their errors, how soon text shows, whether memory grows: `python -m benchmarks.transcription [PART ...]`.

In: Pebble, and spoken commands in random order with pauses of 0.6 to 3 s between them. Out: figures as JSON lines.

Parts: `words` takes the held-out clips of tests/pebble, in segments and each clip by itself. `evaluated` does the same
with the clips of Pebble's evaluation, which espeak-ng, flite and festival must make first. `latency` has a microphone
that gives a block every 32 ms. `memory` transcribes three hours of sound as fast as it can.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jiwer
import numpy as np
import psutil

import voxrill
from benchmarks.talk.measuring import voiced
from voxrill.runtime.apps.evaluation.figures import percentile
from voxrill.runtime.apps.live_sound import LiveSound
from voxrill.runtime.apps.transcription import ModelRecogniser, Transcriber, Words
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, Block, Floats

ROOT = Path(__file__).parent.parent
CLIPS = ROOT / "tests" / "pebble"

PAUSES = (0.6, 3.0)
"""Seconds between two clips."""

NOISE = 10 ** (-80 / 20)
"""Level of the noise in pauses, the same as in the clips."""

SLACK = 0.3
"""Seconds by which the end of an event and of a phrase may differ."""

FIRST = 300.0
"""Seconds after which memory is first read."""

Clip = tuple[str, Floats]
"""Its words, and (n,) samples at 16 kHz."""

Figures = dict[str, Any]


def held_out() -> list[Clip]:
    """The clips of tests/pebble that are words of Pebble's world."""
    found = json.loads((CLIPS / "held_out.json").read_text(encoding="utf-8"))
    return [(one["words"], read_audio(CLIPS / one["file"])) for one in found if one["words"] and one["kind"] != "typed"]


def evaluated() -> list[Clip]:
    """The 610 clips with words of Pebble's evaluation, in a quiet room. They are made if they are not there."""
    sys.path.insert(0, str(ROOT / "pebble"))
    from augment import quiet_room
    from data import evaluation_jobs
    from synthesise import make_clips
    from world import SENTENCES

    known = {sentence.command for sentence in SENTENCES}
    jobs = (job for job in evaluation_jobs() if job.text in known)
    made = make_clips(jobs, ROOT / "build" / "pebble" / "transcription.npz", "synthesising")
    chance = np.random.default_rng(0)
    return [(text, quiet_room(made.waveform(number), chance)) for number, text in enumerate(made.texts)]


def meeting(chance: np.random.Generator, found: list[Clip]) -> Iterator[Clip]:
    """The clips in random order, each after a pause, and a pause at the end."""
    for number in chance.permutation(len(found)):
        text, samples = found[number]
        yield text, np.concatenate([_pause(chance), samples])
    yield "", _pause(chance)


def _pause(chance: np.random.Generator) -> Floats:
    count = round(chance.uniform(*PAUSES) * SAMPLE_RATE)
    return (NOISE * chance.standard_normal(count)).astype(np.float32)


def words(found: list[Clip], meetings: int) -> Figures:
    """Word error rates, in segments and whole."""
    model = voxrill.load(threads=1)
    whole = _errors(
        " ".join(text for text, _ in found),
        " ".join(model.transcribe(samples, sample_rate=SAMPLE_RATE, trim=False).text for _, samples in found),
    )
    segmented = count = 0
    for seed in range(meetings):
        parts = list(meeting(np.random.default_rng(seed), found))
        events = list(
            model.transcribe_stream((samples for _, samples in parts), sample_rate=SAMPLE_RATE, tentative=False)
        )
        segmented += _errors(" ".join(text for text, _ in parts), " ".join(event.text for event in events))
        count += sum(len(text.split()) for text, _ in parts)
    return {
        "clips": len(found),
        "meetings": meetings,
        "words": count,
        "wer_whole_percent": 100 * whole * meetings / count,
        "wer_segmented_percent": 100 * segmented / count,
    }


def _errors(said: str, heard: str) -> int:
    found = jiwer.process_words(" ".join(said.split()), " ".join(heard.split()))
    return found.substitutions + found.deletions + found.insertions


class RealTime:
    """A microphone that hears samples (n,), a block every 32 ms, and knows when each block was captured."""

    def __init__(self, samples: Floats) -> None:
        self._blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
        self.captured: list[float] = []
        self.over: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def read(self, timeout: float, size: int = BLOCK) -> Block | None:
        """The next block, when it is over."""
        number = len(self.captured)
        if number == len(self._blocks):
            self.over()
            return None
        time.sleep(max(0.0, self._began + (number + 1) * BLOCK_SECONDS - time.perf_counter()))
        self.captured.append(time.perf_counter())
        return Block(self._blocks[number], number * BLOCK, self.captured[-1])


def latency(found: list[Clip]) -> Figures:
    """Milliseconds from the capture of each phrase's last voiced sample until its text shows, and until it is stable.

    The text shows with the first event after which it does not change any more. That may be before the phrase's last
    sound. computed: the model's time for a piece of sound; it shows how busy the machine was.
    """
    parts = list(meeting(np.random.default_rng(0), found))
    microphone = RealTime(np.concatenate([samples for _, samples in parts]))
    events: list[tuple[float, voxrill.TranscriptEvent]] = []
    ears, computed = ModelRecogniser(voxrill.load(threads=1)), []

    def timed(samples: Floats) -> Words:
        began = time.perf_counter()
        words = ears(samples)
        computed.append(time.perf_counter() - began)
        return words

    transcriber = Transcriber(timed)
    with LiveSound(microphone) as sound:
        microphone.over = sound.close
        events.extend((time.perf_counter(), event) for event in transcriber.stream(sound, sound.hurry))
    waits = [_waits(events, end, microphone.captured[end // BLOCK]) for end in _ends(parts)]
    figures: Figures = {"phrases": len(waits), "events": len(events)}
    seen, stable = zip(*waits, strict=True)
    for name, values in {"seen": seen, "stable": stable, "computed": computed}.items():
        for share in (0.5, 0.9, 1.0):
            figures[f"{name}_ms_{100 * share:.0f}"] = round(1000 * percentile(values, share))
    return figures


def _ends(parts: list[Clip]) -> list[int]:
    """The last voiced sample of each phrase."""
    ends, start = [], 0
    for text, samples in parts:
        found = voiced(samples, SAMPLE_RATE)
        if text and found is not None:
            ends.append(start + found[1] - 1)
        start += len(samples)
    return ends


def _waits(events: list[tuple[float, voxrill.TranscriptEvent]], end: int, captured: float) -> tuple[float, float]:
    """Seconds from `captured` until the text of the segment that ends with sample `end` shows, and is stable."""
    of_it = [
        (at, one) for at, one in events if one.start < end / SAMPLE_RATE and abs(one.end - end / SAMPLE_RATE) < SLACK
    ]
    stable, segment = next((at, one) for at, one in of_it if isinstance(one, voxrill.SegmentEvent))
    seen = stable
    for at, one in reversed(of_it):
        if one.text != segment.text:
            break
        seen = at
    return seen - captured, stable - captured


def memory(found: list[Clip], hours: float) -> Figures:
    """Resident MB after 5 minutes of sound and at its end, and the most in between."""
    model, process = voxrill.load(threads=1), psutil.Process()
    resident: list[int] = []
    seconds = 0.0

    def endless() -> Iterator[Floats]:
        nonlocal seconds
        chance = np.random.default_rng(0)
        while True:
            for _, samples in meeting(chance, found):
                yield samples
                seconds += len(samples) / SAMPLE_RATE
                if seconds > FIRST:
                    resident.append(process.memory_info().rss)
                if seconds > 3600 * hours:
                    return

    began = time.perf_counter()
    segments = sum(1 for _ in model.transcribe_stream(endless(), sample_rate=SAMPLE_RATE, tentative=False))
    first, last, most = (round(1e-6 * one, 1) for one in (resident[0], resident[-1], max(resident)))
    return {
        "hours": hours,
        "segments": segments,
        "first_mb": first,
        "last_mb": last,
        "most_mb": most,
        "wall_s": round(time.perf_counter() - began),
    }


PARTS: dict[str, Callable[[], Figures]] = {
    "words": lambda: words(held_out(), 10),
    "evaluated": lambda: words(evaluated(), 1),
    "latency": lambda: latency(held_out()),
    "memory": lambda: memory(held_out(), 3),
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        print(json.dumps({"part": part, **PARTS[part]()}), flush=True)
