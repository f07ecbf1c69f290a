"""The protocols of the live loop: where heard sound comes from, and where spoken sound goes to.

Heard sound is blocks of 512 samples at 16 kHz. Spoken sound is any number of samples at the model's own rate. Whatever
implements a protocol (a sound card, a file, a test) does its own resampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.audio.audio_file import SAMPLE_RATE

Floats = NDArray[np.float32]

RATE = SAMPLE_RATE
"""Hz of everything that is heard: 16000."""

BLOCK = 512
"""Samples of one block: 32 ms, which the voice activity detector takes at once."""

BLOCK_SECONDS = BLOCK / RATE  # 0.032


@dataclass(frozen=True)
class Block:
    """One block of heard sound.

    samples: (512,) at 16 kHz, or as many as were asked for. at: index of the first sample since the microphone was
    opened; lost samples are counted. captured: when the last sample was captured, in `time.perf_counter()` seconds.
    """

    samples: Floats
    at: int
    captured: float


class Microphone(Protocol):
    """Where heard sound comes from. It is open within a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def read(self, timeout: float, size: int = BLOCK) -> Block | None:
        """The next `size` samples; None after `timeout` seconds without them.

        Raises:
            AudioDeviceLost: it is gone and did not come back in time.
        """


class Player(Protocol):
    """Where spoken sound goes to, one reply at a time. It is open within a `with` block.

    Samples are counted at the model's rate, from the beginning of the reply. Times are `time.perf_counter()` seconds.
    `hold`, `stop`, `played` and `busy` may be called from any thread.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, rate: float | None, expected_seconds: float) -> None:
        """Begin a reply. `rate` is seconds of computing per second of sound, None if it is not known yet."""

    def push(self, samples: Floats) -> None:
        """Append to the reply."""

    def finish(self) -> None:
        """The reply is complete: play what there is."""

    def hold(self, held: bool) -> None:
        """Hold this reply while it is not certain yet whether the user interrupts it, or let it go on."""

    def stop(self) -> int:
        """Be silent at once, within one callback. Returns how many samples of this reply were played."""

    def ensure(self) -> None:
        """While something is still to be played, check that the device is there, and wait for it if it is not.

        Raises:
            AudioDeviceLost: the device is gone, and did not come back in time.
        """

    def played(self) -> int:
        """Samples of this reply that have left for the device."""

    def underruns(self) -> int:
        """How often there was not enough of this reply to play."""

    def busy(self) -> bool:
        """Whether something of this reply is still to be played."""

    def first_queued(self) -> float | None:
        """When the first sample of this reply was pushed."""

    def first_played(self) -> float | None:
        """When the first sample of this reply left for the device."""
