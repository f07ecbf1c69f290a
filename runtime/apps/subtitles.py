"""A transcript in formats that other programs read: plain lines, SubRip, WebVTT, JSON.

In: segments, one at a time. Out: text to append, so that a transcript is never held in memory as a whole. Sources: the
W3C's WebVTT; SubRip was never specified, so it is written as VLC and ffmpeg read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import msgspec

from voxrill.runtime.apps.transcript import SegmentEvent
from voxrill.runtime.errors import UsageError

Render = Callable[[SegmentEvent], str]


@dataclass(frozen=True)
class TranscriptFormat:
    """One format: how it begins, the part of each segment, what stands between two parts, and how it ends."""

    segment: Render
    begin: str = ""
    between: str = ""
    end: str = ""

    def render(self, segments: Iterable[SegmentEvent]) -> Iterator[str]:
        """The parts of the transcript, each as soon as its segment is there."""
        yield self.begin
        between = ""
        for segment in segments:
            yield between + self.segment(segment)
            between = self.between
        yield self.end


def clock(seconds: float, point: str = ".") -> str:
    """`hh:mm:ss.mmm`; there may be more than 99 hours."""
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _plain(segment: SegmentEvent) -> str:
    return f"{segment.text}\n"


def _srt(segment: SegmentEvent) -> str:
    return f"{segment.number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n{segment.text}\n\n"


def _vtt(segment: SegmentEvent) -> str:
    return f"{clock(segment.start)} --> {clock(segment.end)}\n{escape(segment.text, quote=False)}\n\n"


def _json(segment: SegmentEvent) -> str:
    return msgspec.json.encode(segment.as_json()).decode()


FORMS = {
    "plain": TranscriptFormat(_plain),
    "srt": TranscriptFormat(_srt),
    "vtt": TranscriptFormat(_vtt, begin="WEBVTT\n\n"),
    "json": TranscriptFormat(_json, begin='{"segments":[\n', between=",\n", end="\n]}\n"),
}

_SUFFIXES = {"": "plain", ".txt": "plain", ".srt": "srt", ".vtt": "vtt", ".json": "json"}


def suffix_of(form: str) -> str:
    """The suffix of files in a format.

    Raises:
        UsageError: there is no format of that name.
    """
    form_named(form, None)
    return next(suffix for suffix, name in _SUFFIXES.items() if suffix and name == form)


def form_of(out: Path) -> str:
    """The name of the format that a file's suffix stands for."""
    return _SUFFIXES[out.suffix.lower()]


def form_named(name: str | None, out: Path | None) -> TranscriptFormat:
    """The format that was asked for by name, or else by the suffix of the output file, or else plain lines.

    Raises:
        UsageError: there is no format of that name or suffix.
    """
    if name is None:
        suffix = out.suffix.lower() if out is not None else ""
        if suffix not in _SUFFIXES:
            raise UsageError(
                f"{suffix} is not a transcript format that can be written",
                f"Give a name in {', '.join(filter(None, _SUFFIXES))}, or say with --format what is to be in it",
            )
        name = _SUFFIXES[suffix]
    if name not in FORMS:
        raise UsageError(f"--format is {name!r}", f"Give one of {', '.join(FORMS)}")
    return FORMS[name]
