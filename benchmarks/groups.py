"""What is measured: groups of stages, and which contenders are loaded together for each group.

All contenders of a group are in memory at the same time and are asked in turn, so a group must fit into the machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import BANDWIDTH, FAST_PREFILL, FLOAT32, GENAI, GENAI_SPEECH, PRODUCTS, TUNED


@dataclass(frozen=True)
class BenchStage:
    """One thing to time.

    name and args: as the contenders know them; calls: calls in one request; seconds: how long requests are repeated;
    rounds: the least number of them; warm: whether the first round does not count.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    calls: int = 1
    seconds: float = 15.0
    rounds: int = 3
    warm: bool = True


@dataclass(frozen=True)
class StageGroup:
    """Stages measured side by side.

    kinds: how the names of its contenders begin; without: how the names of our contenders end that would show nothing
    new here; each_threads: whether every number of threads is measured, or only the largest; starts: how often the
    contenders are loaded one by one, without any stage.
    """

    name: str
    about: str
    kinds: tuple[str, ...]
    stages: tuple[BenchStage, ...] = ()
    without: tuple[str, ...] = ()
    each_threads: bool = True
    starts: int = 0

    def contenders(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that belong to this group."""
        chosen = [name for name in names if name.startswith(self.kinds)]
        return [name for name in chosen if not (name.startswith("voxrill") and name.endswith(self.without))]


QUESTION_SECONDS = 4.0
CONTEXT = 200
CONTEXTS = (CONTEXT, 1024, 4096, 16384, 32768)
POSITIONS = (50, 100, 500)
FORMATS = ((2, 128), (4, 32), (4, 64), (4, 128), (4, 256), (8, 0))
"""Bits of a weight, and rows that share a scale (0: a whole column)."""
SOUND_SECONDS = (1.0, 4.0, 10.0, 30.0)

STEP_WITH_HEAD = BenchStage("decode", {"context": CONTEXT, "head": True}, calls=5, seconds=25)
STEP = BenchStage("decode", {"context": CONTEXT, "head": False}, calls=5, seconds=20)
FRAME = BenchStage("frame", calls=5)
CODEC = BenchStage("codec", calls=5, seconds=10)
SPOKEN_STEP = BenchStage("spoken_step", calls=5, seconds=10)
FIRST_TEXT = BenchStage("first_text", {"seconds": QUESTION_SECONDS}, seconds=20)
FIRST_AUDIO = BenchStage("first_audio", {"seconds": QUESTION_SECONDS}, seconds=30)


def _encoder(seconds: float) -> BenchStage:
    return BenchStage("encoder", {"seconds": seconds}, seconds=10)


_REFERENCE = (
    STEP_WITH_HEAD,
    STEP,
    BenchStage("prefill", {"positions": 100}, seconds=20),
    FRAME,
    _encoder(QUESTION_SECONDS),
    CODEC,
    FIRST_AUDIO,
)

GROUPS = (
    StageGroup(
        "load",
        "loading, with the files in the page cache",
        ("voxrill", "llama.cpp", GENAI),
        each_threads=False,
        starts=3,
    ),
    StageGroup(
        "decode",
        f"one step after {CONTEXT} positions",
        (BANDWIDTH, "voxrill", "llama.cpp", GENAI),
        (STEP_WITH_HEAD, STEP),
        without=(FAST_PREFILL,),
    ),
    StageGroup(
        "products",
        "onnxruntime's products of one position, 2048 x 8192 and back, in a chain",
        (BANDWIDTH, PRODUCTS),
        tuple(BenchStage("product", {"bits": bits, "block": block}, calls=3, seconds=4) for bits, block in FORMATS),
    ),
    StageGroup(
        "growth",
        "one step, with text head, after more and more positions",
        ("voxrill", "llama.cpp Q4_0"),
        tuple(BenchStage("decode", {"context": c, "head": True}, calls=5, seconds=8) for c in CONTEXTS),
        without=(FLOAT32, FAST_PREFILL, TUNED),
        each_threads=False,
    ),
    StageGroup(
        "prefill",
        "a prompt, and the text logits after it",
        ("voxrill", "llama.cpp", GENAI),
        tuple(BenchStage("prefill", {"positions": n}, rounds=2 if n > 100 else 3, warm=n <= 100) for n in POSITIONS),
        without=(FLOAT32,),
    ),
    StageGroup(
        "speech",
        "hearing and speaking",
        ("voxrill", GENAI_SPEECH),
        (
            FRAME,
            SPOKEN_STEP,
            CODEC,
            *map(_encoder, SOUND_SECONDS),
            FIRST_TEXT,
            FIRST_AUDIO,
            BenchStage("speech", {"seconds": QUESTION_SECONDS}, calls=2, seconds=20, rounds=2, warm=False),
        ),
        without=(FLOAT32,),
    ),
    StageGroup(
        "reference-float32",
        "the reference in float32",
        ("voxrill", "torch float32"),
        _REFERENCE,
        without=(FLOAT32, TUNED),
        each_threads=False,
    ),
    StageGroup(
        "reference-bfloat16",
        "the reference in bfloat16",
        ("voxrill", "torch bfloat16"),
        _REFERENCE,
        without=(FLOAT32, TUNED),
        each_threads=False,
    ),
)
