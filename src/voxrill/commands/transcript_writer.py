"""One sound to a transcript on stdout or in a file; the terminal shows the progress.

In: a file or a microphone. Out: text, subtitles or JSON, segment by segment. With an output file, a journal keeps the
finished segments until the file is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from voxrill.commands.output import err, print_json
from voxrill.runtime.apps.batch import made_with
from voxrill.runtime.apps.journal import STARTED, Journal
from voxrill.runtime.apps.live_recognition import LiveRecogniser, live_task
from voxrill.runtime.apps.live_sound import LiveSound
from voxrill.runtime.apps.subtitles import TranscriptFormat, clock
from voxrill.runtime.apps.transcript import SegmentEvent, TranscriptEvent
from voxrill.runtime.apps.transcript_view import TranscriptView
from voxrill.runtime.apps.transcription import (
    ModelRecogniser,
    Transcriber,
    first_pieces,
    is_short,
    options_for,
    transcribe,
)
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, OpenSound, open_sound
from voxrill.runtime.audio.end_of_turn import EndOfTurn, FinishedModel, TimelyModel, with_patience
from voxrill.runtime.audio.protocols import Floats, Microphone
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.printable import as_unicode, printable
from voxrill.runtime.talk.keyboard import closed_by_signals

MICROPHONE = "microphone"
"""Stands in the journal of a live transcript, in place of a sound's hash."""


Listening = Callable[[Iterable[Floats], Callable[[], bool]], Iterator[TranscriptEvent]]
"""From a sound as it comes, and whether so much of it waits that tentative text is left out, to events."""


@dataclass(frozen=True)
class Writing:
    """Transcribes with `model` as `wished`, and writes in `form`, or events as JSON.

    out: the file that is written when the transcript is complete, with a journal until then. None: write to `stream`
    (None: stdout) as it goes. trim: see `Model.transcribe`; it means nothing for sound that is heard in segments.
    """

    model: Engine
    wished: dict[str, Any]
    form: TranscriptFormat
    out: Path | None
    json: bool
    trim: bool | None = None
    stream: TextIO | None = None

    def file(self, file: Path | BinaryIO, timed: bool, named: bool) -> None:
        """Transcribe a file: as it is heard, or in one line if it is short and no times were asked for.

        Args:
            file: what to transcribe.
            timed: whether times were asked for.
            named: whether each line says the file's name.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
            UsageError: there is a journal of something else.
        """
        with open_sound(file) as sound:
            pieces = sound.pieces()
            first = first_pieces(pieces)
            name = sound.name if named else None
            if not timed and is_short(first):
                self._whole(sound.name, np.concatenate(first), name)
            else:
                self._segments(sound, chain(first, pieces), name)
            sound.warn()

    def _segments(self, sound: OpenSound, pieces: Iterator[Floats], name: str | None) -> None:
        with ExitStack() as stack:
            journal = self._journal(stack, sound.sha256()) if self.out is not None else None
            known = list(journal.segments()) if journal is not None else []
            if known:
                err.print(f"going on after {clock(known[-1].end)}: {len(known)} segments were finished before")
            view = stack.enter_context(TranscriptView(err, sound.seconds, self.out is not None, not self.json))
            by_place = {(segment.start, segment.end): segment for segment in known}
            transcriber = Transcriber(self._ears(), options_for(self.model, tentative=False), known=by_place)
            self._write(transcriber.stream(_counted(pieces, view.heard)), view, journal, by_place, name)

    def live(self, microphone: Microphone, ends: FinishedModel | None = None, patience: float | None = None) -> None:
        """Transcribe what the microphone hears until Ctrl-C.

        Args:
            microphone: what is heard.
            ends: says at a pause whether a segment is over; None where silence alone decides.
            patience: see `with_patience`.

        Raises:
            AudioDeviceError: it cannot be used, or is gone and did not come back. What was heard before is written.
            UsageError: there is a journal of something else.
        """
        with ExitStack() as stack:
            journal = self._journal(stack, MICROPHONE) if self.out is not None else None
            count, since = _before(journal) if journal is not None else (0, 0.0)
            if count:
                err.print(f"going on at {clock(since)}: {count} segments were finished before")
            listen = self._listening(since, count, ends, patience)
            view = TranscriptView(err, None, self.out is not None, not self.json)
            sound = LiveSound(microphone, view.level)
            stack.enter_context(closed_by_signals(sound.close))
            stack.enter_context(sound)
            stack.enter_context(view)
            self._write(listen(sound, sound.hurry), view, journal, {}, None)
        if sound.lost:
            err.print(f"The model was too slow: {sound.lost:.0f} seconds were not heard", style="yellow")
        if sound.error is not None:
            raise sound.error

    def _listening(self, since: float, count: int, ends: FinishedModel | None, patience: float | None) -> Listening:
        """How the microphone is recognised: as the model was taught to do it live, else segment by segment.

        What is wished of segments, or of the answer, is segment by segment's.
        """
        task, wished = live_task(self.model), (ends, patience, *self.wished.values())
        if task is not None and all(value is None for value in wished):
            return LiveRecogniser(self.model, task, since=since, count=count).stream
        options = options_for(self.model, tentative=True)
        options = replace(options, endpoint=with_patience(options.endpoint, ends, patience))
        warn = partial(err.print, style="yellow", soft_wrap=True)
        judge = None if ends is None else EndOfTurn(TimelyModel(ends, warn))
        return Transcriber(self._ears(), options, since=since, count=count, judge=judge).stream

    def _ears(self) -> ModelRecogniser:
        return ModelRecogniser(self.model, **self.wished)

    def _journal(self, stack: ExitStack, sound: str) -> Journal:
        assert self.out is not None
        options = {**self.wished, "segments": asdict(options_for(self.model, tentative=False))}
        header = {**made_with(self.model.bundle, options), "sound": sound, STARTED: time.time()}
        return stack.enter_context(Journal(self.out, header))

    def _whole(self, file: str, sound: Floats, name: str | None) -> None:
        result = transcribe(self.model, sound, SAMPLE_RATE, trim=self.trim, **self.wished)
        if self.json:
            print_json({"file": as_unicode(file), **result.as_json()})
        else:
            print(result.text if name is None else f"{printable(name)}\t{result.text}", flush=True)

    def _write(
        self,
        events: Iterable[TranscriptEvent],
        view: TranscriptView,
        journal: Journal | None,
        known: dict[tuple[float, float], SegmentEvent],
        name: str | None,
    ) -> None:
        """Write events as they come; with a journal, write the transcript when it is complete."""
        segments = self._shown(events, view, name)
        if journal is not None:
            try:
                for segment in segments:
                    if (segment.start, segment.end) not in known:
                        journal.add(segment)
            except KeyboardInterrupt:
                err.print(f"{journal.found} segments are kept in {journal.path}; the same command goes on from there")
                raise
            journal.finish(self.form)
            err.print(f"wrote {self.out}", style="dim", soft_wrap=True)
            return
        for text in self.form.render(segments):
            if not self.json:
                print(
                    text if name is None or not text else f"{printable(name)}\t{text}",
                    end="",
                    flush=True,
                    file=self.stream,
                )

    def _shown(
        self, events: Iterable[TranscriptEvent], view: TranscriptView, name: str | None
    ) -> Iterator[SegmentEvent]:
        """Show each event; yield the segments among them."""
        for event in events:
            view.show(event)
            if self.json:
                print_json(({} if name is None else {"file": as_unicode(name)}) | event_json(event))
            if isinstance(event, SegmentEvent):
                yield event


def event_json(event: TranscriptEvent) -> dict[str, Any]:
    """An event as it is written in JSON."""
    if isinstance(event, SegmentEvent):
        return {"event": "segment", **event.as_json()}
    return {"event": "tentative", "start": round(event.start, 3), "end": round(event.end, 3), "text": event.text}


def _before(journal: Journal) -> tuple[int, float]:
    """How many segments a live transcript has so far, and how many seconds ago it was begun."""
    # The clock may have been set back meanwhile: times must not run backwards.
    end = max((segment.end for segment in journal.segments()), default=0.0)
    return journal.found, max(time.time() - journal.header[STARTED], end)


def _counted(pieces: Iterable[Floats], tell: Callable[[float], None]) -> Iterator[Floats]:
    """Yield `pieces`, and call `tell` with the seconds so far after each."""
    samples = 0
    for piece in pieces:
        yield piece
        samples += len(piece)
        tell(samples / SAMPLE_RATE)
