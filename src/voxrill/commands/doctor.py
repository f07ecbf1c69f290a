"""The command that says whether Voxrill can talk here, what is wrong, and what this machine is: doctor.

The findings go to stdout, as text or JSON; progress goes to stderr.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from voxrill.commands.options import AudioFlag, JsonOption, MicrophoneOption, SpeakerOption
from voxrill.commands.output import err, print_json
from voxrill.devices.memory import gigabytes
from voxrill.runtime.printable import printable
from voxrill.runtime.progress import step_progress

if TYPE_CHECKING:
    from voxrill.runtime.upkeep.doctor import Examination, Facts

CANNOT_TALK = 1
"""Exit status where `voxrill talk` does not work on this machine."""

_TITLES = {"model": "the 1.5 B model, in the memory that is free"}


def doctor(
    audio: AudioFlag = False,
    microphone: MicrophoneOption = None,
    speaker: SpeakerOption = None,
    json: JsonOption = False,
) -> None:
    """Say what this machine is, how fast, and what is missing.

    The exit status is 0 if voxrill talk works here, and 1 if it does not.
    """
    devices_only = audio or microphone or speaker
    can_talk = _sound(microphone, speaker, json) if devices_only else _examine(json)
    if not can_talk:
        raise typer.Exit(CANNOT_TALK)


def _examine(json: bool) -> bool:
    from voxrill.runtime.upkeep.doctor import examine

    with step_progress(err, "examining") as progress:
        found = examine(progress)
    if json:
        print_json({"can_talk": found.can_talk, "problems": list(map(asdict, found.problems)), **found.sections})
    else:
        _show(found)
    return found.can_talk


def _show(found: Examination) -> None:
    """What is wrong first, then the facts; the extras last, in two lines."""
    print("voxrill talk works on this machine" if found.can_talk else "voxrill talk does not work on this machine yet")
    for problem in found.problems:
        print(f"  {printable(problem.what)}, for {printable(problem.consequence)}\n    {printable(problem.remedy)}")
    for name, facts in found.sections.items():
        if name != "extras" or "not_found_out" in facts:
            print(_TITLES.get(name, name))
            _show_facts(facts)
    _show_extras(found.sections["extras"])


def _show_facts(facts: Facts) -> None:
    rows = dict(_row(name, value) for name, value in facts.items())
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"  {name.ljust(width)}  {printable(value)}")


def _row(name: str, value: Any) -> tuple[str, str]:
    """A fact for people: the unit moves from the end of its name to its value."""
    words = name.replace("_", " ")
    if value is None:
        return words.removesuffix(" bytes"), "unknown" if name.endswith("_bytes") else "none"
    if name.endswith("_bytes"):
        return words.removesuffix(" bytes"), gigabytes(value)
    for unit in ("GB/s", "GHz"):
        ending = unit.lower().replace("b/s", "bps")
        if name.endswith(f"_{ending}"):
            return words.removesuffix(f" {ending}"), f"{value} {unit}"
    if isinstance(value, dict):
        return words, _inner(value)
    return words, " ".join(value) if isinstance(value, list) else str(value)


def _inner(facts: Facts) -> str:
    """A provider, or a precision of the model, in one line."""
    if "fits" in facts:
        return f"needs {gigabytes(facts['needs_bytes'])}: {'fits' if facts['fits'] else 'does not fit'}"
    finds = f", finds {', '.join(facts['finds'])}" if facts.get("finds") else ""
    presence = f"here{finds}" if facts["here"] else f"not here: {facts['remedy']}"
    return f"{presence} ({facts['evidence']})"


def _show_extras(extras: Facts) -> None:
    if "not_found_out" in extras:
        return
    for title, wanted in (("extras", True), ("extras that are not installed", False)):
        names = [name for name, facts in extras.items() if facts["installed"] == wanted]
        if names:
            how = "" if wanted else '; pip install "voxrill[NAME]" adds one'
            print(f"{title}: {', '.join(names)}{how}")


def _sound(microphone: str | None, speaker: str | None, json: bool) -> bool:
    from voxrill.commands.devices import Findings

    findings = Findings()
    findings.examine(microphone, speaker)
    can_talk = all(check["ok"] for check in findings.checks)
    if json:
        print_json({"can_talk": can_talk, "checks": findings.checks, "advice": findings.advice})
        return can_talk
    for check in sorted(findings.checks, key=lambda check: bool(check["ok"])):  # what is wrong first
        print(f"{'ok ' if check['ok'] else 'BAD'} {check['what']}: {check['found']}")
    if findings.advice:
        print(findings.advice)
    if not can_talk:
        print("voxrill talk does not work on this machine yet: see the lines marked BAD")
    return can_talk
