"""Waveform in, log-mel spectrogram out: the input of the audio encoder's graph.

It computes what the reference does (NeMo's FilterbankFeatures as shipped in liquid-audio), in numpy. It is not part of
the graphs: a graph would gain nothing here, and would need an STFT operator that NPUs lack.

    pre-emphasis → 25 ms Hann windows every 10 ms → power → 128 Slaney mels → log → per-mel mean and deviation

The largest difference from the reference is 4e-5 on speech-like sound, 2e-4 on white noise and 1e-3 on a pure sweep, in
normalised units. It is the reference's own float32 rounding: a float64 computation is nearer to ours. A clip of digital
silence becomes zeros here. In the reference it becomes the rounding error of a mean, divided by 1e-5 (0.28).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.errors import AudioFileError

__all__ = ["LogMel", "LogMelConfig", "MelStream", "mel_filterbank"]

_BLOCK_FRAMES = 1024  # frames transformed at once: about 10 s of sound, under 10 MB of temporaries

# The Slaney mel scale: linear below 1 kHz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL  # 15 mel
_LOG_STEP = np.log(6.4) / 27.0  # above the break, 27 mels span a factor of 6.4


class LogMelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the spectrogram is computed; part of the bundle's manifest.

    Attributes:
        sample_rate: Hz of the waveform.
        n_fft: FFT length, samples; a shorter window is padded with zeros.
        window_size: window length, seconds.
        window_stride: hop from frame to frame, seconds.
        features: number of mel bands.
        window: shape of the window; the reference's Hann is symmetric, not periodic.
        preemphasis: weight of the previous sample that is taken away; 0 turns it off.
        log_guard: added to the mel power before the log; 2^-24, half of float32's epsilon.
        normalize: "per_feature": mean and deviation are taken per mel band, over the clip. "affine": nothing depends
            on the clip, so that frames can be computed as sound comes (`MelStream`): frames that begin where they
            begin instead of around it, a periodic window, log10 of at least `log_guard`, and (x + offset) / divisor.
        std_floor: added to the deviation, so that a constant band does not divide by zero.
    """

    sample_rate: Annotated[int, msgspec.Meta(ge=1000, le=768_000)] = 16000
    n_fft: Annotated[int, msgspec.Meta(ge=2, le=1 << 16)] = 512
    window_size: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.025
    window_stride: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.01
    features: Annotated[int, msgspec.Meta(ge=1, le=1 << 10)] = 128
    window: Literal["hann"] = "hann"
    preemphasis: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.97
    log_guard: Annotated[float, msgspec.Meta(gt=0, le=1)] = 2.0**-24
    normalize: Literal["per_feature", "affine"] = "per_feature"
    std_floor: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-5
    offset: Annotated[float, msgspec.Meta(ge=-1000, le=1000)] | msgspec.UnsetType = msgspec.UNSET
    divisor: Annotated[float, msgspec.Meta(gt=0, le=1000)] | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Refuse values that no spectrogram can be computed with.

        Raises:
            ValueError: naming the field; msgspec turns it into a ValidationError when decoding.
        """
        if self.window != "hann":
            raise ValueError(f"window {self.window!r} is not known: it must be 'hann'")
        if self.normalize not in ("per_feature", "affine"):
            raise ValueError(f"normalize {self.normalize!r} is not known: it must be 'per_feature' or 'affine'")
        if self.streams != (isinstance(self.offset, float) and isinstance(self.divisor, float)):
            raise ValueError("offset and divisor belong to normalize 'affine', which needs both")
        if self.streams and self.preemphasis:
            raise ValueError("normalize 'affine' knows no preemphasis: it must be 0")
        for name in ("sample_rate", "n_fft", "features", "log_guard", "std_floor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above zero")
        if self.hop_samples < 1:
            raise ValueError(f"window_stride is {self.window_stride} s: shorter than one sample")
        if not 2 <= self.window_samples <= self.n_fft:
            raise ValueError(f"a window of {self.window_samples} samples does not fit n_fft {self.n_fft}")
        if self.window_samples % 2 or self.n_fft % 2:
            raise ValueError("window_size and n_fft must come to an even number of samples")

    @property
    def window_samples(self) -> int:
        """Window length in samples: 400."""
        return int(self.window_size * self.sample_rate)

    @property
    def hop_samples(self) -> int:
        """Hop in samples: 160."""
        return int(self.window_stride * self.sample_rate)

    @property
    def streams(self) -> bool:
        """Whether frames can be computed as sound comes."""
        return self.normalize == "affine"

    def frames(self, samples: int) -> int:
        """How many frames `samples` samples become; of a normalised clip the last one is always zero."""
        if self.streams:
            return max(0, -(-(samples - self.window_samples) // self.hop_samples)) + 1
        return samples // self.hop_samples + 1


class LogMel:
    """Computes log-mel spectrograms; holds the window and filterbank, no state between calls."""

    def __init__(self, config: LogMelConfig | None = None) -> None:
        self.config = config or LogMelConfig()
        # np.hanning is symmetric, as the reference's window is.
        self._window = np.hanning(self.config.window_samples).astype(np.float32)
        self._filters = np.ascontiguousarray(
            mel_filterbank(self.config.sample_rate, self.config.n_fft, self.config.features).T
        )

    def __call__(self, waveform: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """The normalised log-mel spectrogram of one clip.

        Args:
            waveform: mono samples at `config.sample_rate`, `[samples]`; float32 for the reference's numbers.

        Returns:
            `[frames, features]` float32, C-contiguous, frames = samples // hop + 1. The last frame is zero;
            so is everything for a clip shorter than two hops (20 ms), which has no deviation.

        Raises:
            AudioFileError: no samples, more than one channel, or NaN or infinite samples.
        """
        samples = np.asarray(waveform, dtype=np.float32)
        _check(samples)
        if self.config.streams:
            stream = MelStream(self.config)
            return np.concatenate([stream.push(samples), stream.flush()])
        valid = samples.size // self.config.hop_samples  # the last frame counts for nothing
        mel = np.zeros((valid + 1, self.config.features), dtype=np.float32)
        if valid > 1:
            self._fill_log_mel(samples, mel[:valid])
            self._normalize(mel[:valid])
        return mel

    def _fill_log_mel(self, samples: NDArray[np.float32], mel: NDArray[np.float32]) -> None:
        """Write the log-mel of each frame of `samples` into `mel`, `[frames, features]`.

        One small product a frame, because numpy's BLAS gives a larger one to threads of its own. They then spin, and
        hold a core for 40 ms while the encoder runs. For 4 s of sound that product took 12 ms, and takes 0.7 now.
        """
        frames = self._windows_over(samples)
        log_guard = np.float32(self.config.log_guard)
        for block in _blocks(len(mel)):
            spectrum = np.fft.rfft(frames[block] * self._window, n=self.config.n_fft)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            bands = power.astype(np.float32, copy=False)[:, None] @ self._filters
            mel[block] = np.log(bands[:, 0] + log_guard)

    def _windows_over(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """A view `[frames, window]` of the pre-emphasised samples, each window centred on its hop.

        The reference centres the window within n_fft samples. A shift leaves the power spectrum as it is, so
        the window's own samples suffice.
        """
        half = self.config.window_samples // 2
        padded = np.zeros(samples.size + 2 * half, dtype=np.float32)
        inside = padded[half : half + samples.size]
        inside[:] = samples
        inside[1:] -= np.float32(self.config.preemphasis) * samples[:-1]
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.config.window_samples)
        return windows[:: self.config.hop_samples]

    def _normalize(self, mel: NDArray[np.float32]) -> None:
        """Bring each column of `mel` to mean 0 and deviation 1, in place; sums are kept in float64."""
        blocks = list(_blocks(len(mel)))
        mean = sum(mel[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(mel)
        mel -= mean.astype(np.float32)
        squares = sum(np.square(mel[block]).sum(axis=0, dtype=np.float64) for block in blocks)
        deviation = np.sqrt(squares / (len(mel) - 1))
        mel /= (deviation + self.config.std_floor).astype(np.float32)


class MelStream:
    """The log-mel of one sound as it comes, for `normalize` "affine". Source: llama.cpp's LFM3-Audio.

    A frame is final when its last sample has come. The end of the sound is padded with zeros to a whole frame.
    """

    def __init__(self, config: LogMelConfig) -> None:
        self._config = config
        count = config.window_samples
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)).astype(np.float32)
        self._filters = np.ascontiguousarray(mel_filterbank(config.sample_rate, config.n_fft, config.features).T)
        self._held = np.zeros(0, np.float32)
        self._any = False

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames (n, features) that are final with `samples` (m,); none may be."""
        held = np.concatenate([self._held, samples])
        count = max(0, (len(held) - self._config.window_samples) // self._config.hop_samples + 1)
        self._held = held[count * self._config.hop_samples :].copy()
        self._any = self._any or count > 0
        return self._of(held, count)

    def flush(self) -> NDArray[np.float32]:
        """The last frame, if samples are left that no frame has; a sound without samples has none."""
        # What is held begins with the hop that the next frame begins with; the rest was in the frame before.
        own = len(self._held) - (self._config.window_samples - self._config.hop_samples if self._any else 0)
        whole = np.zeros(self._config.window_samples, np.float32)
        whole[: len(self._held)] = self._held
        return self._of(whole, int(own > 0))

    def _of(self, held: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        config = self._config
        mel = np.empty((count, config.features), np.float32)
        if count:
            views = np.lib.stride_tricks.sliding_window_view(held, config.window_samples)[:: config.hop_samples]
            for block in _blocks(count):
                spectrum = np.fft.rfft(views[:count][block] * self._window, n=config.n_fft)
                power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32, copy=False)
                bands = (power[:, None] @ self._filters)[:, 0]  # small products: see `LogMel._fill_log_mel`
                mel[block] = np.log10(np.maximum(bands, np.float32(config.log_guard)))
        assert isinstance(config.offset, float) and isinstance(config.divisor, float)  # LogMelConfig sees to it
        return (mel + np.float32(config.offset)) / np.float32(config.divisor)


def _check(samples: NDArray[np.float32]) -> None:
    if samples.ndim != 1:
        raise AudioFileError(
            f"A mono waveform has one dimension, not the shape {samples.shape}",
            "Average the channels first, or let voxrill.runtime.audio.sound_source.as_waveform do it",
        )
    if samples.size == 0:
        raise AudioFileError("The sound has no samples", "Record or choose a sound that is not empty")
    if not np.isfinite(samples).all():
        raise AudioFileError("The sound holds NaN or infinite samples", "Re-record or repair it")


def _blocks(frames: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK_FRAMES, frames)) for start in range(0, frames, _BLOCK_FRAMES))


def mel_filterbank(sample_rate: int, n_fft: int, features: int) -> NDArray[np.float32]:
    """Triangular filters on the Slaney scale from 0 Hz to half the sample rate, each of unit area over Hz.

    Equal to `librosa.filters.mel(sr, n_fft, n_mels, norm="slaney")`, which the reference calls.

    Args:
        sample_rate: Hz.
        n_fft: FFT length, samples.
        features: number of filters.

    Returns:
        `[features, n_fft // 2 + 1]` float32, in 1 / Hz.
    """
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(sample_rate / 2), features + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (high - low)), dtype=np.float32)


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, logarithmic)
