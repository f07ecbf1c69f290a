"""Answers that end where a client's stop text begins.

In: an answer's events. Out: the same, up to the first of the stop texts. Text that may be the beginning of one is held
back until that is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.conversation import Steps
from voxrill.runtime.events import EndEvent, Event, Result, StageEvent, TextEvent


class StopText:
    """Ends one written answer.

    Args:
        steps: the answer's events.
        stops: the texts; an empty one never matches.
        context: the answer's.

    `found` says whether a text was found.
    """

    def __init__(self, steps: Steps, stops: Sequence[str], context: Context) -> None:
        self._steps, self._stops, self._context = steps, stops, context
        self.found = False

    def __iter__(self) -> Iterator[Event | StageEvent]:
        told, held, prompt = "", "", 0
        for event in self._steps:
            if isinstance(event, StageEvent):
                prompt = self._context.positions
            elif isinstance(event, TextEvent):
                ready, held = self._split(held + event.text)
                told += ready
                yield replace(event, text=ready)
                if self.found:
                    self._steps.close()
                    yield EndEvent("stop", Result(text=told, prompt_positions=prompt), event.at)
                    return
                continue
            elif isinstance(event, EndEvent) and held:  # the answer ended within what could have become a stop text
                yield TextEvent(held, 0, event.at)
            yield event

    def _split(self, text: str) -> tuple[str, str]:
        """What may be told, and what must wait."""
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            return text[: min(places)], ""
        waits = max((_overlap(text, stop) for stop in self._stops), default=0)
        return text[: len(text) - waits], text[len(text) - waits :]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if stop.startswith(text[-count:])), 0)
