"""The stages that need no weights: tokenizer, prompts, log-mel, the order of steps, and the sound of known spectra.

In: what is judged, and a checked folder. Out: rows. They hold for every precision alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from voxrill.runtime.apps.acceptance.folder import (
    ASR_16K,
    ASR_SOUND,
    CODEC_4,
    CODEC_8,
    FRAMES,
    LOG_MEL,
    PROMPTS,
    QUESTION,
    SUMMARY,
    Case,
    PublishedFolder,
    ReferencePrompt,
    Summary,
)
from voxrill.runtime.apps.acceptance.rows import AcceptanceRow, Bounds, Quantity
from voxrill.runtime.apps.acceptance.streams import (
    Floats,
    GoldenStream,
    JudgedModel,
    add_question,
    add_steps,
    asked,
    greedy_streams,
    heard_waveform,
    replayed,
    same_at_first,
    sound_of,
    text_steps_of,
    two_turns,
)
from voxrill.runtime.audio.log_mel import LogMel
from voxrill.runtime.engine.context import HeardSound, Tokens
from voxrill.runtime.engine.engine import VOICE
from voxrill.runtime.engine.generate import Frame, Step, Token
from voxrill.runtime.engine.istft import OverlapAdd
from voxrill.runtime.engine.tokenizer import Tokenizer

LOG_MEL_MOST = 1e-3
"""Of our log-mel to the reference's, in deviations. Two computations in float32 differ by up to 6e-5."""

ISTFT_MOST = 1e-5
"""Of the sound of known spectra, of full scale. It was 1.5e-7."""


def tokenizer(subject: JudgedModel, folder: PublishedFolder, _bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Published tokens give the published texts, at once and one by one, and texts survive a round trip."""
    own = subject.parts.tokenizer
    streams = [stream for _, stream in greedy_streams(folder, subject.parts)] + two_turns(folder, subject.parts)
    wrong = sum(own.decode(stream.tokens) != stream.text for stream in streams)
    pieces = sum(_streamed(own, stream.tokens) != stream.text for stream in streams)
    round_trip = sum(own.decode(own.encode(stream.text)) != stream.text for stream in streams)
    yield AcceptanceRow(
        "tokenizer",
        f"texts of {len(streams)} streams",
        (
            Quantity("wrong", wrong, most=0),
            Quantity("wrong token by token", pieces, most=0),
            Quantity("wrong after a round trip", round_trip, most=0),
            Quantity("encoded otherwise", sum(_encoded_otherwise(own, stream) for stream in streams)),
        ),
    )
    steps = text_steps_of(folder, subject.parts)
    candidates = [one for step in steps for one in step.golden_top5 if own.decode([one.id])]
    wrong = sum(own.decode([one.id]) != one.text for one in candidates)
    yield AcceptanceRow("tokenizer", f"{len(candidates)} candidates", (Quantity("wrong", wrong, most=0),))


def _streamed(own: Tokenizer, ids: list[int]) -> str:
    stream = own.stream()
    return "".join(stream.push(token) for token in ids)


def _encoded_otherwise(own: Tokenizer, stream: GoldenStream) -> bool:
    """Whether the text of a stream becomes other tokens than those that the model wrote. A model may spell freely."""
    marks = set(own.ids.values())
    return own.encode(stream.text) != [token for token in stream.tokens if token not in marks]


def prompts(subject: JudgedModel, folder: PublishedFolder, _bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Our prompts are the reference's, id by id and position by position, those of the tasks included."""
    wanted = folder.json(PROMPTS, dict[str, ReferencePrompt])
    for case, _ in greedy_streams(folder, subject.parts):
        if case.name in wanted:
            yield _prompt_row(subject, folder, case, wanted[case.name])
    if "turn2" in wanted:
        yield _second_turn(subject, folder, wanted["turn2"])
    own = {subject.tasks.transcribe.system, subject.tasks.chat.system}
    own |= {subject.tasks.speak.system.replace(VOICE, voice) for voice in subject.tasks.speak.voices}
    unknown = sum(case.prompt not in own for case, _ in greedy_streams(folder, subject.parts))
    yield AcceptanceRow(
        "prompts", "system prompts of the tasks", (Quantity("that the bundle does not have", unknown, most=0),)
    )


def _prompt_row(subject: JudgedModel, folder: PublishedFolder, case: Case, wanted: ReferencePrompt) -> AcceptanceRow:
    rows = _sound_rows(subject, folder, sound_of(case))
    context = asked(subject.parts, case.prompt, rows, case.text)
    sound_at, before = None, 0
    for piece in context.pieces:
        if isinstance(piece, HeardSound):
            sound_at = before
        before += len(piece.ids) if isinstance(piece, Tokens) else 0
    ids = [token for piece in context.pieces if isinstance(piece, Tokens) for token in piece.ids]
    heard = 0 if rows is None else len(rows)
    return AcceptanceRow(
        "prompts",
        f"{case.name}: {wanted.positions} positions, {wanted.sound_positions} of sound",
        (
            Quantity("ids differ", int(ids != wanted.text_ids), most=0),
            Quantity("positions too many", abs(context.positions - wanted.positions), most=0),
            Quantity("sound misplaced", int((heard, sound_at) != (wanted.sound_positions, wanted.sound_at)), most=0),
        ),
    )


def _second_turn(subject: JudgedModel, folder: PublishedFolder, wanted: ReferencePrompt) -> AcceptanceRow:
    rows = _sound_rows(subject, folder, QUESTION)
    context = asked(subject.parts, subject.tasks.chat.system, rows)
    add_steps(context, two_turns(folder, subject.parts)[0].steps)
    before = len(context.pieces)
    context.close_turn()
    add_question(context, text=folder.json(SUMMARY, Summary).inputs.followup_text)
    ids = [token for piece in context.pieces[before:] if isinstance(piece, Tokens) for token in piece.ids]
    return AcceptanceRow(
        "prompts",
        f"second turn: {wanted.positions} positions",
        (
            Quantity("ids differ", int(ids != wanted.text_ids_after_turn1), most=0),
            Quantity("positions too many", abs(context.positions - wanted.positions), most=0),
        ),
    )


def _sound_rows(subject: JudgedModel, folder: PublishedFolder, name: str) -> Floats | None:
    """Rows of zeros, as many as a sound has; None if there is no sound."""
    if not name:
        return None
    spec = subject.parts.spec
    frames = spec.log_mel.frames(len(heard_waveform(folder, name)))
    return np.zeros((-(-frames // spec.encoder.subsampling), spec.backbone.hidden_size), np.float32)


def log_mel(subject: JudgedModel, folder: PublishedFolder, _bounds: Bounds) -> Iterator[AcceptanceRow]:
    """The log-mel of both sounds: one at 16 kHz, and one that has to be resampled as the reference does it."""
    features = LogMel(subject.parts.spec.log_mel)
    question = features(heard_waveform(folder, QUESTION))
    yield _mel_row("question.wav", question, folder.array(LOG_MEL, "log_mel", None, question.shape[1]))
    wanted = features(folder.array(ASR_16K, "waveform", None))
    yield _mel_row("asr.wav, resampled", features(heard_waveform(folder, ASR_SOUND)), wanted)


def _mel_row(what: str, found: Floats, wanted: Floats) -> AcceptanceRow:
    shared = min(len(found), len(wanted))
    return AcceptanceRow(
        "log-mel",
        f"{what}: {len(wanted)} frames",
        (
            Quantity("error", float(np.abs(found[:shared] - wanted[:shared]).max(initial=0)), most=LOG_MEL_MOST),
            Quantity("frames too many", abs(len(found) - len(wanted)), most=0),
        ),
    )


def order(subject: JudgedModel, folder: PublishedFolder, _bounds: Bounds) -> Iterator[AcceptanceRow]:
    """The order of text and sound: recorded streams go through our state machine step by step."""
    streams = [stream for _, stream in greedy_streams(folder, subject.parts)] + two_turns(folder, subject.parts)
    for stream in streams:
        steps, finish = replayed(subject.parts, stream)
        wanted = _without_end(stream, subject.parts.tokenizer.ids["im_end"])
        ended = "length" if len(stream.steps) == stream.limit and wanted == list(stream.steps) else "stop"
        differing = max(len(steps), len(wanted)) - same_at_first(steps, wanted)
        yield AcceptanceRow(
            "order",
            f"{stream.name}: {len(wanted)} steps, {stream.mode}",
            (Quantity("differing", differing, most=0), Quantity("ended otherwise", int(finish != ended), most=0)),
        )
    yield _frames_agree(subject, folder)


def _without_end(stream: GoldenStream, im_end: int) -> list[Step]:
    """The steps that are handed out: `<|im_end|>` ends an answer and is not part of it."""
    last = stream.steps[-1]
    return list(stream.steps[:-1] if isinstance(last, Token) and last.id == im_end else stream.steps)


def _frames_agree(subject: JudgedModel, folder: PublishedFolder) -> AcceptanceRow:
    """Whether two published files agree on the first turn. If they do not, neither can be trusted."""
    turn = two_turns(folder, subject.parts)[0]
    books = subject.parts.spec.codes.codebooks
    codes = folder.array(FRAMES, "source_bf16_tokens", None, 1, books)[:, 0]
    steps = folder.array(FRAMES, "generation_step", len(codes))
    spoken = {number: step.codes for number, step in enumerate(turn.steps) if isinstance(step, Frame)}
    wrong = sum(
        int(step) not in spoken or (spoken[int(step)] != row).any() for step, row in zip(steps, codes, strict=True)
    )
    return AcceptanceRow("order", f"{len(codes)} frames in two files", (Quantity("differing", int(wrong), most=0),))


def spectra(subject: JudgedModel, folder: PublishedFolder, _bounds: Bounds) -> Iterator[AcceptanceRow]:
    """The sound of the codec's published spectra, in calls of several lengths."""
    codec = subject.parts.spec.codec
    bins = codec.n_fft // 2 + 1
    for name in (CODEC_4, CODEC_8):
        parts = [folder.array(name, key, 1, bins, None)[0].T for key in ("log_abs", "angle")]
        features = np.concatenate(parts, 1)
        wanted = folder.array(name, "waveform", 1, None)[0]
        worst = max(
            _istft_error(features, wanted, columns, codec.n_fft, codec.hop) for columns in (1, 6, len(features))
        )
        yield AcceptanceRow(
            "spectra", f"{len(features)} columns to sound", (Quantity("error", worst, most=ISTFT_MOST),)
        )


def _istft_error(features: Floats, wanted: Floats, columns: int, n_fft: int, hop: int) -> float:
    stage = OverlapAdd(n_fft, hop)
    sound = [stage.push(features[at : at + columns]) for at in range(0, len(features), columns)]
    return sound_error(np.concatenate([*sound, stage.flush()]), wanted)


def sound_error(found: Floats, wanted: Floats) -> float:
    """The largest difference of two sounds, of full scale; infinite if one is longer."""
    return float(np.abs(found - wanted).max(initial=0)) if len(found) == len(wanted) else float("inf")
