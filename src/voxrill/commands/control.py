"""The commands classify and control: a sound to a label, or to the call of a command.

Results go to stdout, as lines or JSON. Everything else goes to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from voxrill.commands.failures import Failures
from voxrill.commands.once import say_waiting
from voxrill.commands.options import (
    FollowUpOption,
    ForceOption,
    JsonOption,
    Loading,
    MicrophoneOption,
    SpeakerOption,
    SystemOption,
    TrimOption,
    TurnWish,
    WakeWordOption,
    loads_model,
    sound_source,
)
from voxrill.commands.output import STDOUT, err, print_json
from voxrill.commands.output import out as stdout
from voxrill.commands.output_files import check_sound_output
from voxrill.model import Model
from voxrill.runtime.apps.classify import TASK, Classifier
from voxrill.runtime.apps.control import THRESHOLD, Control, Understood
from voxrill.runtime.apps.grammar import read_grammar
from voxrill.runtime.apps.live_control import Commanded, LiveControl, LiveOptions
from voxrill.runtime.apps.own_end import pause_judge
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.mute import MutePlayer
from voxrill.runtime.audio.protocols import Player
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.wake_word import FOLLOW_UP, LIST, WakeWord, Waking, wake_words
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.printable import as_unicode, printable
from voxrill.runtime.talk.events import Notice
from voxrill.runtime.talk.keyboard import closed_by_signals
from voxrill.runtime.talk.view import make_view


@loads_model
def classify(
    files: Annotated[list[Path], typer.Argument(help="Sound files of any kind and rate; - reads one from stdin.")],
    labels: Annotated[
        str | None, typer.Option(help="Labels with commas between them. The built-in model has its own.")
    ] = None,
    task: Annotated[str, typer.Option(help="What the labels name: intent, emotion, style, language ...")] = TASK,
    trim: TrimOption = None,
    loading: Loading = Loading(),
    system: SystemOption = None,
    json: JsonOption = False,
) -> None:
    """Tell which of some labels fits a sound, with probabilities."""
    model = loading.model()
    classifier = Classifier(model, None if labels is None else labels.split(","), task, system)
    failures = Failures(len(files))
    for file in files:
        with failures.of_one():
            found = classifier.classify(sound_source(file), trim)
            if json:
                print_json({"file": as_unicode(file), "label": found.label, "probabilities": found.probabilities,
                            "uncalibrated": found.uncalibrated, "mass": found.mass})  # fmt: skip
            elif len(files) > 1:
                print(f"{printable(file)}\t{found.label}\t{found.probabilities[found.label]:.3f}", flush=True)
            else:
                print("\n".join(f"{label}\t{probability:.3f}" for label, probability in found.probabilities.items()))
    failures.check()


@loads_model
def control(
    commands: Annotated[Path, typer.Argument(help="TOML file of commands; examples/commands.toml is one.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Spoken commands, as sound files; - reads stdin.", show_default=False),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Listen to the microphone; Ctrl-C ends it.")] = False,
    trim: TrimOption = None,
    loading: Loading = Loading(),
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=f"Smallest lead over the next call to accept, of 1; without it, the file's, or {THRESHOLD}.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run nothing; only show what was understood.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", help="Sound file for the spoken answer to one file. A sound that Voxrill made is replaced."
        ),
    ] = None,
    force: ForceOption = False,
    microphone: MicrophoneOption = None,
    speaker: SpeakerOption = None,
    mute: Annotated[bool, typer.Option("--mute", help="Do not use a loudspeaker.")] = False,
    barge_in: Annotated[bool, typer.Option("--barge-in", help="Listen during answers, too (use headphones).")] = False,
    wake_word: WakeWordOption = None,
    follow_up: FollowUpOption = FOLLOW_UP,
    endpoint: Annotated[float, typer.Option(help="Seconds of silence that end a command.")] = EndpointOptions.endpoint,
    ending: TurnWish = TurnWish(),
    json: JsonOption = False,
) -> None:
    """Understand spoken commands, run them, and confirm them aloud."""
    if live == bool(files):
        problem = "files and --live do not go together" if live else "there is nothing to listen to"
        raise UsageError(problem, "Give either files or --live")
    if trim is not None and live:
        raise UsageError("--trim and --no-trim are for files", "Leave them out with --live, which hears speech only")
    if out is not None and (live or len(files or ()) > 1):
        raise UsageError("-o takes the answer to one sound file", "Give one file and -o, without --live")
    if out == STDOUT:
        raise UsageError("the call goes to stdout already", "Give -o the name of a file")
    check_sound_output(out, [commands, *(files or ())], force=force)
    if wake_word == LIST:
        print("\n".join(wake_words()))
        return
    if wake_word is not None and not live:
        raise UsageError("--wake-word is only for the microphone", "Give it with --live")
    waking = None if wake_word is None else Waking(WakeWord(wake_word), follow_up)
    if not live and ending != TurnWish():
        raise UsageError("--end-of-turn and --patience are for the microphone", "Give them with --live")
    ends = ending.model() if live else None
    endpoints = ending.options(EndpointOptions(endpoint=endpoint), ends)
    grammar = read_grammar(commands)
    system = AudioSystem() if live else None
    model = loading.model()
    controls = Control(model, grammar, threshold)
    if system is None:
        _control_files(model, controls, files or [], trim, not dry_run, out, json)
        return
    view = make_view(err, stdout)

    def notify(sentence: str) -> None:
        view.show(Notice(sentence))

    def report(commanded: Commanded) -> None:
        timing = {"latency_ms": 1000 * commanded.latency, "after_voice_ms": 1000 * commanded.after_voice}
        _show(commanded.understood, commanded.answer, json, commanded.error, timing)
        if commanded.error is not None:
            notify(str(commanded.error))

    player: Player = MutePlayer() if mute else Speaker(system, model.sample_rate, speaker, notify)
    heard = DeviceMicrophone(system, microphone, notify)
    options = LiveOptions(endpoints, barge_in, not dry_run)
    judge = pause_judge(model, ending.end_of_turn, ends, notify)
    listening = LiveControl(model, controls, heard, player, view, report, options, waking, judge=judge)
    say_waiting()
    with closed_by_signals(listening.close):
        listening.run()


def _control_files(
    model: Model, controls: Control, files: list[Path], trim: bool | None, run: bool, out: str | None, json: bool
) -> None:
    failures = Failures(len(files))
    for file in files:
        with failures.of_one():
            understood = controls.hear(sound_source(file), trim)
            error = _ran(controls, understood) if run else None
            answer = controls.answer(understood) if error is None else ""
            _show(understood, answer, json, error, {"file": as_unicode(file)} if len(files) > 1 or json else {})
            if error is not None:
                raise error
            if out is not None and answer:
                model.speak(answer).save(out)
    failures.check()


def _ran(controls: Control, understood: Understood) -> VoxrillError | None:
    """Run an accepted call's hook; returns the error if it failed."""
    try:
        if understood.accepted and (written := controls.run(understood.call)):
            err.print(written, style="dim", soft_wrap=True)
    except VoxrillError as error:
        return error
    return None


def _show(understood: Understood, answer: str, json: bool, error: VoxrillError | None, more: dict[str, Any]) -> None:
    """Show an accepted call on stdout and the rest on stderr; or, with `json`, all of it as one line on stdout."""
    call = understood.call
    if json:
        print_json({**more, "command": call.command, "slots": call.slots, "words": understood.words,
                    "confidence": understood.confidence, "rival": understood.rival,
                    "accepted": understood.accepted, "answer": answer,
                    "error": str(error) if error else None, "seconds": understood.seconds,
                    "cpu_seconds": understood.cpu_seconds})  # fmt: skip
        return
    where = f"{printable(more['file'])}\t" if "file" in more else ""
    timing = f", {more['latency_ms']:.0f} ms after the endpoint" if "latency_ms" in more else ""
    sure = f"{100 * understood.confidence:.0f} % sure, {1000 * understood.seconds:.0f} ms{timing}"
    if understood.accepted:
        print(f"{where}{call}", flush=True)
        err.print(f"{sure}: {answer}" if answer else sure, style="dim", soft_wrap=True)
    else:
        err.print(f"{where}not understood ({sure}); the likeliest call is {call}", style="yellow", soft_wrap=True)
