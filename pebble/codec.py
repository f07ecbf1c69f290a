"""Pebble's reply voice as codes, and the detokenizer that turns codes into sound again.

In: two speakers' words in three places of a sentence, cut out of whole sentences in frames of 80 ms (`reply_voice`).
Out: codes for every word and place (residual k-means on the log-mel, no learned encoder), and a trained detokenizer of
the LFM2.5 form. A voice that is aligned to words is learnt ten times faster than whole sentences: a word in its place
has one sequence of codes.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from reply_voice import SPEAKERS, placed, units
from safetensors.torch import load_file, save_file
from torch import nn
from training import Run, cosine
from world import WORDS, SpokenWord, reply_with_any_part

from voxrill.export.audio_detokenizer import REPEAT, AudioDetokenizerModule, DetokenizerConfig
from voxrill.export.lfm import LfmConfig, attend_all
from voxrill.export.windowed import window_geometry
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.audio.log_mel import mel_filterbank

RATE = 24_000
FRAME = 1920
N_FFT, HOP = 1280, 320
MELS = 80
BOOKS, CODES = 8, 256
PCA = 64
SETTLED = 0.003
"""A residual with a smaller share of the variance stays zero: its code is always 0, which is easy to learn."""

CODEBOOKS = Path(__file__).with_name("codebooks.safetensors")
"""The codebooks of the committed checkpoint. Words that are taught later are spoken with them."""
STEPS = 11_000
BATCH, SEGMENT = 8, 12
REPLIES_SHARE = 0.8

Floats = NDArray[np.float32]


@dataclass
class Voice:
    """Every word of the world as one speaker says it in each place: sound (n * 1920,) and codes (n, BOOKS)."""

    sounds: dict[SpokenWord, Floats]
    codes: dict[SpokenWord, NDArray[np.int64]]

    def words(self, text: str) -> list[NDArray[np.int64]]:
        """Codes (frames, BOOKS) of each word of a sentence."""
        return [self.codes[one] for one in placed(text)]

    def say(self, text: str) -> NDArray[np.int64]:
        """Codes (frames, BOOKS) of a sentence."""
        return np.concatenate(self.words(text))

    def sound(self, text: str) -> Floats:
        """The recorded sound of a sentence, from its words."""
        return np.concatenate([self.sounds[one] for one in placed(text)] or [np.zeros(0, np.float32)])


def log_mel_frames(sound: Floats) -> Floats:
    """(n * 1920,) to (n, 6 * 80): the log-mel of each frame's six hops."""
    padded = np.pad(sound, (N_FFT - HOP) // 2)
    starts = np.arange(len(sound) // HOP) * HOP
    windows = padded[starts[:, None] + np.arange(N_FFT)] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT))
    mel = np.abs(np.fft.rfft(windows)) @ mel_filterbank(RATE, N_FFT, MELS).T
    frames: Floats = np.log(mel + 1e-3).reshape(-1, REPEAT * MELS).astype(np.float32)
    return frames


def _nearest(rows: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    return (book.pow(2).sum(1)[None] - 2 * rows @ book.T).argmin(1)


def _k_means(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    book = rows[torch.randperm(len(rows), generator=generator)[:CODES]].clone()
    for _ in range(25):
        chosen = _nearest(rows, book)
        count = torch.bincount(chosen, minlength=CODES).float()[:, None]
        sums = torch.zeros_like(book).index_add_(0, chosen, rows)
        spare = rows[torch.randint(len(rows), (CODES,), generator=generator)]
        book = torch.where(count > 0, sums / count.clamp(min=1), spare)
    return book


class Codebooks:
    """Residual k-means on the first principal components of log-mel frames (n, 480).

    mean: (480,); components: (PCA, 480); centres: (BOOKS, CODES, PCA), zero where a codebook has nothing left to say.
    """

    def __init__(self, mean: torch.Tensor, components: torch.Tensor, centres: torch.Tensor) -> None:
        self.mean, self.components, self.centres = mean, components, centres

    @classmethod
    def fit(cls, rows: torch.Tensor) -> Codebooks:
        """The codebooks of these frames."""
        generator = torch.Generator().manual_seed(0)
        mean = rows.mean(0)
        components = torch.linalg.svd(rows - mean, full_matrices=False)[2][:PCA]
        residual = (rows - mean) @ components.T
        total = residual.pow(2).sum()
        centres = torch.zeros(BOOKS, CODES, PCA)
        for book in range(BOOKS):
            if residual.pow(2).sum() < SETTLED * total:
                break
            centres[book] = _k_means(residual, generator)
            residual = residual - centres[book][_nearest(residual, centres[book])]
            print(f"codebook {book}: {residual.pow(2).sum() / total:.4f} of the variance is left", flush=True)
        return cls(mean, components, centres)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Frames (n, 480) to codes (n, BOOKS)."""
        residual = (rows - self.mean) @ self.components.T
        codes = []
        for centres in self.centres:
            codes.append(_nearest(residual, centres))
            residual = residual - centres[codes[-1]]
        return torch.stack(codes, 1)

    def save(self, path: Path) -> None:
        """Write them in float16: words that are taught later are spoken with them."""
        kept = {"mean": self.mean, "components": self.components, "centres": self.centres}
        with atomic_write(path) as part:
            save_file({name: value.half().contiguous() for name, value in kept.items()}, part)

    @classmethod
    def load(cls, path: Path) -> Codebooks:
        """Read what `save` wrote."""
        return cls(**{name: value.float() for name, value in load_file(path).items()})


def make_voices(cache: Path) -> dict[str, Voice]:
    """The words of both speakers with their codes. They are made once."""
    path = cache / "voices.pt"
    if not path.is_file():
        sounds = {name: units(name, cache / f"units-{name}") for name in SPEAKERS}
        keys = [(name, spoken) for name in SPEAKERS for spoken in sounds[name]]
        mels = [torch.from_numpy(log_mel_frames(sounds[name][spoken])) for name, spoken in keys]
        books = cache / CODEBOOKS.name
        if not books.is_file():
            Codebooks.fit(torch.cat(mels)).save(books)
        codes = Codebooks.load(books).encode(torch.cat(mels)).split([len(mel) for mel in mels])  # type: ignore[no-untyped-call]
        voices = {name: Voice(sounds[name], {}) for name in SPEAKERS}
        for (name, spoken), code in zip(keys, codes, strict=True):
            voices[name].codes[spoken] = code.numpy()
        with atomic_write(path) as part:
            torch.save(voices, part)
    loaded: dict[str, Voice] = torch.load(path, weights_only=False)
    return loaded


def detokenizer_config() -> dict[str, object]:
    """`audio_detokenizer/config.json`."""
    return {
        "architectures": ["Lfm25AudioTokenizer"],
        "model_type": "lfm2",
        "hidden_size": 256,
        "layer_types": ["conv", "conv", "sliding_attention", "conv", "sliding_attention", "conv"],
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "block_ff_dim": 768,
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 64,
        "conv_L_cache": 3,
        "conv_bias": False,
        "norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "sliding_window": 30,
        "max_position_embeddings": 128_000,
        "vocab_size": 64,
        "output_size": N_FFT + 2,
        "dtype": "float16",
    }


class Detokenizer(AudioDetokenizerModule):
    """The exported module, with a batched forward for training."""

    def __init__(self) -> None:
        lfm = LfmConfig.read(detokenizer_config())
        super().__init__(DetokenizerConfig(lfm, 30, BOOKS, CODES, N_FFT + 2))
        nn.init.normal_(self.emb.emb.weight, std=0.5 * math.sqrt(BOOKS))
        nn.init.normal_(self.lin.weight, std=0.02)

    def spectrum(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (B, frames, BOOKS) to log-magnitude and phase (B, 6 * frames, 641)."""
        x = self.emb.emb(codes + torch.arange(BOOKS) * CODES).mean(2).repeat_interleave(REPEAT, 1)
        batch, length, dim = x.shape
        config = self.config
        past = []
        for kind in config.lfm.layer_types:
            if kind == "conv":
                past.append(torch.zeros(batch, dim, config.lfm.conv_cache))
            else:
                past += [torch.zeros(batch, config.lfm.kv_heads, config.window - 1, config.lfm.head_dim)] * 2
        positions, bias = window_geometry(torch.zeros(1, dtype=torch.int64), length, config.window)
        rotary = config.lfm.rotary(positions)
        x, _ = self.lfm(x, rotary, attend_all(bias, lambda whole: whole), past, lambda whole: whole)
        magnitude, phase = self.lin(x).chunk(2, -1)
        return magnitude, phase

    def sound(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes to samples (B, frames * 1920) and their log-magnitude."""
        magnitude, phase = self.spectrum(codes)
        window = torch.hann_window(N_FFT)
        columns = torch.fft.irfft(torch.polar(magnitude.clamp(max=7).exp(), phase), n=N_FFT) * window
        count = columns.shape[1]
        size = (1, (count - 1) * HOP + N_FFT)

        def overlapped(x: torch.Tensor) -> torch.Tensor:
            return F.fold(x.transpose(1, 2), size, (1, N_FFT), stride=(1, HOP))[:, 0, 0]

        # Where fewer columns overlap, at both ends, the sum of squared windows is smaller.
        weight = overlapped((window**2).expand(1, count, -1))
        cut = (N_FFT - HOP) // 2
        return (overlapped(columns) / weight.clamp(min=1e-4))[:, cut:-cut], magnitude


def _magnitude(sound: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    spectrum = torch.stft(sound, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2 + 1e-7).sqrt()


_BANKS = {n: torch.from_numpy(mel_filterbank(RATE, n, bands)) for n, bands in ((512, 40), (1024, 80), (2048, 100))}


def spectral_losses(made: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Multi-resolution STFT loss and log-mel L1 between two batches of sound."""
    stft, mel = torch.zeros(()), torch.zeros(())
    for n_fft, bank in _BANKS.items():
        a, b = _magnitude(made, n_fft, n_fft // 4), _magnitude(wanted, n_fft, n_fft // 4)
        stft = stft + (a - b).norm() / b.norm() + 0.5 * ((a + 1e-2).log() - (b + 1e-2).log()).abs().mean()
        mel = mel + ((bank @ a + 1e-3).log() - (bank @ b + 1e-3).log()).abs().mean()
    return stft / len(_BANKS), mel / len(_BANKS)


def train_detokenizer(cache: Path, seconds: float) -> Detokenizer:
    """Train for at most `seconds`, or continue an earlier training."""
    voices = make_voices(cache)
    model = Detokenizer()
    run = Run(cache / "detokenizer.pt", model, 2e-3, betas=(0.8, 0.99))
    if not run.resumed:
        _start_at_mean(model, voices)
    chance = random.Random(run.step)
    until = time.monotonic() + seconds
    while run.step < STEPS and time.monotonic() < until:
        codes, wanted = _batch(voices, chance)
        made, magnitude = model.sound(codes)
        stft, mel = spectral_losses(made, wanted)
        target = _magnitude(F.pad(wanted, (480, 480)), N_FFT, HOP).transpose(1, 2)[:, 2:-2]
        inner = magnitude[:, : target.shape[1]]
        level = (inner - (target + 1e-2).log()).abs().mean()
        run.update(stft + 2 * mel + 0.3 * level, cosine(run.step / STEPS), {"stft": stft, "mel": mel, "level": level})
    run.save()
    return model.eval()


def _start_at_mean(model: Detokenizer, voices: dict[str, Voice]) -> None:
    """Set the output bias to the mean log-magnitude and to random phases."""
    sound = torch.from_numpy(np.concatenate([unit for voice in voices.values() for unit in voice.sounds.values()]))
    mean = _magnitude(sound[None], N_FFT, HOP)[0].clamp(min=1e-2).log().mean(1)
    with torch.no_grad():
        model.lin.bias[: len(mean)] = mean
        model.lin.bias[len(mean) :].uniform_(-math.pi, math.pi)


def _batch(voices: dict[str, Voice], chance: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments of replies and random words: codes (BATCH, SEGMENT, BOOKS) and their sound."""
    codes, sounds = [], []
    for _ in range(BATCH):
        voice = voices[chance.choice(list(voices))]
        said: list[str] = []
        while sum(len(voice.say(text)) for text in said) < SEGMENT + 6:
            reply = chance.random() < REPLIES_SHARE
            said.append(reply_with_any_part(chance) if reply else " ".join(chance.choices(WORDS, k=4)))
        whole_codes = np.concatenate([voice.say(text) for text in said])
        whole_sound = np.concatenate([voice.sound(text) for text in said])
        start = chance.randrange(len(whole_codes) - SEGMENT + 1)
        codes.append(torch.from_numpy(whole_codes[start : start + SEGMENT]))
        sounds.append(torch.from_numpy(whole_sound[start * FRAME : (start + SEGMENT) * FRAME]))
    return torch.stack(codes), torch.stack(sounds)
