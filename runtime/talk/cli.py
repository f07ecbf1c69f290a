"""The commands that talk, and that go with it: talk, replay, snapshot.

What is data goes to stdout (the answers' text, or JSON), everything else to stderr.
"""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from voxrill.runtime.builtin import is_pebble
from voxrill.runtime.cli import (
    BundleOption,
    JsonOption,
    MaxOption,
    ProviderOption,
    SeedOption,
    StrictOption,
    SystemOption,
    ThreadsOption,
    err,
    open_model,
    print_json,
)
from voxrill.runtime.conversation import Conversation
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.model import Model
from voxrill.runtime.snapshot import open_snapshot, save_snapshot
from voxrill.runtime.talk import replay as replaying
from voxrill.runtime.talk.device_stream import AudioSystem
from voxrill.runtime.talk.echo import EchoCancellingMicrophone, canceller
from voxrill.runtime.talk.edges import Microphone
from voxrill.runtime.talk.endpointing import EndpointOptions
from voxrill.runtime.talk.events import Notice, View
from voxrill.runtime.talk.loop import Keepers, Talk, TalkOptions
from voxrill.runtime.talk.microphone import DeviceMicrophone
from voxrill.runtime.talk.mind import MindOptions, Turn
from voxrill.runtime.talk.recording import Recorder, describe
from voxrill.runtime.talk.saving import Saver
from voxrill.runtime.talk.speaker import Speaker
from voxrill.runtime.talk.trace import TurnTrace, chrome_trace, table
from voxrill.runtime.talk.view import make_view

PEBBLE_TURNS = 0
"""Turns that the built-in model remembers. It was taught single commands: of 20 held-out ones asked in one conversation
it answered 3 rightly when it remembered them all, and 20 when it remembered none."""

SEEDS = 1 << 31

_out = Console(highlight=False, markup=False, emoji=False)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (talk, replay, snapshot):
        app.command()(command)


def talk(
    bundle: BundleOption = None,
    microphone: Annotated[str | None, typer.Option(help="Its name or a part of it; else the default.")] = None,
    speaker: Annotated[str | None, typer.Option(help="Its name or a part of it; else the default.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Type instead of speaking: a question a line.")] = False,
    push_to_talk: Annotated[
        bool, typer.Option("--push-to-talk", help="Press Enter to begin speaking, and again to end.")
    ] = False,
    barge_in: Annotated[
        bool, typer.Option("--barge-in", help="Listen while answering (headphones), so that you can interrupt.")
    ] = False,
    echo_cancel: Annotated[
        bool, typer.Option("--echo-cancel", help="The same without headphones; wants the extra echo.")
    ] = False,
    endpoint: Annotated[float, typer.Option(help="Seconds of silence that end a question.")] = EndpointOptions.endpoint,
    longest: Annotated[float, typer.Option(help="Seconds that a question may last.")] = EndpointOptions.longest,
    speculate: Annotated[bool, typer.Option(help="Begin answers at a short silence, on suspicion.")] = True,
    remember: Annotated[
        int, typer.Option(min=0, help="Positions of prompt and turns that are remembered (12.5 are a second).")
    ] = MindOptions.budget,
    turns: Annotated[
        int | None, typer.Option(min=0, help="Turns that are remembered at most; the built-in model: none.")
    ] = None,
    system: SystemOption = None,
    snapshot: Annotated[Path | None, typer.Option(help="A prompt that voxrill snapshot took in.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder for every turn as WAV and JSON.")] = None,
    record: Annotated[Path | None, typer.Option(help="New folder for all that voxrill replay needs.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show at the end where each turn's time went.")] = False,
    chrome: Annotated[Path | None, typer.Option("--chrome-trace", help="The same, for ui.perfetto.dev.")] = None,
    seed: SeedOption = None,
    max_new_tokens: MaxOption = None,
    threads: ThreadsOption = 0,
    provider: ProviderOption = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Talk: speak, be answered aloud, interrupt, go on. Ctrl-C ends it."""
    if text and push_to_talk:
        raise UsageError("--text and --push-to-talk both want the keyboard", "Give one of them")
    endpoints = EndpointOptions(endpoint=endpoint, longest=longest)
    canceller_made = canceller() if echo_cancel else None
    system_audio = AudioSystem()
    model = open_model(bundle, threads, provider, strict)
    conversation = _conversation(model, system, snapshot)
    limit = model.manifest.static.context if model.manifest.static else model.manifest.model.backbone.max_positions
    mind = MindOptions(
        speculate=speculate,
        budget=min(remember, limit // 2),  # the other half is for the next question and its answer
        turns=PEBBLE_TURNS if turns is None and is_pebble(model.manifest) else turns,
        seed=secrets.randbelow(SEEDS) if seed is None else seed,
        max_new_tokens=max_new_tokens,
    )
    view = make_view(err, err if json else _out)

    def notify(sentence: str) -> None:
        view.show(Notice(sentence))

    player = Speaker(system_audio, model.sample_rate, speaker, notify, tapped=echo_cancel)
    heard: Microphone | None = None if text else DeviceMicrophone(system_audio, microphone, notify)
    if heard is not None and canceller_made is not None:
        heard = EchoCancellingMicrophone(heard, player, canceller_made)
    options = TalkOptions(mind, endpoints, barge_in or echo_cancel, push_to_talk)
    traces: list[TurnTrace] = []
    with _keepers(model, conversation, mind, view, record, save, traces, json) as keepers:
        talking = Talk(conversation, heard, player, view, options, keepers)
        if text or push_to_talk:
            Thread(target=_type if text else _press, args=(talking,), daemon=True).start()
        with _closed_by_signals(talking):
            talking.run()
    if trace:
        err.print(table(traces))
    if chrome is not None:
        chrome.write_bytes(msgspec.json.encode(chrome_trace(traces)))


def replay(
    recording: Annotated[Path, typer.Argument(help="The folder that voxrill talk --record wrote.")],
    bundle: BundleOption = None,
    json: JsonOption = False,
) -> None:
    """Make a recorded talk's answers again, and compare them to the bit."""
    recorded = replaying.read_recording(recording)
    model = open_model(bundle, recorded.header.threads)
    for difference in replaying.differences(recorded, model):
        err.print(f"voxrill: other codes would be no wonder: {difference}", style="yellow", soft_wrap=True)
    differing = []
    for turn in replaying.replay(recorded, model):
        number = turn.recorded.turn
        if not turn.same:
            differing.append(str(number))
        if json:
            print_json({"turn": number, "same": turn.same, "text": turn.text, "recorded_text": turn.recorded.text})
        else:
            print(f"{number}\t{'same' if turn.same else 'differs'}\t{len(turn.codes)} frames\t{turn.text}", flush=True)
    if differing:
        raise VoxrillError(
            f"turns {', '.join(differing)} were answered otherwise than recorded", "Compare versions and processor"
        )


def snapshot(
    file: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")],
    bundle: BundleOption = None,
    system: SystemOption = None,
    document: Annotated[Path | None, typer.Option(help="A text file that follows the system prompt.")] = None,
    threads: ThreadsOption = 0,
    json: JsonOption = False,
) -> None:
    """Take in a system prompt, or a long document, once: talk --snapshot goes on from there in milliseconds."""
    model = open_model(bundle, threads)
    prompt = model.manifest.tasks.chat.system if system is None else system
    if document is not None:
        prompt = f"{prompt}\n{_document(document)}"
    positions = save_snapshot(model, prompt, file)
    size = file.stat().st_size
    if json:
        print_json({"file": str(file), "positions": positions, "bytes": size})
    else:
        print(f"{file}: {positions} positions, {size / 1e6:.1f} MB")


def _document(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text: {error}", "Give a text file in UTF-8") from None


def _conversation(model: Model, system: str | None, snapshot: Path | None) -> Conversation:
    if snapshot is None:
        return model.conversation(system=system)
    if system is not None:
        raise UsageError("--system and --snapshot are both a system prompt", "Give one of them")
    return open_snapshot(model, snapshot)


@contextmanager
def _keepers(
    model: Model,
    conversation: Conversation,
    mind: MindOptions,
    view: View,
    record: Path | None,
    save: Path | None,
    traces: list[TurnTrace],
    json: bool,
) -> Iterator[Keepers]:
    """Those who keep what was asked to be kept."""
    recorder = None if record is None else Recorder(record, describe(model, conversation.system, mind), view.show)
    saver = None if save is None else Saver(save, model.sample_rate, view.show)

    def keep(turn: Turn) -> None:
        traces.append(turn.trace)
        if recorder:
            recorder.keep(turn)
        if saver:
            saver.keep(turn)
        if json:
            print_json(_summary(turn))

    try:
        yield Keepers(recorder.hear, recorder.signal, keep) if recorder else Keepers(turn=keep)
    finally:
        if recorder:
            recorder.close()


def _summary(turn: Turn) -> dict[str, Any]:
    return {
        "turn": turn.number,
        "typed": turn.typed,
        "text": turn.answer.text,
        "interrupted": turn.heard is not None,
        "error": str(turn.error) if turn.error else None,
        "waited": turn.trace.waited,
        "underruns": turn.trace.underruns,
        "trace": asdict(turn.trace),
    }


def _type(talking: Talk) -> None:
    """Every line of stdin is a question; what is not typed at a terminal waits for the answer to the line before."""
    for line in sys.stdin:
        if line.strip():
            talking.type(line.strip())
            if not sys.stdin.isatty():
                talking.wait_until_answered()
    talking.close(finish=True)


def _press(talking: Talk) -> None:
    for _ in sys.stdin:
        talking.press()
    talking.close(finish=True)


@contextmanager
def _closed_by_signals(talking: Talk) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the talk where it is; a second one ends the program."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def close(number: int, _frame: object) -> None:
        talking.close()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, close)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
