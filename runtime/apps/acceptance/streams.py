"""The published streams as steps, their prompts as contexts, and a context that answers with what was recorded.

In: a folder that was checked, and the parts of a model. Out: steps; the hidden states before them; replays.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.apps.acceptance.folder import (
    ASR_SOUND,
    QUESTION,
    STREAMS,
    SUMMARY,
    TEXT_STEPS,
    TURNS,
    Case,
    PublishedFolder,
    Streams,
    Summary,
    TextStep,
    TextSteps,
)
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.bundle.manifest import Mode, Sampling, Tasks
from voxrill.runtime.engine.context import Context, HeardSound, Parts
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Step, Token
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.errors import DataError

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

TEXT, SPOKEN = 1, 3
"""Kinds of a step in the published files; 2 is sound that was heard."""

TURN_STEPS = 512
"""Steps of the two turns at most."""

_ORDERS: tuple[Mode, ...] = ("sequential", "interleaved")


@dataclass(frozen=True)
class JudgedModel:
    """What is judged: the parts of a loaded model, and the prompts of its tasks."""

    parts: Parts
    tasks: Tasks


@dataclass(frozen=True)
class GoldenStream:
    """One answer of the real weights. text: what its tokens spell; limit: steps that it was allowed."""

    name: str
    mode: Mode
    steps: tuple[Step, ...]
    text: str
    limit: int

    @property
    def tokens(self) -> list[int]:
        """Its text tokens."""
        return [step.id for step in self.steps if isinstance(step, Token)]

    @property
    def sound(self) -> Codes:
        """Codes (codebooks, F) of its frames, without the one that ends them."""
        frames = [step.codes for step in self.steps if isinstance(step, Frame) and not step.ends]
        return np.stack(frames, 1)


def greedy_streams(folder: PublishedFolder, parts: Parts) -> list[tuple[Case, GoldenStream]]:
    """The published greedy streams.

    Raises:
        DataError: one does not hold together, or does not fit the bundle's vocabularies.
    """
    cases = folder.json(STREAMS, Streams).cases
    return [(case, _stream_of(case, parts)) for case in cases]


def two_turns(folder: PublishedFolder, parts: Parts) -> list[GoldenStream]:
    """The two turns of one conversation: text greedy, sound drawn from the four likeliest codes."""
    texts = folder.json(SUMMARY, Summary).interleaved
    return [
        _turn(folder, parts, name, said.decoded_text) for name, said in (("turn1", texts.turn1), ("turn2", texts.turn2))
    ]


def text_steps_of(folder: PublishedFolder, parts: Parts) -> list[TextStep]:
    """The steps of a short answer, with their likeliest tokens.

    Raises:
        DataError: the bundle's vocabulary does not have one of them.
    """
    steps = folder.json(TEXT_STEPS, TextSteps).steps
    tokens = [one.id for step in steps for one in step.golden_top5]
    check_tokens(parts, [*tokens, *(step.golden_argmax_id for step in steps)], TEXT_STEPS)
    return steps


def _stream_of(case: Case, parts: Parts) -> GoldenStream:
    if case.mode not in _ORDERS:
        raise DataError(f"stream {case.name} has the mode {case.mode!r}", f"Known are: {', '.join(_ORDERS)}")
    codes = np.array(case.audio_codes, np.int64).reshape(-1, parts.spec.codes.codebooks)
    steps = _steps(parts, case.name, case.modalities, case.sequences, codes)
    return GoldenStream(
        case.name,
        "interleaved" if case.mode == _ORDERS[1] else "sequential",
        steps,
        case.decoded_text,
        case.max_new_tokens,
    )


def _turn(folder: PublishedFolder, parts: Parts, name: str, text: str) -> GoldenStream:
    tokens = folder.array(TURNS, f"{name}_text_tokens", None)
    codes = folder.array(TURNS, f"{name}_audio_tokens", parts.spec.codes.codebooks, None)
    kinds = folder.array(TURNS, f"{name}_modality", None)
    steps = _steps(parts, name, kinds.tolist(), tokens.tolist(), codes.T)
    return GoldenStream(name, "interleaved", steps, text, TURN_STEPS)


def _steps(parts: Parts, name: str, kinds: Sequence[int], tokens: Sequence[int], codes: Codes) -> tuple[Step, ...]:
    """Tokens and frames (F, codebooks) in the order that `kinds` gives."""
    spec = parts.spec
    words_listed, frames_listed = kinds.count(TEXT), kinds.count(SPOKEN)
    if (words_listed, frames_listed) != (len(tokens), len(codes)) or words_listed + frames_listed != len(kinds):
        raise DataError(
            f"stream {name} lists {words_listed} text tokens and {frames_listed} frames among {len(kinds)} steps, "
            f"and has {len(tokens)} and {len(codes)}",
            "Download the file again",
        )
    check_tokens(parts, tokens, f"stream {name}")
    ends = spec.codes.end_of_audio
    # The code that ends the sound stands first or nowhere, for the codec has no sound for it.
    if (codes < 0).any() or (codes >= ends)[codes[:, 0] != ends].any() or (codes > ends).any():
        raise DataError(
            f"stream {name} has codes that this bundle does not have",
            "The bundle is of a model with another vocabulary: these outputs are no measure for it",
        )
    words, frames = iter(tokens), iter(codes)
    return tuple(Token(next(words)) if kind == TEXT else _frame(next(frames), ends) for kind in kinds)


def check_tokens(parts: Parts, tokens: Sequence[int], where: str) -> None:
    """Refuse tokens that the bundle's vocabulary does not have; `where` names them.

    Raises:
        DataError: there is one.
    """
    if not all(0 <= token < parts.spec.backbone.vocab_size for token in tokens):
        raise DataError(
            f"{where} has tokens that this bundle does not have",
            "The bundle is of a model with another vocabulary: these outputs are no measure for it",
        )


def _frame(codes: Codes, end_of_audio: int) -> Frame:
    return Frame(codes, ends=bool(codes[0] == end_of_audio))


def heard_waveform(folder: PublishedFolder, name: str) -> Floats:
    """A published sound at the encoder's rate."""
    return read_audio(io.BytesIO(folder.bytes_of(name)))


def sound_of(case: Case) -> str:
    """The file that a case hears; empty for one that hears nothing.

    Raises:
        DataError: it is none of the published sounds.
    """
    name = f"audio/{case.audio}" if case.audio else ""
    if name not in ("", ASR_SOUND, QUESTION):
        raise DataError(f"stream {case.name} hears {name}, which is not among the files", "Download the file again")
    return name


def asked(parts: Parts, system: str, heard: Floats | None = None, text: str = "") -> Context:
    """The prompt of a question, before prefill. heard: rows (n, hidden) of its sound."""
    context = Context(parts)
    if system:
        with context.turn("system"):
            context.add_text(system)
    add_question(context, heard, text)
    return context


def add_question(context: Context, heard: Floats | None = None, text: str = "") -> None:
    """The user's turn, and the opening of the answer."""
    with context.turn("user"):
        if heard is not None:
            context.add(HeardSound(heard))
        if text:
            context.add_text(text)
    context.open_turn("assistant")


def add_steps(context: Context, steps: Sequence[Step]) -> None:
    """Append a recorded answer. Neighbours of one kind go in together, as they came one by one."""
    for is_text, run in groupby(steps, lambda step: isinstance(step, Token)):
        if is_text:
            context.add_tokens([step.id for step in run if isinstance(step, Token)])
        else:
            context.add_frames(np.stack([step.codes for step in run if isinstance(step, Frame)], 1))


def hidden_before(context: Context, steps: Sequence[Step]) -> Floats:
    """The hidden states (steps, hidden) from which each step of a recorded answer is decided, by one prefill."""
    add_steps(context, steps)
    # The last position of the prompt decides the first step, and the last step decides nothing.
    return context.hidden_states()[-len(steps) - 1 : -1]


class Departure(Exception):
    """The state machine asked for text where the record has sound, or the other way round."""


class RecordedContext(Context):
    """A context without a model: it answers with recorded steps, then ends the turn."""

    def __init__(self, parts: Parts, steps: Sequence[Step]) -> None:
        super().__init__(parts)
        self._left = list(reversed(steps))

    def advance(self) -> Floats:
        """No hidden state: nothing is computed."""
        return np.zeros(1, np.float32)

    def logits(self, hidden: Floats) -> Floats:
        """Logits that make the recorded token the best one."""
        step = self._left.pop() if self._left else Token(self.ids["im_end"])
        if not isinstance(step, Token):
            raise Departure
        logits = np.zeros(self._parts.spec.backbone.vocab_size, np.float32)
        logits[step.id] = 1.0
        return logits

    def frame(self, hidden: Floats, sampling: Sampling, sampler: Sampler, earlier: Sequence[Codes] = ()) -> Codes:
        """The recorded frame."""
        step = self._left.pop() if self._left else None
        if not isinstance(step, Frame):
            raise Departure
        return step.codes


def replayed(parts: Parts, stream: GoldenStream, *, text_only: bool = False) -> tuple[list[Step], str]:
    """What the state machine makes of a recorded stream: the steps up to a departure, and why it ended."""
    options = GenerationOptions(stream.mode, max_new_tokens=stream.limit, text_only=text_only)
    generation = Generation(RecordedContext(parts, stream.steps), options)
    steps: list[Step] = []
    try:
        for step in generation:
            steps.append(step)
    except Departure:
        return steps, "departed"
    return steps, generation.finish_reason


def same_step(one: Step, other: Step) -> bool:
    """Whether two steps are of one kind and content. Of a frame that ends the sound, only the first code counts."""
    if isinstance(one, Frame) and isinstance(other, Frame):
        return one.ends == other.ends and (one.ends or bool((one.codes == other.codes).all()))
    return isinstance(one, Token) and isinstance(other, Token) and one.id == other.id


def same_at_first(found: Iterable[Step], wanted: Sequence[Step]) -> int:
    """How many steps are the same before the first that differs. No step after that one is asked for."""
    return sum(1 for _ in takewhile(lambda pair: same_step(*pair), zip(found, wanted, strict=False)))
