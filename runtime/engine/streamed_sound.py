"""A sound that a context is told while it is spoken: row by row through the encoder, and into the KV cache.

In: samples as they come. Out: the context, which knows the sound as one piece. The sound may end, and go on after all.
The same sound gives the same bits, in whatever pieces it comes. Only for encoders that work as sound comes
(`AudioEncoder.streams`).
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.engine.audio_encoder import AudioEncoder
from voxrill.runtime.engine.context import Context, ContextMark, Floats, HeardSound

PREFILLED = 2
"""Embeddings of one prefill. With LFM3-Audio in INT4 a step of two positions took 27.5 ms, one of one 25.4. At the end
of a sound two are left at most: one that waited, and the last one."""


class StreamedSound:
    """One sound. `samples`: how many were heard; `ended`: whether it has ended, for now."""

    def __init__(self, context: Context, encoder: AudioEncoder) -> None:
        self._context = context
        self._stream = encoder.stream(rows=1)
        self._rows: list[Floats] = []
        self._heard: list[Floats] = []
        self._end: ContextMark | None = None
        self.start = context.mark()
        self.samples = 0

    @property
    def ended(self) -> bool:
        """Whether the sound has ended, for now."""
        return self._end is not None

    def hear(self, samples: Floats) -> None:
        """Take in the next samples (n,) at 16 kHz. Whatever is complete is encoded at once.

        Raises:
            ContextFull: it does not fit.
        """
        self.samples += len(samples)
        self._heard.append(samples)
        for row in self._stream.push(samples):
            self._rows.append(row[None])
            self._context.add(HeardSound(row[None]))
            if len(self._rows) % PREFILLED == 0:
                self._context.advance()

    def begins(self, sound: Floats) -> bool:
        """Whether `sound` (n,) begins with what was heard."""
        heard = np.concatenate([sound[:0], *self._heard])
        return np.array_equal(heard, sound[: len(heard)])

    def end(self) -> None:
        """The sound ends here: take in what is left of it."""
        self._end = self._context.mark()
        last = self._stream.fork().flush()
        if len(last):
            self._context.add(HeardSound(last))
        self._keep_as_one([*self._rows, last] if len(last) else self._rows)

    def go_on(self) -> None:
        """Forget what came after the end: the sound goes on."""
        if self._end is not None:
            self._context.rewind(self._end)
            self._end = None
            self._keep_as_one(self._rows)

    def forget(self) -> None:
        """Have the context forget the sound, and what came after it."""
        self._context.rewind(self.start)

    def _keep_as_one(self, rows: list[Floats]) -> None:
        """Keep the rows as one piece, as those of a sound that is heard whole are kept."""
        self._context.pieces[self.start.pieces :] = [HeardSound(np.concatenate(rows))] if rows else []
