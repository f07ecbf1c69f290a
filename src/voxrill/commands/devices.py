"""The command that lists devices, and the checks of doctor --audio.

What was found goes to stdout, as a table or JSON. Progress goes to stderr.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from voxrill.commands.options import AudioFlag, JsonOption, MicrophoneOption, SpeakerOption
from voxrill.commands.output import err, print_columns, print_json
from voxrill.commands.output import out as stdout
from voxrill.devices.profile import read_profile, shipped_profiles
from voxrill.devices.providers import PROVIDERS
from voxrill.runtime.audio import sound_checks
from voxrill.runtime.audio.devices import THING, AudioDevice, Direction, choose
from voxrill.runtime.audio.echo import canceller
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.protocols import RATE
from voxrill.runtime.audio.sound_checks import MicrophoneLevel
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.errors import MissingDependency, VoxrillError

TEST_HZ = 440.0  # even small loudspeakers can play this
AFTER_TONE = 0.2
"""Seconds that the last samples of a tone may take from PortAudio to the loudspeaker."""


def devices(
    audio: AudioFlag = False,
    test: Annotated[bool, typer.Option("--test", help="Listen to the microphone for a second.")] = False,
    tone: Annotated[bool, typer.Option("--tone", help="Play a tone on the loudspeaker.")] = False,
    microphone: MicrophoneOption = None,
    speaker: SpeakerOption = None,
    json: JsonOption = False,
) -> None:
    """List devices and providers, or microphones and loudspeakers."""
    if not (audio or test or tone):
        _list_known(json)
        return
    system = AudioSystem()
    found = system.devices()
    heard = _listen(system, microphone) if test else None
    if tone:
        _play_tone(system, speaker)
    if json:
        print_json({"devices": [asdict(device) for device in found], "heard": heard and _finite(asdict(heard))})
        return
    stdout.print(_table(found))
    if not found:
        err.print("There is no microphone and no loudspeaker. Connect one, and run: voxrill doctor --audio")
    if heard is not None:
        found_there = "; ".join(filter(None, (_described(heard), heard.problem)))
        print(f"the microphone {choose(found, 'input', microphone).name}: {found_there}")


def _list_known(json: bool) -> None:
    profiles = {name: read_profile(name).name for name in shipped_profiles()}
    if json:
        known = [{**asdict(provider), "here": provider.here} for provider in PROVIDERS.values()]
        print_json({"profiles": profiles, "providers": known})
        return
    print_columns([("--device", "what"), *profiles.items()])
    print()
    rows = [(p.name, "here" if p.here else f"not here: {p.remedy}", p.evidence) for p in PROVIDERS.values()]
    print_columns([("--provider", "", "evidence"), *rows])


class Findings:
    """The results of `doctor --audio`: checks in order, and advice."""

    def __init__(self) -> None:
        self.checks: list[dict[str, Any]] = []
        self.advice = ""

    def examine(self, microphone: str | None, speaker: str | None) -> None:
        """Run all checks, except those that need something that has failed."""
        system = self._check("PortAudio", AudioSystem, lambda system: f"{len(system.devices())} devices")
        if system is None:
            return
        source = self._check(THING["input"], lambda: choose(system.devices(), "input", microphone), _device)
        sink = self._check(THING["output"], lambda: choose(system.devices(), "output", speaker), _device)
        if source is not None and sink is not None:
            self._listen(system, microphone, speaker)

    def _listen(self, system: AudioSystem, microphone: str | None, speaker: str | None) -> None:
        def listen() -> tuple[MicrophoneLevel, MicrophoneLevel]:
            err.print("Listening, and playing two seconds of noise ...", style="dim")
            with DeviceMicrophone(system, microphone) as source, Speaker(system, RATE, speaker) as sink:
                return sound_checks.echo(source, sink)

        levels = self._check("echo", listen, lambda heard: f"{_described(heard[0])}; noise played: {_dbfs(heard[1])}")
        if levels is None:
            return
        room, during = levels
        louder = max(room, during, key=lambda heard: heard.level)
        if louder.problem:
            self.checks[-1].update(ok=False, found=f"{self.checks[-1]['found']}; {louder.problem}")
        elif not sound_checks.is_heard(room, during):
            self.advice = "The microphone does not hear the loudspeaker. Run: voxrill talk --barge-in"
        else:
            self.advice = _advice_on_echo()

    def _check(self, what: str, run: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
        """Run a check; its result, or None if it failed."""
        try:
            given = run()
            self.checks.append({"what": what, "ok": True, "found": describe(given)})
        except VoxrillError as error:
            self.checks.append({"what": what, "ok": False, "found": str(error)})
            return None
        return given


def _advice_on_echo() -> str:
    heard = "The microphone hears the loudspeaker"
    try:
        canceller()
    except MissingDependency as error:
        return f"{heard}, so voxrill talk listens only after an answer. To interrupt, wear headphones. {error.remedy}"
    return f"{heard}. Run: voxrill talk --echo-cancel"


def _listen(system: AudioSystem, wanted: str | None) -> MicrophoneLevel:
    with DeviceMicrophone(system, wanted) as microphone:
        err.print(f"Listening to {microphone.name} ...", style="dim")
        return sound_checks.hear(microphone)


def _play_tone(system: AudioSystem, wanted: str | None) -> None:
    with Speaker(system, RATE, wanted) as speaker:
        err.print(f"Playing a tone on {speaker.name} ...", style="dim")
        sound_checks.play(speaker, tone(hz=TEST_HZ))
        while speaker.busy():
            time.sleep(0.05)
        time.sleep(AFTER_TONE)


def _table(found: list[AudioDevice]) -> Table:
    table = Table(title="sound devices", title_justify="left", title_style="bold")
    for column in ("", "name", "through", "in", "out", "rate, Hz", "default"):
        table.add_column(column, overflow="fold")
    directions: tuple[Direction, ...] = ("input", "output")
    for device in found:
        default = ", ".join(THING[direction] for direction in directions if device.is_default(direction))
        row = (device.index, device.name, device.host, device.inputs, device.outputs, device.rate, default)
        table.add_row(*map(str, row))
    return table


def _device(device: AudioDevice) -> str:
    return f"{device.name}, {device.rate} Hz"


def _described(heard: MicrophoneLevel) -> str:
    clipped = f", {heard.clipped} clipped samples" if heard.clipped else ""
    return f"{_dbfs(heard)}{clipped}"


def _dbfs(heard: MicrophoneLevel) -> str:
    if heard.peak == -math.inf:
        return "digital silence"
    return f"{heard.level:.0f} dB of full scale, peak {heard.peak:.0f} dB"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """The same with null for infinity, which JSON does not have: the level of digital silence."""
    return {name: None if value == -math.inf else value for name, value in values.items()}
