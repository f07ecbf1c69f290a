"""The sound of one reply on its way to the device, shared by two threads without a lock.

One thread pushes chunks at the device's rate; PortAudio's thread takes samples. Each attribute is written by one thread
only. The queue between them is a deque: appending and popping are atomic. A thread may see the other's count a moment
late. Then it acts at the next chunk or the next callback; it never waits for the other thread.
"""

from __future__ import annotations

from collections import deque

from voxrill.runtime.audio.jitter import JitterPolicy
from voxrill.runtime.audio.protocols import Floats


class ReplySound:
    """One reply at `rate` Hz. `policy` says when it may start, and when it may go on after an underrun."""

    def __init__(self, rate: int, policy: JitterPolicy) -> None:
        self.rate = rate
        self.first_queued: float | None = None
        self.first_played: float | None = None
        # Written by the thread that pushes:
        self.skipped = 0.0  # seconds of silence that were left out at the beginning
        self.pushed = 0  # samples
        self.underruns = 0  # underruns after which more sound came: the user heard a gap
        self.finished = self.stopped = self.held = False
        # Written by the callback:
        self.taken = 0  # samples
        self.dry = 0  # times that there was too little for the callback
        self.silent = False  # it was faded out
        # Written by the thread that pushes: `dry` at which the policy last let it play. As long as `dry` is larger, the
        # callback plays nothing. -1: it was never let play, so that it waits although it never ran dry.
        self._permitted = -1
        self._policy = policy
        self._offset = 0  # into the first chunk
        self._chunks: deque[Floats] = deque()

    def push(self, samples: Floats) -> None:
        """From the thread that pushes: more sound, (n,)."""
        if not len(samples):
            return
        dry = self.underruns = self.dry
        self._append(samples)
        waiting, played = (self.pushed - self.taken) / self.rate, self.skipped + self.taken / self.rate
        if self._permitted < dry and self._policy.may_start(waiting, played, dry):
            self._permitted = dry

    def finish(self, rest: Floats) -> None:
        """From the thread that pushes: `rest` (n,), which the resampler held back, is the last of it."""
        if self.taken < self.pushed:  # or else all was played, and the end of the reply is no gap
            self.underruns = self.dry
        self._append(rest)
        self.finished = True

    def _append(self, samples: Floats) -> None:
        self._chunks.append(samples)
        self.pushed += len(samples)

    def fill(self, out: Floats) -> int:
        """From the callback: move what may be played into `out` (n,). Returns how many samples were moved."""
        if not self.finished and self._permitted < self.dry:
            return 0
        filled = 0
        while filled < len(out) and self._chunks:
            chunk = self._chunks[0]
            part = min(len(chunk) - self._offset, len(out) - filled)
            out[filled : filled + part] = chunk[self._offset : self._offset + part]
            filled += part
            self._offset += part
            if self._offset == len(chunk):
                self._chunks.popleft()
                self._offset = 0
        self.taken += filled
        if filled < len(out) and not self.finished:
            self.dry += 1
        return filled

    @property
    def over(self) -> bool:
        """Whether nothing of it will be played any more."""
        return self.stopped or (self.finished and self.taken == self.pushed)
