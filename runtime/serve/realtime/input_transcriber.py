"""Transcripts of what the user said, for clients that ask for them. A transcript comes before the answer to its turn.

In: turns of sound, and pauses at which a turn may be over. Out: OpenAI's events of their transcripts. A transcript is
begun at the pause, so that it is often known when the turn ends. Belongs to the worker's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from voxrill.runtime.audio.protocols import RATE
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import EndEvent, Result, TextEvent
from voxrill.runtime.serve.api_errors import ApiError, Busy, as_api_error
from voxrill.runtime.serve.realtime.emitter import Emit
from voxrill.runtime.talk.listener import Utterance

_TRANSCRIPTION = "conversation.item.input_audio_transcription"

_MOST = 8
"""Turns that may wait for their transcript."""


class InputTranscriber:
    """Transcribes one session's turns, a small step at a time.

    Args:
        model: what transcribes.
        emit: takes the events.
        known: takes an item and its transcript.
    """

    def __init__(self, model: Engine, emit: Emit, known: Callable[[str, str], None]) -> None:
        self._model = model
        self._emit = emit
        self._known = known
        self._waiting: deque[_Transcript] = deque()
        self._early: _Transcript | None = None

    def pause(self, utterance: Utterance) -> None:
        """Begin to transcribe what was said so far: the turn may be over."""
        self._early = _Transcript(self._model, utterance)

    def resume(self) -> None:
        """The turn was not over."""
        self._early = None

    def add(self, item: str, content_index: int, utterance: Utterance) -> None:
        """Transcribe an item's sound; if too many wait, tell the client that this one fails."""
        early, self._early = self._early, None
        if len(self._waiting) >= _MOST:
            self._fail(item, content_index, Busy(1, "More is said than can be transcribed in time"))
            return
        transcript = early if early is not None and early.is_of(utterance) else _Transcript(self._model, utterance)
        transcript.item, transcript.content_index = item, content_index
        self._waiting.append(transcript)

    def step(self) -> bool:
        """Write the next piece; whether there was anything to write."""
        transcript = self._waiting[0] if self._waiting else self._early
        if transcript is None or (transcript.over and not transcript.item):
            return False
        try:
            transcript.step()
        except VoxrillError as error:  # such as a sound that does not fit into the context: the session goes on
            transcript.error = as_api_error(error)
        if transcript.item:
            self._tell(transcript)
        return True

    def _tell(self, transcript: _Transcript) -> None:
        place = {"item_id": transcript.item, "content_index": transcript.content_index}
        new = transcript.text[transcript.told :]
        if new:
            self._emit(f"{_TRANSCRIPTION}.delta", **place, delta=new)
            transcript.told += len(new)
        if not transcript.over:
            return
        self._waiting.popleft()
        if transcript.error is not None:
            self._fail(transcript.item, transcript.content_index, transcript.error)
            return
        self._known(transcript.item, transcript.text)
        usage = {"type": "duration", "seconds": round(transcript.seconds, 3)}
        written = {"transcript": transcript.text, "confidence": transcript.confidence}
        self._emit(f"{_TRANSCRIPTION}.completed", **place, **written, usage=usage)

    def _fail(self, item: str, content_index: int, error: ApiError) -> None:
        self._emit(f"{_TRANSCRIPTION}.failed", item_id=item, content_index=content_index, error=error.body())

    def close(self) -> None:
        """Nothing more is wanted: a generator in the making refers to its maker, and keeps it in memory."""
        self._waiting.clear()
        self._early = None


class _Transcript:
    """One turn's transcript in the making. item: empty while the turn is not over. told: characters that were sent."""

    def __init__(self, model: Engine, utterance: Utterance) -> None:
        self.item, self.content_index = "", 0
        self.text, self.told = "", 0
        self.error: ApiError | None = None
        self.seconds = len(utterance.samples) / RATE
        self._span = utterance.start, utterance.end
        self.confidence = 0.0
        self._steps: Iterator[str | Result] | None = _written(model, utterance)

    @property
    def over(self) -> bool:
        """Whether it is complete, or failed."""
        return self._steps is None or self.error is not None

    def is_of(self, utterance: Utterance) -> bool:
        """Whether this is the transcript of that utterance: the end of a turn has the utterance of its last pause."""
        return self._span == (utterance.start, utterance.end)

    def step(self) -> None:
        """Write the next piece, if it is not complete."""
        piece = next(self._steps, None) if self._steps is not None else None
        if piece is None:
            self._steps = None
        elif isinstance(piece, str):
            self.text += piece
        else:
            self.confidence = piece.confidence


def _written(model: Engine, utterance: Utterance) -> Iterator[str | Result]:
    conversation = Conversation(model.parts, model.manifest.tasks.transcribe, word_for_word=True)
    for event in conversation.ask(audio=utterance.samples, output="text", sample_rate=RATE, trim=False):
        if isinstance(event, EndEvent):
            yield event.result
        else:
            yield event.text if isinstance(event, TextEvent) else ""
