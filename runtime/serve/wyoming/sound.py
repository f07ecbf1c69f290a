"""A client's sound, chunk by chunk: samples of any usual form in, a waveform at 16 kHz out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from voxrill.runtime.audio.audio_file import SAMPLE_RATE, Waveform
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.resampler import Resampler
from voxrill.runtime.serve.api_errors import ApiError

_TYPES = {2: "<i2", 4: "<i4"}


class PcmFormat(msgspec.Struct, frozen=True):
    """How sound is sent. rate: Hz. width: bytes of a sample, which is a signed integer."""

    rate: Annotated[int, Meta(ge=8_000, le=192_000)]
    width: Literal[2, 4]
    channels: Annotated[int, Meta(ge=1, le=8)]

    def samples(self, pcm: bytes) -> Floats:
        """The mean of the channels, (n,) in -1 to 1.

        Raises:
            ApiError: the bytes are no whole number of samples.
        """
        if len(pcm) % (self.width * self.channels):
            raise ApiError(400, "A chunk of sound ends within a sample.", "invalid_audio")
        whole = np.frombuffer(pcm, _TYPES[self.width]).reshape(-1, self.channels)
        mean: Floats = whole.mean(1, dtype=np.float32) / np.float32(1 << (8 * self.width - 1))
        return mean


class Incoming:
    """One sound.

    Args:
        form: how it is sent.
        longest: seconds it may last.
    """

    def __init__(self, form: PcmFormat, longest: float) -> None:
        self._form = form
        self._longest = longest
        self._resampler = Resampler(form.rate, SAMPLE_RATE)
        self._pieces: list[Floats] = []
        self._sent = 0

    @property
    def seconds(self) -> float:
        """How much there is."""
        return self._sent / self._form.rate

    def add(self, form: PcmFormat, pcm: bytes) -> None:
        """More of it.

        Raises:
            ApiError: it is sent in another way than it began, or grows too long.
        """
        if form != self._form:
            raise ApiError(400, "The sound changed its rate, width or channels. Begin another.", "invalid_audio")
        samples = form.samples(pcm)
        self._sent += len(samples)
        if self.seconds > self._longest:
            raise ApiError(413, f"A sound lasts {self._longest:g} seconds at most.", "audio_too_long")
        self._pieces.append(self._resampler(samples))

    def whole(self) -> Waveform:
        """All of it.

        Raises:
            ApiError: there is none.
        """
        waveform: Floats = np.concatenate([*self._pieces, self._resampler.rest()])
        if not len(waveform):
            raise ApiError(400, "There is no sound between audio-start and audio-stop.", "invalid_audio")
        return waveform
