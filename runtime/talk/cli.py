"""The commands of the live loop: talk, and replay of a talk that was recorded.

What the model says goes to stdout (on a terminal, into the live view), everything else to stderr. Ctrl-C is how a talk
ends, and no error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from voxrill.runtime.builtin import open_builtin
from voxrill.runtime.bundle import open_bundle
from voxrill.runtime.cli import (
    BUILTIN_NOTE,
    BundleOption,
    JsonOption,
    MaxOption,
    SystemOption,
    ThreadsOption,
    err,
    print_json,
)
from voxrill.runtime.errors import UsageError
from voxrill.runtime.model import Model
from voxrill.runtime.talk.device_stream import AudioSystem
from voxrill.runtime.talk.echo import EchoCancellingMicrophone, canceller
from voxrill.runtime.talk.edges import Microphone
from voxrill.runtime.talk.endpointing import EndpointOptions
from voxrill.runtime.talk.events import Notice, View
from voxrill.runtime.talk.loop import Keepers, Talk, TalkOptions
from voxrill.runtime.talk.microphone import DeviceMicrophone
from voxrill.runtime.talk.mind import MindOptions, Turn
from voxrill.runtime.talk.recording import Recorder, describe
from voxrill.runtime.talk.replay import Replayed, differences, read_recording
from voxrill.runtime.talk.replay import replay as replay_turns
from voxrill.runtime.talk.saving import Saver
from voxrill.runtime.talk.speaker import Speaker
from voxrill.runtime.talk.trace import TurnTrace, chrome_trace, table
from voxrill.runtime.talk.view import make_view

_out = Console(highlight=False, markup=False, emoji=False)

BUILTIN_TURNS = 1
"""Turns that the built-in model remembers: it was taught pairs of turns, and no longer talks."""

REPLAY_DIFFERS = 1
"""Exit status of a replay that gave other codes."""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (talk, replay):
        app.command()(command)


def talk(
    bundle: BundleOption = None,
    microphone: Annotated[str | None, typer.Option(help="Microphone: its name, a part of it, or its number.")] = None,
    speaker: Annotated[str | None, typer.Option(help="Loudspeaker: the same.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Type questions, a line each; the answers are spoken.")] = False,
    push_to_talk: Annotated[
        bool, typer.Option("--push-to-talk", help="Enter begins and ends a question, instead of silence.")
    ] = False,
    barge_in: Annotated[
        bool, typer.Option("--barge-in", help="Listen while speaking. Wants headphones, or --echo-cancellation.")
    ] = False,
    echo_cancellation: Annotated[
        bool, typer.Option("--echo-cancellation", help="Take the answer out of what is heard (extra: echo).")
    ] = False,
    endpoint: Annotated[float, typer.Option(help="Seconds of silence that end a question.")] = EndpointOptions.endpoint,
    longest: Annotated[float, typer.Option(help="Seconds after which a question is cut off.")] = (
        EndpointOptions.longest
    ),
    speculate: Annotated[
        bool, typer.Option("--speculate/--no-speculate", help="Begin an answer at the first short silence.")
    ] = True,
    context: Annotated[
        int, typer.Option(min=1, help="Positions of the talk that are remembered; older turns are forgotten.")
    ] = MindOptions.budget,
    save: Annotated[Path | None, typer.Option(help="Folder to keep turns in, as WAV and JSON.")] = None,
    record: Annotated[Path | None, typer.Option(help="New folder to record the talk into, for voxrill replay.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show where each turn's time went, at the end.")] = False,
    trace_file: Annotated[Path | None, typer.Option(help="The same as a Chrome trace (JSON).")] = None,
    system: SystemOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the first turn; the others count up from it.")] = MindOptions.seed,
    max_new_tokens: MaxOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Talk with the model, aloud: speak, pause, and it answers. Ctrl-C ends the talk."""
    if text and push_to_talk:
        raise UsageError("both --text and --push-to-talk want the keyboard", "Give one of them")
    options = TalkOptions(
        MindOptions(speculate, budget=context, turns=None, seed=seed, max_new_tokens=max_new_tokens),
        EndpointOptions(endpoint=endpoint, pause=min(EndpointOptions.pause, endpoint), longest=longest),
        barge_in or echo_cancellation,
        push_to_talk,
    )
    if bundle is None:
        err.print(BUILTIN_NOTE, style="dim", soft_wrap=True)
        options = replace(options, mind=replace(options.mind, turns=BUILTIN_TURNS))
    model = Model(open_builtin() if bundle is None else open_bundle(bundle), threads)
    conversation = model.conversation(system=system)
    view = make_view(err, _out)
    traces: list[TurnTrace] = []
    with ExitStack() as stack:
        keepers = stack.enter_context(
            _keepers(save, record, model, describe(model, conversation.system, options.mind), view, traces)
        )
        sound = AudioSystem()
        notify = _notifier(view)
        player = Speaker(sound, model.sample_rate, speaker, notify, tapped=echo_cancellation)
        heard = None if text else _microphone(sound, microphone, notify, player if echo_cancellation else None)
        running = Talk(conversation, heard, player, view, options, keepers)
        if text or push_to_talk:
            Thread(target=_follow_keyboard, args=(running, text), daemon=True).start()
        with suppress(KeyboardInterrupt):
            running.run()
    if trace:
        err.print(table(traces))
    if trace_file is not None:
        _write(trace_file, chrome_trace(traces))


def _microphone(
    sound: AudioSystem, wanted: str | None, notify: Callable[[str], None], speaker: Speaker | None
) -> Microphone:
    """The microphone; with a loudspeaker, one that does not hear it."""
    device = DeviceMicrophone(sound, wanted, notify)
    return device if speaker is None else EchoCancellingMicrophone(device, speaker, canceller())


def _notifier(view: View) -> Callable[[str], None]:
    return lambda text: view.show(Notice(text))


def _follow_keyboard(running: Talk, typed: bool) -> None:
    """Lines of stdin: questions, or presses of the push-to-talk key. Its end ends a typed talk."""
    for line in sys.stdin:
        if not typed:
            running.press()
        elif line.strip():
            running.type(line.strip())
            running.wait_until_answered()
    if typed:
        running.close(finish=True)


@contextmanager
def _keepers(
    save: Path | None,
    record: Path | None,
    model: Model,
    header: dict[str, Any],
    view: View,
    traces: list[TurnTrace],
) -> Iterator[Keepers]:
    """Who keeps turns: the traces always, and files where they are wished for."""
    saver = None if save is None else Saver(save, model.sample_rate, view.show)
    recorder = None if record is None else Recorder(record, header, view.show)

    def keep(turn: Turn) -> None:
        traces.append(turn.trace)
        for keeper in (saver, recorder):
            if keeper is not None:
                keeper.keep(turn)

    try:
        yield Keepers(turn=keep) if recorder is None else Keepers(recorder.hear, recorder.signal, keep)
    finally:
        if recorder is not None:
            recorder.close()


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        path.write_bytes(msgspec.json.encode(value) + b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "Give another file") from None


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that voxrill talk --record wrote.")],
    bundle: BundleOption = None,
    json: JsonOption = False,
    threads: ThreadsOption = 0,
) -> None:
    """Answer a recorded talk's questions once more, and compare every code."""
    recorded = read_recording(recording)
    model = Model(open_builtin() if bundle is None else open_bundle(bundle), threads or recorded.header.threads)
    for difference in differences(recorded, model):
        err.print(f"voxrill: {difference}; other codes are no wonder", style="yellow", soft_wrap=True)
    differ = 0
    for turn in replay_turns(recorded, model):
        differ += not turn.same
        if json:
            print_json({**asdict(turn), "same": turn.same})
        else:
            _out.print(_line(turn), soft_wrap=True)
    if differ:
        raise typer.Exit(REPLAY_DIFFERS)


def _line(turn: Replayed) -> str:
    recorded = turn.recorded
    verdict = "the same" if turn.same else "DIFFERENT"
    said = turn.error or turn.text.strip()
    return f"turn {recorded.turn}: {len(turn.tokens)} text tokens, {len(turn.codes)} frames, {verdict}: {said}"
