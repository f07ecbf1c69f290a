"""What the user said, written down for the client that wants it: after all answers, a step at a time.

In: turns of sound. Out: OpenAI's events of their transcripts. `add` may be called by the ear's thread, `step` belongs
to the worker's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.serve.api_errors import Busy
from voxrill.runtime.serve.realtime.answering import Emit

_TRANSCRIPTION = "conversation.item.input_audio_transcription"

_MOST = 8
"""Turns that wait to be written down; answers come first."""


class Scribe:
    """Writes down one session's turns.

    Args:
        model: who writes.
        emit: takes the events.
    """

    def __init__(self, model: Engine, emit: Emit) -> None:
        self._model = model
        self._emit = emit
        self._waiting: deque[tuple[str, Floats]] = deque()
        self._writing: Iterator[None] | None = None

    def add(self, item: str, samples: Floats) -> None:
        """Write down an item's sound, (n,) at 16 kHz, or tell that there is too much to write."""
        if len(self._waiting) >= _MOST:
            error = Busy(1, "More is said than can be written down").body()
            self._emit(f"{_TRANSCRIPTION}.failed", item_id=item, content_index=0, error=error)
            return
        self._waiting.append((item, samples))

    def step(self) -> bool:
        """Write a little; whether there was anything to write."""
        if self._writing is None:
            if not self._waiting:
                return False
            self._writing = self._write(*self._waiting.popleft())
        if next(self._writing, self) is self:
            self._writing = None
        return True

    def _write(self, item: str, samples: Floats) -> Iterator[None]:
        text = ""
        task = self._model.manifest.tasks.transcribe
        for event in Conversation(self._model.parts, task).ask(audio=samples, output="text"):
            text += getattr(event, "text", "")
            yield
        usage = {"type": "duration", "seconds": round(len(samples) / RATE, 3)}
        self._emit(f"{_TRANSCRIPTION}.completed", item_id=item, content_index=0, transcript=text, usage=usage)
