"""The formats in which a realtime client sends sound and is sent it.

In: bytes as the client sends them, in chunks of any length; or the model's samples. Out: samples at 16 kHz; or bytes as
the client wants them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxrill.runtime.audio import g711
from voxrill.runtime.audio.pcm import PcmJoiner, pcm16
from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.audio.sinc_resampler import SincResampler

Kind = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]

PCM_RATES = (24_000, 8_000, 16_000, 48_000)
"""Sample rates of 16-bit PCM, Hz. The first one is OpenAI's."""

_LAWS: dict[Kind, g711.Law] = {"audio/pcmu": "ulaw", "audio/pcma": "alaw"}

_G711_RATE = 8_000


@dataclass(frozen=True)
class SoundFormat:
    """A format: 16-bit little-endian mono PCM at `rate` Hz, or G.711 in either law, which is at 8 kHz."""

    kind: Kind = "audio/pcm"
    rate: int = PCM_RATES[0]

    def shown(self) -> dict[str, Any]:
        """As the interface shows it."""
        return {"type": self.kind, "rate": self.rate} if self.kind == "audio/pcm" else {"type": self.kind}

    @property
    def before(self) -> str:
        """Its name from before 2025, which tells no rate."""
        return BEFORE[self.kind]


BEFORE: dict[Kind, str] = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
"""The names of the formats before 2025."""

FORMATS: dict[str, SoundFormat] = {
    "audio/pcm": SoundFormat(),
    "audio/pcmu": SoundFormat("audio/pcmu", _G711_RATE),
    "audio/pcma": SoundFormat("audio/pcma", _G711_RATE),
}
FORMATS |= {before: FORMATS[kind] for kind, before in BEFORE.items()}
"""The formats by their names, those from before 2025 included."""


class SoundIn:
    """Sound as it comes in. A chunk may end within a sample: its other byte comes with the next chunk."""

    def __init__(self, coded: SoundFormat) -> None:
        self._law = _LAWS.get(coded.kind)
        self._joiner = PcmJoiner()
        self._resampler = SincResampler(coded.rate, RATE)

    def __call__(self, chunk: bytes) -> Floats:
        """The samples (n,) at 16 kHz that are certain now."""
        samples = np.frombuffer(self._joiner(chunk), "<i2") if self._law is None else g711.decode(chunk, self._law)
        return self._resampler(samples.astype(np.float32) / np.float32(32768))

    def rest(self) -> Floats:
        """At the end of a turn: what was held back, without half a sample. Another turn may follow."""
        self._joiner.reset()
        return self._resampler.rest()


class SoundOut:
    """An answer's sound as it goes out."""

    def __init__(self, coded: SoundFormat, rate: int) -> None:
        self._law = _LAWS.get(coded.kind)
        self._resampler = SincResampler(rate, coded.rate)

    def __call__(self, samples: Floats) -> bytes:
        """More of the answer, (n,), in the client's format."""
        return self._coded(self._resampler(samples))

    def rest(self) -> bytes:
        """At the end of the answer: what was held back."""
        return self._coded(self._resampler.rest())

    def _coded(self, samples: Floats) -> bytes:
        coded = pcm16(samples)
        return coded.tobytes() if self._law is None else g711.encode(coded, self._law)
