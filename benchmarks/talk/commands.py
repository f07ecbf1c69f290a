"""A virtual user: `python -m benchmarks.talk talk` and `python -m benchmarks.talk first-sound`.

The table or JSON goes to stdout, progress to stderr.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.talk import first_sound as sounds
from benchmarks.talk import report
from benchmarks.talk.asking import SpokenQuestion, ask, interrupt
from benchmarks.talk.cascade import SYNTHESISERS, check_cascade
from benchmarks.talk.questions import joined, read_questions
from benchmarks.talk.sound_server import SoundServer, check_pulseaudio
from benchmarks.talk.subject import Subject
from benchmarks.talk.virtual_user import VirtualUser
from voxrill.commands.options import BundleOption, JsonOption, ProviderOption, ThreadsOption
from voxrill.commands.output import check_plot, err, print_json
from voxrill.devices.processor import processor
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.progress import Progress, step_progress

app = typer.Typer(name="benchmarks.talk", no_args_is_help=True, rich_markup_mode=None, add_completion=False)

VOXRILL, CASCADE = "voxrill", "cascade"

_TALK = ("-m", "voxrill", "talk", "--barge-in", "--json")
_CASCADE = ("-m", "benchmarks.talk.cascade")
_FORCED = ("-m", "benchmarks.talk.forced")

LONG = 4.0
"""Seconds of long questions."""

_NO_QUALITY = "The answers' lengths are forced: with random weights these are times, and say nothing about quality"


@app.command()
def talk(
    bundle: BundleOption = None,
    count: Annotated[int, typer.Option("-n", "--turns", min=1, help="Questions that are asked.")] = 50,
    minutes: Annotated[float | None, typer.Option(min=0, help="Ask for so long instead, and see what grows.")] = None,
    interruptions: Annotated[int, typer.Option(min=0, help="Answers that are interrupted.")] = 10,
    questions: Annotated[
        Path | None, typer.Option(help="Folder of spoken questions; without one, Pebble's held-out ones.")
    ] = None,
    endpoint: Annotated[
        float, typer.Option(min=0.2, help="Seconds of silence that end a question.")
    ] = EndpointOptions.endpoint,
    end_of_turn: Annotated[
        list[str] | None,
        typer.Option(help="As of voxrill talk; several are asked side by side, each by a program of its own."),
    ] = None,
    cascade: Annotated[bool, typer.Option(help="Ask a cascade of other programs, too.")] = True,
    synthesiser: Annotated[str, typer.Option(help=f"The cascade's: {' or '.join(SYNTHESISERS)}.")] = SYNTHESISERS[0],
    provider: ProviderOption = None,
    json: JsonOption = False,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw.")] = None,
) -> None:
    """Ask `voxrill talk` recorded questions over virtual sound devices, and time its answers."""
    EndpointOptions(endpoint=endpoint)
    check_pulseaudio()
    if cascade:
        check_cascade(synthesiser)
    if plot is not None:
        check_plot(plot)
    asked = read_questions(questions, count)
    options = ("--endpoint", str(endpoint))
    chosen = [part for word in provider or () for part in ("--provider", word)]
    talk = [*_TALK, *options, *chosen, *(["--bundle", str(bundle)] if bundle else [])]
    commands = {_named(wish): [*talk, "--end-of-turn", wish] for wish in end_of_turn or ()} or {VOXRILL: talk}
    if cascade:
        commands[CASCADE] = [*_CASCADE, *options, "--synthesiser", synthesiser]
    with step_progress(err, "asking") as progress:
        results = measured(commands, asked, interruptions, progress, minutes)
    if plot is not None:
        report.plot(results, plot, f"{len(results[0].turns)} spoken questions, {endpoint:g} s of silence end one")
        err.print(f"wrote {plot}")
    if json:
        print_json(report.as_json(results, {"endpoint": endpoint, "processor": processor()}))
    else:
        out = Console(highlight=False, markup=False, emoji=False)
        out.print(report.table(results))
        if minutes is not None:
            out.print(report.growth_table(results))


def _named(wish: str) -> str:
    """What a program with that --end-of-turn is called; its sound devices are named after it, in letters and digits."""
    return f"{VOXRILL}-{''.join(letter if letter.isalnum() else '-' for letter in Path(wish).stem)}"


@app.command()
def first_sound(
    bundle: BundleOption = None,
    count: Annotated[int, typer.Option("-n", "--turns", min=2, help="Questions that are asked.")] = 20,
    questions: Annotated[
        Path | None, typer.Option(help="Folder of spoken questions; without one, Pebble's held-out ones.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=20.0, help="Length that answers are forced to.")] = 3.0,
    endpoint: Annotated[
        float, typer.Option(min=0.2, help="Seconds of silence that end a question.")
    ] = EndpointOptions.endpoint,
    threads: ThreadsOption = 0,
    json: JsonOption = False,
) -> None:
    """Show where the time to the first sound goes in the live loop, with any weights: answers have a forced length.

    Every second question is as recorded, and the others are joined to 4 seconds.
    """
    EndpointOptions(endpoint=endpoint)
    check_pulseaudio()
    asked = read_questions(questions, count)
    asked[1::2] = joined(asked, LONG)[1::2]
    command = [*_FORCED, "--seconds", str(seconds), "--endpoint", str(endpoint), "--threads", str(threads)]
    command += ["--bundle", str(bundle)] if bundle else []
    with step_progress(err, "asking") as progress:
        (result,) = measured({VOXRILL: command}, asked, 0, progress)
    groups = [sounds.group("as recorded", result.turns[::2]), sounds.group(f"{LONG:g} s", result.turns[1::2])]
    about = {"bundle": bundle and bundle.name, "endpoint": endpoint, "seconds": seconds, "note": _NO_QUALITY}
    if json:
        print_json({**about, "processor": processor(), "threads": threads, "groups": groups})
    else:
        title = f"first sound, {endpoint:g} s of silence end a question"
        Console(highlight=False, markup=False, emoji=False).print(sounds.table(groups, title))
    err.print(f"voxrill: {_NO_QUALITY}.", soft_wrap=True)


def measured(
    commands: dict[str, list[str]],
    questions: Sequence[SpokenQuestion],
    interruptions: int,
    progress: Progress,
    minutes: float | None = None,
) -> list[report.ProgramResult]:
    """Ask all programs the same questions in turn, once or for some minutes; then interrupt the first program."""
    results = {name: report.ProgramResult(name) for name in commands}
    with ExitStack() as stack:
        server = stack.enter_context(SoundServer(*commands))
        subjects = [
            stack.enter_context(Subject(name, command, server, server.wire(name))) for name, command in commands.items()
        ]
        users = [stack.enter_context(VirtualUser(subject.wire)) for subject in subjects]
        for done, total, question in _rounds(questions, minutes):
            for user, subject in zip(users, subjects, strict=True):
                progress(f"asking {subject.name}", done, total)
                results[subject.name].turns.append(ask(user, subject, question))
        for number, (first, second) in enumerate(_pairs(questions, interruptions)):
            progress(f"interrupting {subjects[0].name}", number, interruptions)
            results[subjects[0].name].interruptions.append(interrupt(users[0], subjects[0], first, second))
    return list(results.values())


def _rounds(questions: Sequence[SpokenQuestion], minutes: float | None) -> Iterator[tuple[int, int, SpokenQuestion]]:
    """Questions to ask, each with the progress so far and its total, in questions or in seconds."""
    if minutes is None:
        yield from ((number, len(questions), question) for number, question in enumerate(questions))
        return
    started, seconds = time.monotonic(), round(60 * minutes)
    for question in cycle(questions):
        passed = round(time.monotonic() - started)
        if passed >= seconds:
            return
        yield passed, seconds, question


def _pairs(questions: Sequence[SpokenQuestion], count: int) -> list[tuple[SpokenQuestion, SpokenQuestion]]:
    """Pairs: a question, with a long answer if that is known, and the one that interrupts its answer."""
    by_length = sorted(questions, key=lambda question: -len(question.reply or ""))
    return [(by_length[n % len(by_length)], questions[n % len(questions)]) for n in range(count)]
