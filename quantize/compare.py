"""What quantising changed: two bundles of one model are compared graph by graph, and from end to end.

In: two loaded models of one architecture, and sounds to hear. Out: a `Comparison`. Every graph of the second model gets
exactly what the graph of the first one got in a real turn, so that an error shows in the graph that makes it. Then both
answer on their own. All decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jiwer
import msgspec
import numpy as np
from numpy.typing import NDArray

from voxrill.quantize.turns import record
from voxrill.runtime.apps.transcription import transcribe
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.log_mel import mel_filterbank
from voxrill.runtime.bundle.contract import ModelSpec
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Token
from voxrill.runtime.errors import UsageError
from voxrill.runtime.events import EndEvent, Result
from voxrill.runtime.graph_names import AUDIO_ENCODER, DECODER, TEXT_HEAD

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

N_FFT, HOP, MELS = 1024, 256, 80
TINY = 1e-30
SILENT = 1e-3
"""Added to magnitudes of windows of 1,024 samples before their logarithm: differences below it are not heard."""


@dataclass
class Difference:
    """How far the outputs of one graph are apart.

    cosines: of whole outputs; largest: the largest difference, as a share of the largest number.
    """

    cosines: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)

    def add(self, wanted: Floats, got: Floats) -> None:
        """Add one pair of outputs."""
        a, b = wanted.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        length, largest = float(np.linalg.norm(a) * np.linalg.norm(b)), float(np.abs(a).max())
        self.cosines.append(float(a @ b) / max(length, TINY))
        self.largest.append(float(np.abs(a - b).max()) / max(largest, TINY))

    def summary(self) -> dict[str, float]:
        """Mean and worst cosine, and the largest error."""
        return {
            "cosine": float(np.mean(self.cosines)),
            "worst_cosine": float(np.min(self.cosines)),
            "largest_error": float(np.max(self.largest)),
        }


@dataclass
class SoundDifference:
    """How far two sounds of the same codes are apart, over all pairs."""

    signal: float = 0.0
    noise: float = 0.0
    distances: list[float] = field(default_factory=list)

    def add(self, wanted: Floats, got: Floats) -> None:
        """Add a pair of sounds (samples,)."""
        self.signal += float(np.square(wanted, dtype=np.float64).sum())
        self.noise += float(np.square(wanted - got, dtype=np.float64).sum())
        if len(wanted) > N_FFT:
            decibels = [20 * np.log10(np.abs(_spectrum(samples)) + SILENT) for samples in (wanted, got)]
            self.distances.append(float(np.sqrt(np.mean((decibels[0] - decibels[1]) ** 2))))

    def summary(self) -> dict[str, float]:
        """Signal to noise and log-spectral distance, dB; empty without any sound."""
        if not self.signal:
            return {}
        found = {"snr_db": 10 * float(np.log10(self.signal / max(self.noise, TINY * self.signal)))}
        if self.distances:
            found["log_spectral_distance_db"] = float(np.mean(self.distances))
        return found


@dataclass
class Comparison:
    """The figures.

    graphs: by graph; codec: of the sound that both codecs make of the same codes, `snr_db` (signal over difference) and
    `log_spectral_distance_db` (root mean square over time and frequency), empty if nothing was said; codes_flipped:
    share for each codebook; sizes: in bytes.
    """

    sounds: int
    graphs: dict[str, dict[str, float]]
    codec: dict[str, float]
    codes_flipped: list[float]
    text_tokens_kept: float
    end_to_end: dict[str, float]
    sizes: tuple[int, int]


def compare(
    first: Engine,
    second: Engine,
    sounds: Sequence[Floats],
    references: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Compare two models on sounds (samples,) at 16 kHz.

    Args:
        first: the model that counts as right, usually the float32 one.
        second: the model in question.
        sounds: what both hear.
        references: the words of each sound, for word error rates against the truth.
        progress: called with the number of sounds done.

    Raises:
        UsageError: the models differ not only in precision.
    """
    if _architecture(first) != _architecture(second):
        raise UsageError("the two bundles are not of the same model", "Compare a bundle with its own quantised forms")
    graphs = _Graphs(first, second)
    ends = _EndToEnd(first, second)
    for number, sound in enumerate(sounds):
        graphs.hear(sound)
        ends.hear(sound)
        progress(number + 1)
    return Comparison(
        sounds=len(sounds),
        graphs={name: difference.summary() for name, difference in graphs.differences.items() if difference.cosines},
        codec=graphs.sound.summary(),
        codes_flipped=_share(graphs.flipped, graphs.frames),
        text_tokens_kept=graphs.kept / max(graphs.tokens, 1),
        end_to_end=ends.summary(references),
        sizes=(first.manifest.size, second.manifest.size),
    )


def _share(counts: NDArray[np.int64], total: int) -> list[float]:
    return [float(count) / max(total, 1) for count in counts]


def _architecture(model: Engine) -> ModelSpec:
    """What two bundles of one model have in common, whatever the precision of weights and KV cache is."""
    spec = model.manifest.model
    return msgspec.structs.replace(spec, backbone=msgspec.structs.replace(spec.backbone, kv_cache="float32"))


class _Graphs:
    """Runs each graph of both models on the same inputs."""

    def __init__(self, first: Engine, second: Engine) -> None:
        self.first, self.second = first, second
        names = (AUDIO_ENCODER, DECODER, TEXT_HEAD, first.manifest.model.frame_decoder, "codec")
        self.differences = {name: Difference() for name in names}
        self.sound = SoundDifference()
        self.flipped = np.zeros(first.manifest.model.codes.codebooks, np.int64)
        self.frames = self.tokens = self.kept = 0

    def hear(self, sound: Floats) -> None:
        a, b = self.first.parts, self.second.parts
        self.differences[AUDIO_ENCODER].add(a.encoder.encode(sound), b.encoder.encode(sound))
        turn = record(self.first, sound, self.first.manifest.tasks.chat)
        hidden = a.backbone.forward(turn.rows, a.backbone.new_state())
        self.differences[DECODER].add(hidden, b.backbone.forward(turn.rows, b.backbone.new_state()))
        spoken = []
        for step, state in turn.answered(hidden):
            if isinstance(step, Token):
                self._token(state)
            else:
                self._frame(state, step.codes)
                if self.first.codec.decodes(step.codes):
                    spoken.append(step.codes)
        if spoken:
            codes = np.stack(spoken, 1)
            wanted, got = self.first.codec.decode(codes), self.second.codec.decode(codes)
            self.differences["codec"].add(wanted, got)
            self.sound.add(wanted, got)

    def _token(self, state: Floats) -> None:
        wanted, got = (model.parts.backbone.logits(state) for model in (self.first, self.second))
        self.differences[TEXT_HEAD].add(wanted, got)
        self.tokens += 1
        self.kept += int(wanted.argmax() == got.argmax())

    def _frame(self, state: Floats, codes: Codes) -> None:
        wanted, got = (model.parts.depthformer.logits(state, codes) for model in (self.first, self.second))
        self.differences[self.first.manifest.model.frame_decoder].add(wanted, got)
        self.frames += 1
        self.flipped += wanted.argmax(-1) != got.argmax(-1)


class _EndToEnd:
    """Lets both models answer on their own."""

    def __init__(self, first: Engine, second: Engine) -> None:
        self.models = (first, second)
        self.transcripts: tuple[list[str], list[str]] = ([], [])
        self.same_reply = self.same_codes = 0
        self.mel: list[float] = []

    def hear(self, sound: Floats) -> None:
        for model, transcripts in zip(self.models, self.transcripts, strict=True):
            transcripts.append(transcribe(model, sound, SAMPLE_RATE, temperature=0).text.strip())
        a, b = (_answer(model, sound) for model in self.models)
        self.same_reply += a.text == b.text
        self.same_codes += np.array_equal(a.codes, b.codes)
        if len(a.samples) == len(b.samples) > N_FFT:
            rate = self.models[0].sample_rate
            self.mel.append(float(np.abs(_log_mel(a.samples, rate) - _log_mel(b.samples, rate)).mean()))

    def summary(self, references: Sequence[str] | None) -> dict[str, float]:
        count = max(len(self.transcripts[0]), 1)
        found = {
            "same_transcript": sum(a == b for a, b in zip(*self.transcripts, strict=True)) / count,
            "same_reply_text": self.same_reply / count,
            "same_reply_codes": self.same_codes / count,
        }
        if self.mel:
            found["reply_log_mel_distance"] = float(np.mean(self.mel))
        if any(self.transcripts[0]):
            found["wer_against_first"] = _wer(self.transcripts[0], self.transcripts[1])
        if references and any(references):
            for name, said in zip(("wer_first", "wer_second"), self.transcripts, strict=True):
                found[name] = _wer(references, said)
        return found


def _answer(model: Engine, sound: Floats) -> Result:
    *_, end = model.chat(audio=sound, sample_rate=SAMPLE_RATE, temperature=0, audio_temperature=0)
    assert isinstance(end, EndEvent)
    return end.result


def _wer(wanted: Sequence[str], said: Sequence[str]) -> float:
    """Word error rate. Sounds without words are left out, because they have no rate."""
    pairs = [(a, b) for a, b in zip(wanted, said, strict=True) if a]
    rate: Any = jiwer.wer([a for a, _ in pairs], [b for _, b in pairs])
    return float(rate)


def _spectrum(samples: Floats) -> NDArray[np.complex128]:
    """Windows of the sound: (windows, bins)."""
    starts = np.arange(0, len(samples) - N_FFT, HOP)
    return np.fft.rfft(samples[starts[:, None] + np.arange(N_FFT)] * np.hanning(N_FFT))


def _log_mel(samples: Floats, rate: int) -> Floats:
    mel = np.abs(_spectrum(samples)) @ mel_filterbank(rate, N_FFT, MELS).T
    logs: Floats = np.log(mel + 1e-3).astype(np.float32)
    return logs
