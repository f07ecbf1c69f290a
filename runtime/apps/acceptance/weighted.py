"""The stages that run the graphs: each gets golden input, so that an error shows in the stage that makes it.

In: what is judged, a checked folder and the bounds of its precision. Out: rows. The goldens are bfloat16, so the best
two tokens or codes may lie nearer than its rounding: such near-ties are counted, and each shows its gap.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxrill.runtime.apps.acceptance.folder import (
    ASR_16K,
    ASR_SOUND,
    CODEC_4,
    CODEC_8,
    CODEC_REAL,
    CONV_LAYER,
    ENCODER_ROWS,
    FRAME,
    FRAMES,
    QUESTION,
    SUMMARY,
    TURN_SOUNDS,
    Case,
    PublishedFolder,
    Summary,
    TextStep,
)
from voxrill.runtime.apps.acceptance.rows import AcceptanceRow, Bounds, Near, Quantity
from voxrill.runtime.apps.acceptance.streams import (
    Codes,
    Floats,
    GoldenStream,
    JudgedModel,
    add_question,
    asked,
    greedy_streams,
    heard_waveform,
    hidden_before,
    same_at_first,
    sound_of,
    text_steps_of,
    two_turns,
)
from voxrill.runtime.apps.acceptance.weightless import sound_error
from voxrill.runtime.audio.log_mel import LogMel
from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.engine.context import Context, Parts
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Token
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.errors import DataError

ENCODER_FRAMES = 80
"""Log-mel frames of the published encoder rows: the first ones of question.wav, normalised over all of it."""

CANDIDATES = 4
"""From how many codes the two turns were drawn."""

FRAMES_COMPARED = 32
"""Frames of a stream whose codes are compared, evenly spread: 256 codes. A frame takes 0.1 s of the true size."""

FREE_STEPS = 16
"""Steps at most of an answer that is compared without forcing. The first that differs ends it."""

SLICE_FROM = 1000
"""The first sample of `waveform_slice`."""

_BFLOAT16_BITS = 7
"""Bits of bfloat16's mantissa: a step is 2^-7 of the power of two below a number."""


def encoder(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """The encoder's rows for a known log-mel."""
    parts = subject.parts
    mel = LogMel(parts.spec.log_mel)(heard_waveform(folder, QUESTION))[:ENCODER_FRAMES]
    found = parts.encoder.embed(mel)
    wanted = folder.array(ENCODER_ROWS, "adapted", 1, *found.shape)[0]
    yield AcceptanceRow(
        "encoder",
        f"{len(wanted)} rows of question.wav",
        (Quantity("error of the largest", _of_largest(found, wanted), most=bounds.encoder),),
    )


def text_steps(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Text table, backbone and head: the likeliest tokens of a short answer, on golden encoder rows."""
    parts, steps = subject.parts, text_steps_of(folder, subject.parts)
    heard = folder.array(ENCODER_ROWS, "adapted", 1, None, parts.spec.backbone.hidden_size)[0]
    answer = [Token(step.golden_argmax_id) for step in steps]
    hidden = hidden_before(asked(parts, "", _as_bfloat16(heard)), answer)
    logits = [parts.backbone.logits(row) for row in hidden]
    tally = Tally()
    for row, token in zip(logits, answer, strict=True):
        tally.add(row, token.id)
    worst = max(_probability_error(row, step) for row, step in zip(logits, steps, strict=True))
    yield AcceptanceRow(
        "text",
        f"{len(steps)} steps on golden rows",
        (*tally.quantities(bounds.text), Quantity("probability", worst, most=bounds.probability)),
    )


def layers(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """What the shipped graph shows of its first layer: the state that it keeps of nine known inputs."""
    parts = subject.parts
    width, cache = parts.spec.backbone.hidden_size, parts.spec.backbone.conv_cache
    past, step = (folder.array(CONV_LAYER, key, 1, None, width)[0] for key in ("past_input", "step_input"))
    wanted = folder.array(CONV_LAYER, "step_updated_conv_cache", 1, width, cache)
    state = parts.backbone.new_state()
    for rows in (past, step):
        parts.backbone.forward(rows, state)
    found = state.content()["past_conv.0"]
    yield AcceptanceRow(
        "layers",
        "layer 0 in the graph: conv state",
        (Quantity("error of the largest", _of_largest(found, wanted), most=bounds.layer),),
    )


def depthformer(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Codes of known hidden states, and the rows that they sum up to."""
    parts, codes_spec, width = subject.parts, subject.parts.spec.codes, subject.parts.spec.backbone.hidden_size
    books, vocab = codes_spec.codebooks, codes_spec.vocab_size
    hidden = folder.array(FRAME, "hidden", 1, width)[0]
    wanted = folder.whole_numbers(FRAME, "tokens", vocab, 1, books)[0]
    codes = parts.depthformer.frame(hidden, Sampling(), Sampler())
    differing = Quantity("differing", int((codes != wanted).sum()), most=bounds.codes)
    yield AcceptanceRow("depthformer", "8 codes of a made-up state", (differing,))
    states = folder.array(FRAMES, "hidden", None, 1, width)[:, 0]
    spoken = folder.whole_numbers(FRAMES, "source_bf16_tokens", vocab, len(states), 1, books)[:, 0]
    tally = Tally(CANDIDATES)
    for state, row in zip(states, spoken, strict=True):
        _add_frame(tally, parts, state, row)
    yield AcceptanceRow("depthformer", f"{len(states)} frames of turn1, drawn", tally.quantities(bounds.drawn))
    rows = folder.array(FRAME, "next_audio_embedding", 1, width)
    error = float(np.abs(parts.embed_frames(wanted[:, None]) - rows).max())
    yield AcceptanceRow("audio table", "a made-up frame's row", (Quantity("error", error, most=bounds.table),))
    rows = folder.array(FRAMES, "source_bf16_next_audio_embedding", len(states), 1, width)[:, 0]
    steps = _bfloat16_steps(parts.embed_frames(spoken.T), rows)
    yield AcceptanceRow("audio table", f"rows of {len(states)} frames", (Quantity("steps", steps, most=bounds.ulps),))


def codec(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """The sound of known codes."""
    parts, spec = subject.parts, subject.parts.spec.codes
    for name in (CODEC_4, CODEC_8, CODEC_REAL):
        codes = folder.whole_numbers(name, "codes", spec.end_of_audio, 1, spec.codebooks, None)[0]
        wanted = folder.array(name, "waveform", 1, None)[0]
        worst = sound_error(parts.codec.decode(codes), wanted)
        kind = "real" if name == CODEC_REAL else "made-up"
        yield AcceptanceRow("codec", f"{codes.shape[1]} {kind} frames", (Quantity("error", worst, most=bounds.sound),))
    for case, stream in greedy_streams(folder, parts):
        if case.waveform_shape:
            yield _sound_row(parts.codec.decode(stream.sound), case, bounds)
    for name, stream in zip(TURN_SOUNDS, two_turns(folder, parts), strict=True):
        found, wanted = parts.codec.decode(stream.sound), _samples(folder, name)
        error = sound_error(found, wanted)
        yield AcceptanceRow(
            "codec", f"{stream.name}: {stream.sound.shape[1]} frames", (Quantity("error", error, most=bounds.sound),)
        )


def _sound_row(found: Floats, case: Case, bounds: Bounds) -> AcceptanceRow:
    """What is published of a stream's sound: its length, 32 samples, mean and deviation."""
    part = found[SLICE_FROM : SLICE_FROM + len(case.waveform_slice)]
    # The reference's deviation is torch's, which divides by one less than the number of samples.
    errors = {
        "error": sound_error(part, np.array(case.waveform_slice, np.float32)),
        "mean": abs(float(found.mean()) - case.waveform_mean),
        "deviation": abs(float(found.std(ddof=1)) - case.waveform_std),
    }
    length = Quantity("samples too many", abs(len(found) - case.waveform_shape[-1]), most=0)
    quantities = [Quantity(name, error, most=bounds.sound) for name, error in errors.items()]
    return AcceptanceRow("codec", f"{case.name}: {len(case.waveform_slice)} samples", (*quantities, length))


def forced(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Greedy streams, each step decided on the golden's own past."""
    for case, stream in greedy_streams(folder, subject.parts):
        hidden = hidden_before(_prompt(subject, folder, case), stream.steps)
        yield from _stream_rows("streams", subject.parts, stream, hidden, bounds.text, Tally(), bounds.greedy)


def turns(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Two turns of one conversation on the golden's own past, and the hidden states of the first."""
    parts = subject.parts
    first, second = two_turns(folder, parts)
    context = asked(parts, subject.tasks.chat.system, parts.encoder.encode(heard_waveform(folder, QUESTION)))
    hidden = hidden_before(context, first.steps)
    yield _hidden_row(folder, hidden, bounds)
    yield from _stream_rows("turns", parts, first, hidden, bounds.text, Tally(CANDIDATES), bounds.drawn)
    context.close_turn()
    add_question(context, text=folder.json(SUMMARY, Summary).inputs.followup_text)
    hidden = hidden_before(context, second.steps)
    yield from _stream_rows("turns", parts, second, hidden, bounds.text, Tally(CANDIDATES), bounds.drawn)


def _hidden_row(folder: PublishedFolder, hidden: Floats, bounds: Bounds) -> AcceptanceRow:
    wanted = folder.array(FRAMES, "hidden", None, 1, hidden.shape[1])[:, 0]
    found = hidden[folder.whole_numbers(FRAMES, "generation_step", len(hidden), len(wanted))]
    lengths = np.linalg.norm(wanted, axis=1)
    cosine = (found * wanted).sum(1) / (np.linalg.norm(found, axis=1) * lengths)
    distance = np.linalg.norm(found - wanted, axis=1) / lengths
    return AcceptanceRow(
        "backbone",
        f"{len(wanted)} hidden states of turn1",
        (
            Quantity("cosine", float(cosine.min()), least=bounds.cosine),
            Quantity("distance", float(distance.max()), most=bounds.distance),
        ),
    )


def _stream_rows(
    stage: str, parts: Parts, stream: GoldenStream, hidden: Floats, text: Near, frames: Tally, near: Near
) -> Iterator[AcceptanceRow]:
    """The rows of one stream: its text tokens, greedy, and its codes by the tally `frames`."""
    words = Tally()
    for state, step in zip(hidden, stream.steps, strict=True):
        if isinstance(step, Token):
            words.add(parts.backbone.logits(state), step.id)
    if words.count:
        yield AcceptanceRow(stage, f"{stream.name}: {words.count} text steps", words.quantities(text))
    spoken = [(state, step) for state, step in zip(hidden, stream.steps, strict=True) if isinstance(step, Frame)]
    if not spoken:
        return
    chosen = np.unique(np.linspace(0, len(spoken) - 1, FRAMES_COMPARED).round().astype(int))
    for number in chosen:
        state, frame = spoken[number]
        _add_frame(frames, parts, state, frame.codes)
    yield AcceptanceRow(stage, f"{stream.name}: {len(chosen)} of {len(spoken)} frames", frames.quantities(near))


def transcript(subject: JudgedModel, folder: PublishedFolder, bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Free-running: the words of the long sound, as the reference resampled it and as we do."""
    for case, stream in greedy_streams(folder, subject.parts):
        if sound_of(case) == ASR_SOUND:
            waveform = folder.array(ASR_16K, "waveform", None)
            yield _transcript_row(subject, case, stream, waveform, "resampled by the reference", bounds)
            yield _transcript_row(subject, case, stream, heard_waveform(folder, ASR_SOUND), "resampled by us", bounds)


def _transcript_row(
    subject: JudgedModel, case: Case, stream: GoldenStream, waveform: Floats, how: str, bounds: Bounds
) -> AcceptanceRow:
    parts = subject.parts
    context = asked(parts, case.prompt, parts.encoder.encode(waveform), case.text)
    options = GenerationOptions(stream.mode, max_new_tokens=stream.limit, text_only=True)
    text = parts.tokenizer.decode([step.id for step in Generation(context, options) if isinstance(step, Token)])
    compared = f"{case.name}, {how}: {len(stream.text.split())} words"
    return AcceptanceRow("transcript", compared, transcript_quantities(stream.text, text, bounds))


def transcript_quantities(wanted: str, found: str, bounds: Bounds) -> tuple[Quantity, ...]:
    """Words that are wrong, and whether anything at all differs."""
    most = round(bounds.words * len(wanted.split()))
    differs = Quantity("text differs", int(found != wanted), most=0 if bounds.exact else None)
    return Quantity("words wrong", word_errors(wanted, found), most=most), differs


def word_errors(wanted: str, found: str) -> int:
    """Words that are inserted, left out or replaced (Levenshtein's distance), letter case and marks included."""
    right, said = wanted.split(), found.split()
    row = list(range(len(said) + 1))
    for number, word in enumerate(right, 1):
        # row[k] becomes the distance of the first `number` right words to the first k said ones.
        diagonal, row[0] = row[0], number
        for k, other in enumerate(said, 1):
            diagonal, row[k] = row[k], min(row[k] + 1, row[k - 1] + 1, diagonal + (word != other))
    return row[-1]


def free(subject: JudgedModel, folder: PublishedFolder, _bounds: Bounds) -> Iterator[AcceptanceRow]:
    """Free-running speech and chat: how long they are the golden's. One step that differs changes all later ones."""
    for case, stream in greedy_streams(folder, subject.parts):
        if sound_of(case) != ASR_SOUND:
            options = GenerationOptions(stream.mode, max_new_tokens=FREE_STEPS)
            same = same_at_first(Generation(_prompt(subject, folder, case), options), stream.steps)
            wanted = min(FREE_STEPS, len(stream.steps))
            yield AcceptanceRow("free-running", f"{case.name}: first {wanted} steps", (Quantity("same steps", same),))


def _prompt(subject: JudgedModel, folder: PublishedFolder, case: Case) -> Context:
    """The prompt of a case. The long sound is taken as the reference resampled it, so that only the model is judged."""
    name = sound_of(case)
    if not name:
        return asked(subject.parts, case.prompt, text=case.text)
    waveform = folder.array(ASR_16K, "waveform", None) if name == ASR_SOUND else heard_waveform(folder, name)
    return asked(subject.parts, case.prompt, subject.parts.encoder.encode(waveform), case.text)


class Tally:
    """Counts of choices: how far each golden one is below the one that decides.

    rank: 1 where the golden is the best; k where it was drawn from the k best.
    """

    def __init__(self, rank: int = 1) -> None:
        self._rank = rank
        self._gaps: list[float] = []

    @property
    def count(self) -> int:
        """Choices so far."""
        return len(self._gaps)

    def add(self, logits: Floats, chosen: int) -> None:
        """One more choice, from `logits` (vocab,)."""
        deciding = float(np.partition(logits, -self._rank)[-self._rank])
        self._gaps.append(max(0.0, deciding - float(logits[chosen])))

    def quantities(self, near: Near) -> tuple[Quantity, ...]:
        """The share that is chosen alike, the near-ties among the others, and the largest gap."""
        gaps = np.array(self._gaps)
        allowed = np.inf if near.gap is None else near.gap
        name = "best" if self._rank == 1 else f"among {self._rank} best"
        share = Quantity(name, float((gaps == 0).mean()) if len(gaps) else 1.0, least=near.share)
        ties = Quantity("near-ties", int(((gaps > 0) & (gaps <= allowed)).sum()))
        return share, ties, Quantity("gap", float(gaps.max(initial=0)), most=near.gap)


def _add_frame(tally: Tally, parts: Parts, hidden: Floats, codes: Codes) -> None:
    """Add the codes of a frame up to an end code: what follows one is not drawn."""
    logits = parts.depthformer.logits(hidden, codes)
    for row, code in zip(logits, codes, strict=True):
        tally.add(row, int(code))
        if code == parts.spec.codes.end_of_audio:
            return


def _probability_error(logits: Floats, step: TextStep) -> float:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    found = weights / weights.sum()
    return max(abs(float(found[one.id]) - one.probability) for one in step.golden_top5)


def _of_largest(found: Floats, wanted: Floats) -> float:
    """The largest difference, as a share of the largest golden number."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _as_bfloat16(rows: Floats) -> Floats:
    """Numbers rounded to bfloat16, to the nearest, ties to even: the upper half of float32's bits."""
    bits = rows.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def _bfloat16_steps(found: Floats, wanted: Floats) -> float:
    """The largest difference of `found` to numbers of bfloat16, in steps of each number."""
    _, exponents = np.frexp(wanted)  # wanted = m * 2^exponent with m from 0.5 to 1
    steps = np.ldexp(np.ones_like(wanted), exponents - 1 - _BFLOAT16_BITS)
    return float((np.abs(found - wanted) / steps).max())


def _samples(folder: PublishedFolder, name: str) -> NDArray[np.float32]:
    """A published sound at its own rate, as it is."""
    try:
        samples, _ = soundfile.read(io.BytesIO(folder.bytes_of(name)), dtype="float32")
    except soundfile.SoundFileError as error:
        raise DataError(f"{folder.path / name} is not a sound ({error})", "Download the file again") from None
    found: NDArray[np.float32] = samples.reshape(-1)  # of several channels all samples, which are too many
    return found
