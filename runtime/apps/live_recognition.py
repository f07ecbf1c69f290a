"""Recognition that writes while the user speaks, for a model that was taught it: the sound goes in chunk by chunk.

In: sound at 16 kHz as it comes. Out: `TranscriptEvent`s. After each chunk of about a second the model writes what it
understood, and the context goes on; a chunk without words ends a segment. Source: llama.cpp's live recognition with
LFM3-Audio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from voxrill.runtime.apps.transcript import SegmentEvent, TentativeEvent, TranscriptEvent
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.segments import SEGMENT_SECONDS
from voxrill.runtime.bundle.manifest import LiveTask, Sampling
from voxrill.runtime.engine.context import Context, HeardSound
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.sampling import Sampler, log_softmax


def live_task(model: Engine) -> LiveTask | None:
    """How the model recognises speech while it is spoken; None where it cannot."""
    return model.manifest.tasks.live if model.parts.encoder.streams else None


class LiveRecogniser:
    """Recognises one sound.

    Args:
        model: it must not be used elsewhere at the same time.
        task: how it was taught to.
        tentative: also give the text of the open segment after each chunk.
        since, count: seconds and segments that were before this sound.
    """

    def __init__(
        self, model: Engine, task: LiveTask, tentative: bool = True, since: float = 0.0, count: int = 0
    ) -> None:
        self._parts, self._task, self._tentative = model.parts, task, tentative
        self._since, self._count = since, count
        special = model.parts.tokenizer.special
        (self._end,), (self._last,) = special([task.end]), special([task.last])
        self._banned = special(task.unwritten)
        self._closing = {self._end, *special(task.closes)}
        self._encoder = model.parts.encoder.stream()
        self._waiting = self._encoder.push(np.zeros(0, np.float32))
        self._row_seconds = (
            model.manifest.model.encoder.subsampling * model.manifest.model.log_mel.hop_samples / SAMPLE_RATE
        )
        self._sampler = Sampler()
        self._heard = 0  # rows of the sound so far
        self._begun, self._text = 0.0, ""
        self._log_probabilities: list[float] = []
        self._begin()

    def stream(self, sound: Iterable[Floats], hurry: Callable[[], bool] = lambda: False) -> Iterator[TranscriptEvent]:
        """Events as they happen.

        Args:
            sound: pieces (n,) at 16 kHz, of any length.
            hurry: whether so much sound waits that tentative text is left out.
        """
        for piece in sound:
            self._waiting = np.concatenate([self._waiting, self._encoder.push(piece)])
            while len(self._waiting) >= self._task.rows:
                rows, self._waiting = self._waiting[: self._task.rows], self._waiting[self._task.rows :]
                yield from self._chunk(rows, False, hurry())
        rest = np.concatenate([self._waiting, self._encoder.flush()])
        if len(rest):
            yield from self._chunk(rest, True, True)
        yield from self._over()

    def _begin(self) -> None:
        """A new context: the prompt alone. The encoder's state carries on."""
        self._context = Context(self._parts)
        with self._context.turn("system"):
            self._context.add_text(self._task.system)
        self._context.open_turn("assistant")
        self._context.advance()  # before the sound comes: it would delay its first words
        self._carried: list[int] = []
        self._rows = 0

    def _chunk(self, rows: Floats, last: bool, hurry: bool) -> Iterator[TranscriptEvent]:
        if self._carried:
            self._context.add_tokens(self._carried)
        self._context.add(HeardSound(rows))
        if last:
            self._context.add_tokens([self._last])
        start = self._since + self._heard * self._row_seconds
        self._rows, self._heard = self._rows + len(rows), self._heard + len(rows)
        text = self._parts.tokenizer.decode(self._written(last))
        if not text.strip():
            yield from self._over()
        else:
            self._begun = self._begun if self._text else start
            self._text += text
            self._ended = self._since + self._heard * self._row_seconds
            if self._tentative and not hurry:
                yield TentativeEvent(self._begun, self._ended, self._text.strip())
            if self._ended - self._begun >= SEGMENT_SECONDS:
                yield from self._over()
        if self._rows >= (self._task.context_rows if text.strip() else self._task.quiet_rows):
            self._begin()

    def _written(self, last: bool) -> list[int]:
        """The tokens that the model writes after a chunk. The one that closes them goes before the next chunk."""
        tokens: list[int] = []
        sure: list[float] = []
        most, closing = (self._task.last_tokens, self._closing) if last else (self._task.most_tokens, {self._end})
        banned = tuple(set(self._banned) - closing)
        while True:
            logits = self._context.logits(self._context.advance())
            token = self._sampler.token(logits, Sampling(), banned)
            sure.append(float(log_softmax(logits)[token]))
            if token in closing:
                self._carried = [self._end]
                break
            tokens.append(token)
            if len(tokens) == most:
                self._carried = [token, self._end]
                break
            self._context.add_tokens([token])
        if tokens:  # how sure it is that nothing was said belongs to no segment
            self._log_probabilities += sure
        return tokens

    def _over(self) -> Iterator[SegmentEvent]:
        """The open segment is over, if there is one."""
        text, self._text = self._text.strip(), ""
        sure, self._log_probabilities = self._log_probabilities, []
        if text:
            self._count += 1
            confidence = math.exp(sum(sure) / len(sure))
            yield SegmentEvent(self._count, self._begun, self._ended, text, confidence=confidence)
