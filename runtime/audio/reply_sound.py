"""The sound of one reply on its way to the device, shared by the thread that pushes and PortAudio's without a lock.

In: chunks at the device's rate. Out: samples for the callback, and counts. Each attribute is written by one side only;
the queue between them is a deque, whose ends are atomic. A side that sees the other's count a moment late waits for
the next chunk or the next callback, never for the other side.
"""

from __future__ import annotations

from collections import deque

from voxrill.runtime.audio.jitter import JitterPolicy
from voxrill.runtime.audio.protocols import Floats


class ReplySound:
    """One reply at `rate` Hz, which starts and goes on when `policy` says so."""

    def __init__(self, rate: int, policy: JitterPolicy) -> None:
        self.rate = rate
        self.first_queued: float | None = None
        self.first_played: float | None = None
        self.skipped = 0.0  # seconds that were left out before it; written by the pushing side, as are the next five
        self.pushed = 0  # samples
        self.underruns = 0  # times that sound came after the reply had run dry
        self.finished = self.stopped = self.held = False
        self.taken = 0  # samples; written by the callback, as are the next two
        self.dry = 0  # times that there was too little for the callback
        self.silent = False  # it was faded out
        self._permitted = -1  # it may go on after running dry so many times
        self._policy = policy
        self._offset = 0  # into the first chunk
        self._chunks: deque[Floats] = deque()

    def push(self, samples: Floats) -> None:
        """The pushing side: more sound, (n,)."""
        if not len(samples):
            return
        dry = self.underruns = self.dry
        self._append(samples)
        waiting, played = (self.pushed - self.taken) / self.rate, self.skipped + self.taken / self.rate
        if self._permitted < dry and self._policy.may_start(waiting, played, dry):
            self._permitted = dry

    def finish(self, rest: Floats) -> None:
        """The pushing side: no more comes than `rest` (n,), which the resampler kept back (no gap)."""
        if self.taken < self.pushed:
            self.underruns = self.dry
        self._append(rest)
        self.finished = True

    def _append(self, samples: Floats) -> None:
        self._chunks.append(samples)
        self.pushed += len(samples)

    def fill(self, out: Floats) -> int:
        """The callback's side: move what may sound into `out` (n,); samples moved."""
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
        """Whether nothing of it will sound any more."""
        return self.stopped or (self.finished and self.taken == self.pushed)
