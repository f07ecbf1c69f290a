"""Sound of any length to text as it is spoken: segments, each transcribed by itself, and tentative text before.

In: pieces of sound at 16 kHz, from a file or a microphone. Out: `TranscriptEvent`s. What is kept does not grow with the
sound. Silence and music are no speech, and give no text; a model that repeats itself without end is cut short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Unpack, cast

import numpy as np

from voxrill.runtime.apps.loops import before_loop
from voxrill.runtime.apps.segments import AROUND, SEGMENT_SECONDS, Change, Segmenter, Span, in_blocks, without_overlap
from voxrill.runtime.apps.transcript import SegmentEvent, TentativeEvent, TranscriptEvent
from voxrill.runtime.audio.audio_file import AudioSource, as_waveform, is_file, read_pieces
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK_SECONDS, Floats
from voxrill.runtime.audio.voice_activity import VoiceActivity, VoiceDetector
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.options import TextKeywords, answer_options
from voxrill.runtime.events import TextEvent
from voxrill.runtime.progress import result_of

WHOLE_SECONDS = 30.0
"""Seconds up to which a file is heard whole, unless times are asked for."""


@dataclass(frozen=True)
class Words:
    """A segment's text; loop: the model repeated itself without end, and was cut short."""

    text: str
    loop: bool = False


Recogniser = Callable[[Floats], Words]
"""Samples (n,) at 16 kHz to the words in them."""


Sound = AudioSource | Iterable[Floats]
"""What can be transcribed: a file, an array, or pieces (n,) at 16 kHz as they come."""


@dataclass(frozen=True)
class TranscribeOptions:
    """How to transcribe.

    tentative: also say what the open segment seems to say, at short pauses and after every `every` seconds of speech;
    least: seconds that must be voiced of a segment, or it is noise; endpoint: when segments begin and end.
    """

    tentative: bool = True
    every: float = 1.0
    least: float = 0.16
    endpoint: EndpointOptions = field(default_factory=lambda: EndpointOptions(longest=SEGMENT_SECONDS))


def hearing_span(model: Engine) -> float:
    """Seconds of sound that a model's encoder takes at once: as many as one likes, unless its shapes are fixed."""
    static = model.manifest.static
    return math.inf if static is None else (static.mel_frames - 1) * model.manifest.model.log_mel.window_stride


def options_for(model: Engine, tentative: bool) -> TranscribeOptions:
    """Options under which no segment is longer than the model's encoder takes."""
    longest = min(SEGMENT_SECONDS, hearing_span(model) - AROUND)
    return TranscribeOptions(tentative, endpoint=EndpointOptions(longest=longest))


def transcribe_stream(
    model: Engine, sound: Sound, system: str | None = None, tentative: bool = True, **options: Unpack[TextKeywords]
) -> Iterator[TranscriptEvent]:
    """The words of a sound of any length, segment by segment; see `Model.transcribe_stream`."""
    answer_options("transcribe_stream", options, TextKeywords)
    recognise = ModelRecogniser(model, system, **options)
    return Transcriber(recognise, options_for(model, tentative)).stream(pieces_of(sound))


class ModelRecogniser:
    """A model's ears: each segment is heard after the system prompt alone, which is taken in once.

    Args:
        model: nobody else may use it meanwhile.
        system: another system prompt than the family's own.
        options: `max_new_tokens`, `seed` and `text_sampling`; see `AnswerOptions`.
    """

    def __init__(self, model: Engine, system: str | None = None, **options: Unpack[TextKeywords]) -> None:
        answer_options("ModelRecogniser", options, TextKeywords)
        self._conversation = Conversation(model.parts, model.manifest.tasks.transcribe, system)
        self._conversation.prefill_prompt()
        self._tokenizer = model.parts.tokenizer
        self._options = options

    def __call__(self, samples: Floats) -> Words:
        """The words in `samples` (n,)."""
        return result_of(self.pieces(samples))

    def pieces(self, samples: Floats) -> Generator[str, None, Words]:
        """The text in `samples` (n,) as it is written, a piece a step, some of them empty; returns all of it.

        A model that repeats itself is stopped when that is certain: what it had repeated by then is among the pieces,
        and not in the words.
        """
        tokens: list[int] = []
        worth: int | None = None
        for event in self._conversation.steps(audio=samples, output="text", **self._options):
            if isinstance(event, TextEvent):
                tokens.append(event.token)
                worth = before_loop(tokens)
                if worth is not None:
                    break
            yield event.text if isinstance(event, TextEvent) else ""
        self._conversation.retract()
        return Words(self._tokenizer.decode(tokens[:worth]).strip(), worth is not None)


class Transcriber:
    """Transcribes one sound.

    Args:
        recognise: hears a segment.
        options: how to transcribe.
        voice: tells speech from other sound; None for silero's network.
        known: segments of this sound that need not be heard again, by start and end.
        since, count: seconds and segments that were before this sound.
    """

    def __init__(
        self,
        recognise: Recogniser,
        options: TranscribeOptions | None = None,
        voice: VoiceDetector | None = None,
        known: Mapping[tuple[float, float], SegmentEvent] | None = None,
        since: float = 0.0,
        count: int = 0,
    ) -> None:
        self._recognise = recognise
        self._options = options or TranscribeOptions()
        self._segmenter = Segmenter(voice or VoiceActivity(), self._options.endpoint)
        self._known = known or {}
        self._since, self._count = since, count
        self._least = self._options.least / BLOCK_SECONDS
        self._heard: tuple[int, int, Words] | None = None  # the open segment at its last pause
        self._waited = 0  # blocks since the last tentative text, or since the segment began
        self._before = ""  # the text of the segment before

    def stream(self, sound: Iterable[Floats], hurry: Callable[[], bool] = lambda: False) -> Iterator[TranscriptEvent]:
        """Events as they happen.

        Args:
            sound: pieces (n,) at 16 kHz, of any length.
            hurry: whether sound waits already: then there is no time for tentative text.
        """
        for block in in_blocks(sound):
            change = self._segmenter.hear(block)
            self._waited = self._waited + 1 if self._segmenter.speaking else 0
            if change is not None and change.what == "over":
                yield from self._stable(change.span)
            elif self._options.tentative and not hurry():
                yield from self._tentative(change)
        rest = self._segmenter.open()
        if rest is not None:
            yield from self._stable(rest)

    def _tentative(self, change: Change | None) -> Iterator[TentativeEvent]:
        if change is None:
            if not self._segmenter.voiced or self._waited * BLOCK_SECONDS < self._options.every:
                return
            span = self._segmenter.open()
            assert span is not None
        else:
            span = change.span
        if span.voiced < self._least:
            return
        words = self._recognise(span.samples)
        self._heard = (span.first, span.last, words) if change is not None else None
        self._waited = 0
        text = self._new(span, words)
        if text:
            yield TentativeEvent(self._since + span.start, self._since + span.end, text)

    def _stable(self, span: Span) -> Iterator[SegmentEvent]:
        segment = self._known.get((span.start, span.end)) or self._segment(span)
        self._heard = None
        self._before = segment.text if segment is not None else ""
        if segment is not None:
            self._count = segment.number
            yield segment

    def _segment(self, span: Span) -> SegmentEvent | None:
        if span.voiced < self._least:
            return None
        same = self._heard is not None and self._heard[:2] == (span.first, span.last)
        words = self._heard[2] if same and self._heard is not None else self._recognise(span.samples)
        text = self._new(span, words)
        if not text:
            return None
        start, end = self._since + span.start, self._since + span.end
        return SegmentEvent(self._count + 1, start, end, text, words.loop)

    def _new(self, span: Span, words: Words) -> str:
        return without_overlap(self._before, words.text) if span.joined else words.text


def pieces_of(sound: Sound) -> Iterator[Floats]:
    """Any sound as pieces (n,) at 16 kHz; a file is never held whole.

    Raises:
        AudioFileError: it cannot be read, or is not usable sound.
    """
    if is_file(sound):
        yield from read_pieces(sound)
    elif isinstance(sound, np.ndarray | tuple):
        yield as_waveform(sound)
    else:
        pieces = cast("Iterable[Floats]", sound)
        yield from (as_waveform(piece) for piece in pieces if len(piece))
