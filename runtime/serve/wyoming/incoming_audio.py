"""A client's sound, chunk by chunk: PCM in, a waveform at 16 kHz out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from voxrill.runtime.audio.audio_file import SAMPLE_RATE, Waveform
from voxrill.runtime.audio.pcm import PcmJoiner
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.sinc_resampler import SincResampler
from voxrill.runtime.serve.api_errors import ApiError

_TYPES = {2: "<i2", 4: "<i4"}


class PcmFormat(msgspec.Struct, frozen=True):
    """How sound is sent. rate: Hz. width: bytes of a sample, signed except for one byte, as in WAV files."""

    rate: Annotated[int, Meta(ge=8_000, le=192_000)]
    width: Literal[1, 2, 3, 4]
    channels: Annotated[int, Meta(ge=1, le=8)]

    def mono(self, pcm: bytes) -> Floats:
        """The mean of the channels, (n,) in -1 to 1, of bytes that hold n whole samples of every channel."""
        mean: Floats = _decoded(pcm, self.width).reshape(-1, self.channels).mean(1, dtype=np.float32)
        return mean


def _decoded(pcm: bytes, width: int) -> Floats:
    """Samples of `width` bytes as (n,) in -1 to 1."""
    if width == 1:
        return (np.frombuffer(pcm, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:
        # numpy has no 24-bit integers: the three bytes become the upper ones of four, which multiplies by 256
        wide = np.zeros((len(pcm) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(pcm, np.uint8).reshape(-1, 3)
        pcm, width = wide.tobytes(), 4
    return np.frombuffer(pcm, _TYPES[width]).astype(np.float32) / np.float32(1 << (8 * width - 1))


class AudioInput:
    """A stream of chunks in one format, each of any length, as samples at 16 kHz.

    Args:
        form: how it is sent.
    """

    def __init__(self, form: PcmFormat) -> None:
        self.form = form
        self._joiner = PcmJoiner(form.width * form.channels)
        self._resampler = SincResampler(form.rate, SAMPLE_RATE)
        self._sent = 0

    @property
    def seconds(self) -> float:
        """Seconds of sound so far."""
        return self._sent / self.form.rate

    def push(self, pcm: bytes) -> Floats:
        """The samples (n,) that became whole with this chunk."""
        samples = self.form.mono(self._joiner(pcm))
        self._sent += len(samples)
        return self._resampler(samples)

    def rest(self) -> Floats:
        """The last samples, at the end of the stream. Bytes of a sample that was cut off are left out."""
        return self._resampler.rest()


class IncomingAudio:
    """One sound that is collected until its end.

    Args:
        form: how it is sent.
        longest: seconds it may last.
    """

    def __init__(self, form: PcmFormat, longest: float) -> None:
        self._input = AudioInput(form)
        self._longest = longest
        self._pieces: list[Floats] = []

    @property
    def seconds(self) -> float:
        """Seconds of sound so far."""
        return self._input.seconds

    def add(self, form: PcmFormat, pcm: bytes) -> None:
        """Add a chunk.

        Raises:
            ApiError: its format is not the first chunk's, or the sound grows too long.
        """
        if form != self._input.form:
            raise ApiError(400, "The sound changed its rate, width or channels. Begin another sound.", "invalid_audio")
        self._pieces.append(self._input.push(pcm))
        if self.seconds > self._longest:
            raise ApiError(413, f"A sound lasts {self._longest:g} seconds at most.", "audio_too_long")

    def whole(self) -> Waveform:
        """The whole sound (samples,), which may be empty."""
        waveform: Floats = np.concatenate([*self._pieces, self._input.rest()])
        return waveform
