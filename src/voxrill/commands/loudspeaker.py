"""Where spoken answers go: to a file, to stdout, to the loudspeaker as they are made, or nowhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from voxrill.commands.options import ForceOption, OutOption, SpeakerOption
from voxrill.commands.output import STDOUT, err, sound_sink
from voxrill.commands.output_files import check_sound_output
from voxrill.runtime.audio.devices import choose
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.errors import AudioDeviceError, UsageError
from voxrill.runtime.events import AudioEvent

MEASURED = 0.4
"""Seconds of sound that are made before any is played: they tell how fast sound is made here."""

EXPECTED = 3.0
"""Seconds of sound that an answer is expected to have, as of the first answer in a talk."""

AFTER_LAST = 0.2
"""Seconds that the last samples may take from PortAudio to the loudspeaker."""

PlayOption = Annotated[
    bool | None,
    typer.Option(
        "--play/--no-play", help="Play the sound, or do not; else it is played without -o, if stdout is a terminal."
    ),
]


@dataclass(frozen=True)
class SoundOutput:
    """What -o, --force, --play and --speaker say.

    Without -o the sound is played if stdout is a terminal: then somebody sits there. A script or a service does not
    begin to speak because it was moved to a machine with a loudspeaker; it says --play.
    """

    out: OutOption = None
    force: ForceOption = False
    play: PlayOption = None
    speaker: SpeakerOption = None

    def check(self, inputs: Iterable[Any], text_on_stdout: bool) -> None:
        """Refuse an output that cannot be written, or that shares stdout with text. See `check_output`.

        Raises:
            UsageError: it does.
        """
        if self.out == STDOUT and text_on_stdout:
            raise UsageError(
                "text and raw sound cannot both go to stdout",
                "Give -o a file name, or leave the text out (--output audio)",
            )
        check_sound_output(self.out, inputs, force=self.force)

    def loudspeaker(self) -> AudioSystem | None:
        """Where the sound is played; None if it is not.

        Raises:
            AudioDeviceError: --play or --speaker was given, and there is no such loudspeaker.
        """
        wanted = (self.out is None and is_terminal()) if self.play is None else self.play
        if self.play or (wanted and self.speaker is not None):
            return _find_loudspeaker(self.speaker)
        return open_loudspeaker(None, "give -o OUT.wav to write the sound to a file") if wanted else None

    @contextmanager
    def sink(self, system: AudioSystem | None, sample_rate: int) -> Iterator[Callable[[AudioEvent], None]]:
        """What takes the sound as it is made. At the end of the block it is written, and played to its end."""
        with ExitStack() as sinks:
            write = sinks.enter_context(sound_sink(self.out, sample_rate))
            play = sinks.enter_context(_playing(system, sample_rate, self.speaker)) if system else None

            def take(event: AudioEvent) -> None:
                write(event)
                if play is not None:
                    play(event)

            yield take


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout.isatty()


def open_loudspeaker(wanted: str | None, otherwise: str) -> AudioSystem | None:
    """PortAudio, if there is a loudspeaker to play on; None if there is none, and stderr says so with `otherwise`.

    Raises:
        AudioDeviceError: `wanted` names a device that is not there.
    """
    try:
        return _find_loudspeaker(wanted)
    except AudioDeviceError as error:
        if wanted is not None:
            raise
        err.print(f"{error.message}: {otherwise}", style="dim", soft_wrap=True)
        return None


def _find_loudspeaker(wanted: str | None) -> AudioSystem:
    system = AudioSystem()
    choose(system.devices(), "output", wanted)
    return system


@contextmanager
def _playing(system: AudioSystem, sample_rate: int, wanted: str | None) -> Iterator[Callable[[AudioEvent], None]]:
    with Speaker(system, sample_rate, wanted, lambda text: err.print(text, style="yellow")) as speaker:
        playing = _Playing(speaker, sample_rate)
        yield playing.take
        playing.finish()
        while speaker.busy():
            speaker.ensure()
            time.sleep(0.02)
        time.sleep(AFTER_LAST)


class _Playing:
    """An answer on its way to the loudspeaker."""

    def __init__(self, speaker: Speaker, sample_rate: int) -> None:
        self._speaker = speaker
        self._rate = sample_rate
        self._waiting: list[AudioEvent] | None = []

    def take(self, event: AudioEvent) -> None:
        """Play the next piece, or keep it until it is known how fast sound is made."""
        if self._waiting is None:
            self._speaker.push(event.samples)
            self._speaker.ensure()
            return
        self._waiting.append(event)
        if self._seconds(self._waiting) >= MEASURED:
            self._begin(self._waiting)

    def finish(self) -> None:
        """The answer is whole."""
        if self._waiting:
            self._begin(self._waiting)
        self._speaker.finish()

    def _begin(self, made: list[AudioEvent]) -> None:
        later = self._seconds(made[1:])  # before the first piece lie the prompt's seconds
        self._speaker.begin((made[-1].at - made[0].at) / later if later else None, EXPECTED)
        for event in made:
            self._speaker.push(event.samples)
        self._waiting = None

    def _seconds(self, made: list[AudioEvent]) -> float:
        return sum(len(event.samples) for event in made) / self._rate
