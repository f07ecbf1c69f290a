"""The commands talk, replay and snapshot.

Data goes to stdout (the answers' text, or JSON), everything else to stderr.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from voxrill.commands.loudspeaker import open_loudspeaker
from voxrill.commands.once import say_waiting
from voxrill.commands.options import (
    BundleOption,
    FollowUpOption,
    JsonOption,
    Loading,
    MaxOption,
    MicrophoneOption,
    SeedOption,
    SpeakerOption,
    SystemOption,
    ThreadsOption,
    TurnWish,
    WakeWordOption,
    loads_model,
)
from voxrill.commands.output import err, print_json
from voxrill.commands.output import out as stdout
from voxrill.commands.output_files import check_output
from voxrill.commands.talk_sinks import talk_sinks
from voxrill.model import Model
from voxrill.runtime.apps.documents.asking import snapshot_document
from voxrill.runtime.apps.voice_bot import TalkKeywords, talk_options
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.audio.echo import EchoCancellingMicrophone, canceller
from voxrill.runtime.audio.echo_gate import EchoGate
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.mute import MutePlayer
from voxrill.runtime.audio.protocols import Microphone, Player
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.wake_word import FOLLOW_UP, LIST, WakeWord, wake_words
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.input_file import LARGEST_TEXT, read_text
from voxrill.runtime.printable import printable
from voxrill.runtime.talk import replay as replaying
from voxrill.runtime.talk.events import Notice
from voxrill.runtime.talk.keyboard import keyboard
from voxrill.runtime.talk.responder import ResponderOptions
from voxrill.runtime.talk.trace import TurnTrace, chrome_trace
from voxrill.runtime.talk.view import make_view, trace_table
from voxrill.runtime.upkeep.snapshot import open_snapshot, save_snapshot

SEEDS = 1 << 31


@loads_model
def talk(
    loading: Loading = Loading(),
    microphone: MicrophoneOption = None,
    speaker: SpeakerOption = None,
    text: Annotated[bool, typer.Option("--text", help="Type questions instead of speaking, one on each line.")] = False,
    mute: Annotated[bool, typer.Option("--mute", help="Show answers as text only, without a loudspeaker.")] = False,
    push_to_talk: Annotated[
        bool, typer.Option("--push-to-talk", help="Press Enter to begin to speak, and again to end.")
    ] = False,
    barge_in: Annotated[
        bool, typer.Option("--barge-in", help="Interrupt answers by speaking; use headphones.")
    ] = False,
    echo_cancel: Annotated[
        bool, typer.Option("--echo-cancel", help="Interrupt answers without headphones; needs the extra echo.")
    ] = False,
    wake_word: WakeWordOption = None,
    follow_up: FollowUpOption = FOLLOW_UP,
    endpoint: Annotated[float, typer.Option(help="Seconds of silence that end a question.")] = EndpointOptions.endpoint,
    ending: TurnWish = TurnWish(),
    longest: Annotated[float, typer.Option(help="Seconds that a question may last.")] = EndpointOptions.longest,
    speculate: Annotated[bool, typer.Option(help="Begin answers at a short silence already.")] = True,
    remember: Annotated[
        int, typer.Option(min=0, help="Positions of prompt and turns that are remembered; 12.5 hold a second of sound.")
    ] = ResponderOptions.budget,
    turns: Annotated[
        int | None, typer.Option(min=0, help="Turns that are remembered at most; the built-in model: none.")
    ] = None,
    system: SystemOption = None,
    snapshot: Annotated[Path | None, typer.Option(help="A system prompt that voxrill snapshot has read.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder in which every turn is saved as WAV and JSON.")] = None,
    record: Annotated[Path | None, typer.Option(help="New folder for everything that voxrill replay needs.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show at the end how long each part of a turn took.")] = False,
    chrome: Annotated[
        Path | None, typer.Option("--chrome-trace", help="Write it to a file for ui.perfetto.dev.")
    ] = None,
    seed: SeedOption = None,
    max_new_tokens: MaxOption = None,
    json: JsonOption = False,
) -> None:
    """Talk: speak, be answered aloud, interrupt, go on."""
    check_output(chrome, [snapshot])
    if text and push_to_talk:
        raise UsageError("--text and --push-to-talk both need the keyboard", "Give one of them")
    if wake_word == LIST:
        print("\n".join(wake_words()))
        return
    if wake_word is not None and (text or push_to_talk):
        raise UsageError("--wake-word does not go with --text or --push-to-talk", "Leave one of them out")
    EndpointOptions(endpoint=endpoint, longest=longest)  # what is out of range is refused before the model is loaded
    if ending != TurnWish():
        if text or push_to_talk:
            raise UsageError(
                "with --text and --push-to-talk a key ends questions", "Leave out --end-of-turn, --patience"
            )
        ending.options(EndpointOptions(), ending.model())  # what cannot be is refused before the model is loaded
    word = None if wake_word is None else WakeWord(wake_word)
    canceller_made = canceller() if echo_cancel else None
    system_audio = _sound_system(text, mute, speaker)
    mute = mute or system_audio is None
    model = loading.model()
    conversation = _conversation(model, system, snapshot, "text" if mute else "both")
    how: TalkKeywords = {
        "conversation": conversation,
        "barge_in": barge_in or echo_cancel,
        "push_to_talk": push_to_talk,
        "speculate": speculate,
        "endpoint": endpoint,
        "longest": longest,
        "end_of_turn": ending.end_of_turn,
        "patience": ending.patience,
        "wake_word": word,
        "follow_up": follow_up,
        "remember": remember,
        "turns": turns,
        "seed": secrets.randbelow(SEEDS) if seed is None else seed,
        "max_new_tokens": max_new_tokens,
    }
    view = make_view(err, err if json else stdout)

    def notify(sentence: str) -> None:
        view.show(Notice(sentence))

    heard: Microphone | None = None
    player: Player = MutePlayer()
    if system_audio is not None:
        if not text:
            heard = DeviceMicrophone(system_audio, microphone, notify)
        if not mute:
            player = loudspeaker = Speaker(system_audio, model.sample_rate, speaker, notify, tapped=echo_cancel)
            if heard is not None and canceller_made is not None:
                heard = EchoCancellingMicrophone(heard, loudspeaker, canceller_made, EchoGate(notify))
    traces: list[TurnTrace] = []
    responder = talk_options(model, how).responder
    with talk_sinks(model, conversation, responder, view, record, save, traces, json) as sinks:
        whole: TalkKeywords = {**how, "view": view, "microphone": heard, "player": player, "sinks": sinks}
        talking = model.talk(**whole)
        say_waiting()
        with keyboard(talking, text, push_to_talk):
            talking.run()
    if trace:
        err.print(trace_table(traces))
    if chrome is not None:
        with atomic_write(chrome) as part:
            part.write_bytes(msgspec.json.encode(chrome_trace(traces)))


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder that voxrill talk --record has written.")],
    bundle: BundleOption = None,
    json: JsonOption = False,
) -> None:
    """Make a recorded talk's answers again, and compare them to the bit."""
    recorded = replaying.read_recording(recording)
    model = Loading(bundle, recorded.header.threads, recorded.header.providers).model()
    for difference in replaying.differences(recorded, model):
        err.print(f"voxrill: the answers may differ, because {difference}", style="yellow", soft_wrap=True)
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
            f"turns {', '.join(differing)} were not answered as recorded", "Compare the versions and the processor"
        )


def snapshot(
    file: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")],
    bundle: BundleOption = None,
    system: SystemOption = None,
    document: Annotated[Path | None, typer.Option(help="A text file to add after the system prompt.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="For voxrill ask: number the passages.")] = False,
    threads: ThreadsOption = 0,
    json: JsonOption = False,
) -> None:
    """Read a system prompt or a document once, and keep the result."""
    check_output(file, [document])
    if ask and (document is None or system is not None):
        raise UsageError("--ask needs a document, and sets the system prompt itself", "Give --document, not --system")
    model = Loading(bundle, threads).model()
    if ask and document is not None:
        positions = snapshot_document(model, document, file)
    else:
        prompt = model.manifest.tasks.chat.system if system is None else system
        if document is not None:
            prompt = f"{prompt}\n{read_text(document, LARGEST_TEXT)}"
        positions = save_snapshot(model, prompt, file)
    size = file.stat().st_size
    if json:
        print_json({"file": str(file), "positions": positions, "bytes": size})
    else:
        print(f"{printable(file)}: {positions} positions, {size / 1e6:.1f} MB")


def _sound_system(text: bool, mute: bool, speaker: str | None) -> AudioSystem | None:
    """PortAudio; None where the talk needs no sound, or is typed and there is no loudspeaker."""
    if not text:
        return AudioSystem()
    return None if mute else open_loudspeaker(speaker, "answers are only written")


def _conversation(model: Model, system: str | None, snapshot: Path | None, output: Output) -> Conversation:
    if snapshot is None:
        return model.conversation(system=system, output=output)
    if system is not None:
        raise UsageError("--system and --snapshot both set the system prompt", "Give one of them")
    return open_snapshot(model, snapshot, output)
