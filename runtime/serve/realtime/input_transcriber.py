"""Transcripts of what the user said, for clients that ask for them. Answers come first, transcripts when there is time.

In: turns of sound. Out: OpenAI's events of their transcripts. `add` may be called by the listening thread, `step`
belongs to the worker's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve.api_errors import ApiError, Busy, as_api_error
from voxrill.runtime.serve.realtime.responses import Emit

_TRANSCRIPTION = "conversation.item.input_audio_transcription"

_MOST = 8
"""Turns that may wait for their transcript."""


class InputTranscriber:
    """Transcribes one session's turns, a small step at a time.

    Args:
        model: what transcribes.
        emit: takes the events.
    """

    def __init__(self, model: Engine, emit: Emit) -> None:
        self._model = model
        self._emit = emit
        self._waiting: deque[tuple[str, Floats]] = deque()
        self._writing: Iterator[None] | None = None

    def add(self, item: str, samples: Floats) -> None:
        """Transcribe an item's sound, (n,) at 16 kHz; if too many wait, tell the client that this one fails."""
        if len(self._waiting) >= _MOST:
            self._fail(item, Busy(1, "More is said than can be transcribed in time"))
            return
        self._waiting.append((item, samples))

    def step(self) -> bool:
        """Write the next piece; whether there was anything to write."""
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
        try:
            for event in Conversation(self._model.parts, task).ask(audio=samples, output="text", trim=False):
                text += getattr(event, "text", "")
                yield
        except VoxrillError as error:  # such as a sound that does not fit into the context: the session goes on
            self._fail(item, as_api_error(error))
            return
        usage = {"type": "duration", "seconds": round(len(samples) / RATE, 3)}
        self._emit(f"{_TRANSCRIPTION}.completed", item_id=item, content_index=0, transcript=text, usage=usage)

    def _fail(self, item: str, error: ApiError) -> None:
        self._emit(f"{_TRANSCRIPTION}.failed", item_id=item, content_index=0, error=error.body())

    def close(self) -> None:
        """Nothing more is wanted: a generator in the making refers to its maker, and keeps it in memory."""
        self._waiting.clear()
        self._writing = None
