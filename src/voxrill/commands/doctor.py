"""The command that says what this machine is, and what it lacks: doctor.

The findings go to stdout, as text or JSON; progress goes to stderr.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from voxrill.commands.options import AudioFlag, JsonOption, MicrophoneOption, SpeakerOption
from voxrill.commands.output import err, print_json
from voxrill.runtime.errors import DeviceError
from voxrill.runtime.progress import step_progress

if TYPE_CHECKING:
    from voxrill.runtime.upkeep.doctor import Examination, Facts


def doctor(
    audio: AudioFlag = False,
    microphone: MicrophoneOption = None,
    speaker: SpeakerOption = None,
    json: JsonOption = False,
) -> None:
    """Say what this machine is, how fast, and what is missing."""
    if audio or microphone or speaker:
        _sound(microphone, speaker, json)
        return
    from voxrill.runtime.upkeep.doctor import examine

    with step_progress(err, "examining") as progress:
        found = examine(progress)
    if json:
        print_json({**found.sections, "missing": list(map(asdict, found.missing))})
    else:
        _show(found)


def _show(found: Examination) -> None:
    for title, facts in found.sections.items():
        print(title)
        _show_facts(facts)
    print("missing" if found.missing else "nothing is missing")
    for missing in found.missing:
        print(f"  {missing.what}, for {missing.consequence}\n    {missing.remedy}")


def _show_facts(facts: Facts) -> None:
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"  {name.ljust(width)}  {' '.join(value) if isinstance(value, list) else value}")


def _sound(microphone: str | None, speaker: str | None, json: bool) -> None:
    from voxrill.commands.devices import Findings

    findings = Findings()
    findings.examine(microphone, speaker)
    if json:
        print_json({"checks": findings.checks, "advice": findings.advice})
    else:
        for check in findings.checks:
            print(f"{'ok ' if check['ok'] else 'BAD'} {check['what']}: {check['found']}")
        if findings.advice:
            print(findings.advice)
    if not all(check["ok"] for check in findings.checks):
        raise DeviceError("voxrill talk will not work on this machine yet", "See the lines marked BAD")
