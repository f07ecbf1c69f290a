"""Sound of any length to text: whole, as a `Transcript`; or as it is spoken, segment by segment.

In: sound at 16 kHz, from a file, an array or a microphone. Out: a `Transcript`, or `TranscriptEvent`s with tentative
text between the segments. Each segment is transcribed by itself, and what is kept does not grow with the sound. Silence
and music are no speech, and give no text. A model that repeats itself without end is cut short.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Unpack

import numpy as np
from numpy.typing import DTypeLike

from voxrill.runtime.apps.loops import before_loop
from voxrill.runtime.apps.stitching import Stitcher
from voxrill.runtime.apps.transcript import (
    SegmentEvent,
    TentativeEvent,
    Transcript,
    TranscriptEvent,
    confidence_of,
    joined_text,
)
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import EndpointOptions, for_recordings
from voxrill.runtime.audio.protocols import BLOCK_SECONDS, Floats
from voxrill.runtime.audio.segments import AROUND, LEAST, SEGMENT_SECONDS, Change, Segmenter, Span, in_blocks
from voxrill.runtime.audio.sound_source import AudioSource, SoundPiece, pieces_of
from voxrill.runtime.audio.voice_activity import VoiceActivity, VoiceDetector
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.options import TextKeywords, answer_options
from voxrill.runtime.events import EndEvent, Result, TextEvent
from voxrill.runtime.progress import result_of

WHOLE_SECONDS = 30.0
"""Seconds up to which a model that hears silence too hears a sound whole."""


@dataclass(frozen=True)
class Words:
    """A segment's text.

    loop: the model repeated itself without end, and was cut short; result: the model's answer, None where no model gave
    one, or where it was cut short; confidence: the answer's.
    """

    text: str
    loop: bool = False
    result: Result | None = None

    @property
    def confidence(self) -> float:
        """See `Result`."""
        return 0.0 if self.result is None else self.result.confidence


Recogniser = Callable[[Floats], Words]
"""Samples (n,) at 16 kHz to the words in them."""


Sound = AudioSource | Iterable[SoundPiece]
"""What can be transcribed: see `AudioSource`; or the pieces of a sound as they come."""


@dataclass(frozen=True)
class TranscribeOptions:
    """How to transcribe.

    tentative: also give tentative text of the open segment, at short pauses and after every `every` seconds of speech.
    least: a segment with fewer voiced seconds is noise. endpoint: when segments begin and end.
    """

    tentative: bool = True
    every: float = 1.0
    least: float = LEAST
    endpoint: EndpointOptions = field(default_factory=lambda: EndpointOptions(longest=SEGMENT_SECONDS))


def encoder_seconds(model: Engine) -> float:
    """Seconds of sound that a model's encoder takes at once: without limit, unless its shapes are fixed."""
    static = model.manifest.static
    return math.inf if static is None else (static.mel_frames - 1) * model.manifest.model.log_mel.window_stride


def longest_segment(model: Engine) -> float:
    """Seconds after which a segment is cut, so that it fits into the model's encoder with what is around it."""
    return min(SEGMENT_SECONDS, encoder_seconds(model) - AROUND)


def options_for(model: Engine, tentative: bool) -> TranscribeOptions:
    """Options under which no segment is longer than the model's encoder takes."""
    return TranscribeOptions(tentative, endpoint=for_recordings(longest_segment(model)))


def transcribe(
    model: Engine,
    sound: Sound,
    sample_rate: int | None = None,
    system: str | None = None,
    trim: bool | None = None,
    **options: Unpack[TextKeywords],
) -> Transcript:
    """The words of a sound of any length; see `Model.transcribe`.

    This is the rule that the library, the command and the evaluation share: a sound is heard whole if silence need not
    be cut away and it is short enough (`WHOLE_SECONDS`, and what the encoder takes), and in segments otherwise.
    """
    answer_options("transcribe", options, TextKeywords)
    pieces = pieces_of(sound, sample_rate)
    first = first_pieces(pieces)
    trim = model.parts.trim_silence if trim is None else trim
    if not trim and is_short(first) and _seconds(first) <= encoder_seconds(model):
        return _heard_whole(model, np.concatenate(first), system, options)
    return _heard_in_segments(model, chain(first, pieces), system, options)


def first_pieces(pieces: Iterator[Floats]) -> list[Floats]:
    """Pieces (n,) from the beginning of a sound: all of them if it is short enough to be heard whole, or some more."""
    taken: list[Floats] = []
    while is_short(taken) and (piece := next(pieces, None)) is not None:
        taken.append(piece)
    return taken


def is_short(pieces: Iterable[Floats]) -> bool:
    """Whether a sound may be heard whole, and is written as one line."""
    return _seconds(pieces) <= WHOLE_SECONDS


def _seconds(pieces: Iterable[Floats]) -> float:
    return sum(map(len, pieces)) / SAMPLE_RATE


def _heard_whole(model: Engine, sound: Floats, system: str | None, options: TextKeywords) -> Transcript:
    conversation = Conversation(model.parts, model.manifest.tasks.transcribe, system, word_for_word=True)
    *_, end = conversation.steps(audio=sound, output="text", trim=False, **options)
    assert isinstance(end, EndEvent)
    seconds = len(sound) / SAMPLE_RATE
    text = end.result.text.strip()
    segments = (SegmentEvent(1, 0.0, seconds, text, confidence=end.result.confidence),) if text else ()
    return Transcript(**vars(end.result), duration=seconds, segments=segments)


def _heard_in_segments(model: Engine, sound: Iterable[Floats], system: str | None, options: TextKeywords) -> Transcript:
    heard: list[Result] = []
    samples = 0
    recogniser = ModelRecogniser(model, system, **options)

    def recognise(samples: Floats) -> Words:
        words = recogniser(samples)
        if words.result is not None:
            heard.append(words.result)
        return words

    def counted() -> Iterator[Floats]:
        nonlocal samples
        for piece in sound:
            samples += len(piece)
            yield piece

    started, first = time.perf_counter(), None
    segments: list[SegmentEvent] = []
    for event in Transcriber(recognise, options_for(model, tentative=False)).stream(counted()):
        assert isinstance(event, SegmentEvent)
        first = first or time.perf_counter() - started
        segments.append(event)
    return Transcript(
        codes=np.zeros((model.parts.spec.codes.codebooks, 0), np.int64),  # nothing was spoken
        text=joined_text(segments),
        tokens=[token for result in heard for token in result.tokens],
        sample_rate=model.sample_rate,
        finish_reason=next((result.finish_reason for result in heard if result.finish_reason != "stop"), "stop"),
        confidence=confidence_of(segments),
        first_text=first,
        seconds=time.perf_counter() - started,
        prompt_positions=sum(result.prompt_positions for result in heard),
        stages=_added(result.stages for result in heard),
        duration=samples / SAMPLE_RATE,
        segments=tuple(segments),
    )


def _added(stages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Milliseconds by stage, of all segments together."""
    total: dict[str, float] = {}
    for of_one in stages:
        for name, milliseconds in of_one.items():
            total[name] = total.get(name, 0.0) + milliseconds
    return total


def transcribe_stream(
    model: Engine,
    sound: Sound,
    sample_rate: int | None = None,
    dtype: DTypeLike | None = None,
    system: str | None = None,
    tentative: bool = True,
    **options: Unpack[TextKeywords],
) -> Iterator[TranscriptEvent]:
    """The words of a sound of any length, segment by segment; see `Model.transcribe_stream`."""
    answer_options("transcribe_stream", options, TextKeywords)
    recognise = ModelRecogniser(model, system, **options)
    return Transcriber(recognise, options_for(model, tentative)).stream(pieces_of(sound, sample_rate, dtype))


class ModelRecogniser:
    """Recognises segments with a model, each after the system prompt alone, which is prefilled once.

    Args:
        model: it must not be used elsewhere at the same time.
        system: another system prompt than the family's own.
        options: `max_new_tokens`, `seed`, `temperature`, `top_k` and `top_p`; see `AnswerOptions`.
    """

    def __init__(self, model: Engine, system: str | None = None, **options: Unpack[TextKeywords]) -> None:
        answer_options("ModelRecogniser", options, TextKeywords)
        self._conversation = Conversation(model.parts, model.manifest.tasks.transcribe, system, word_for_word=True)
        self._conversation.prefill_prompt()
        self._tokenizer = model.parts.tokenizer
        self._options = options

    def __call__(self, samples: Floats) -> Words:
        """The words in `samples` (n,)."""
        return result_of(self.pieces(samples))

    def pieces(self, samples: Floats) -> Generator[str, None, Words]:
        """The text in `samples` (n,) as it is written, one piece a step, some of them empty. Returns all of it.

        A model that repeats itself is stopped as soon as that is certain. The pieces then hold some repetitions, which
        the words do not.
        """
        tokens: list[int] = []
        worth: int | None = None
        result: Result | None = None
        for event in self._conversation.steps(audio=samples, output="text", trim=False, **self._options):
            if isinstance(event, EndEvent):
                result = event.result
            elif isinstance(event, TextEvent):
                tokens.append(event.token)
                worth = before_loop(tokens)
                if worth is not None:
                    break
            yield event.text if isinstance(event, TextEvent) else ""
        self._conversation.retract()
        return Words(self._tokenizer.decode(tokens[:worth]).strip(), worth is not None, result)


class Transcriber:
    """Transcribes one sound.

    Args:
        recognise: finds the words in a segment.
        options: how to transcribe.
        voice: tells speech from other sound; None for silero's network, behind an automatic gain.
        known: segments of this sound that were transcribed before, by start and end; they are not heard again.
        since, count: seconds and segments that were before this sound.
        judge: says at a pause whether a segment is over; None where silence alone decides.
    """

    def __init__(
        self,
        recognise: Recogniser,
        options: TranscribeOptions | None = None,
        voice: VoiceDetector | None = None,
        known: Mapping[tuple[float, float], SegmentEvent] | None = None,
        since: float = 0.0,
        count: int = 0,
        judge: PauseJudge | None = None,
    ) -> None:
        self._recognise = recognise
        self._options = options or TranscribeOptions()
        self._segmenter = Segmenter(voice or VoiceActivity(auto_gain=True), self._options.endpoint, judge)
        self._known = known or {}
        self._stitcher = Stitcher(since, count)
        self._least = self._options.least / BLOCK_SECONDS
        self._heard: tuple[int, int, Words] | None = None  # the open segment at its last pause
        self._waited = 0  # blocks since the last tentative text, or since the segment began

    def stream(self, sound: Iterable[Floats], hurry: Callable[[], bool] = lambda: False) -> Iterator[TranscriptEvent]:
        """Events as they happen.

        Args:
            sound: pieces (n,) at 16 kHz, of any length.
            hurry: whether so much sound waits that tentative text is left out.
        """
        for block in in_blocks(sound):
            change = self._segmenter.hear(block)
            # `_waited` goes on counting during a pause, so that tentative text comes at once when speech goes on.
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
        # If the segment ends with this pause, its text is known already: the span will be the same.
        self._heard = (span.first, span.last, words) if change is not None else None
        self._waited = 0
        text = self._stitcher.new(span, words.text)
        if text:
            yield TentativeEvent(*self._stitcher.times(span), text)

    def _stable(self, span: Span) -> Iterator[SegmentEvent]:
        known = self._known.get((round(span.start, 4), round(span.end, 4)))  # as a `SegmentEvent` has them
        segment = self._stitcher.take(known) if known is not None else self._segment(span)
        self._heard = None
        if segment is not None:
            yield segment

    def _segment(self, span: Span) -> SegmentEvent | None:
        if span.voiced < self._least:
            return self._stitcher.take(None)
        same = self._heard is not None and self._heard[:2] == (span.first, span.last)
        words = self._heard[2] if same and self._heard is not None else self._recognise(span.samples)
        return self._stitcher.add(span, words.text, words.loop, words.confidence)
