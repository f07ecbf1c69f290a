"""The commands that answer: speak, chat; and pebble, which lists what the built-in model knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.loudspeaker import SoundOutput
from voxrill.commands.options import (
    STDIN,
    AnswerWish,
    JsonOption,
    LanguageOption,
    Loading,
    SystemOption,
    TrimOption,
    loads_model,
    sound_source,
    stdin_text,
)
from voxrill.commands.output import STDOUT, err, new_table, print_json
from voxrill.commands.output import out as stdout
from voxrill.model import Model
from voxrill.runtime.bundle import builtin
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.errors import AudioFileError, UsageError
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result
from voxrill.runtime.printable import as_unicode


@loads_model
def speak(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    sound: SoundOutput = SoundOutput(),
    loading: Loading = Loading(),
    voice: Annotated[str | None, typer.Option(help="A voice of the model; inspect lists them.")] = None,
    json: JsonOption = False,
    system: SystemOption = None,
    language: LanguageOption = None,
    wish: AnswerWish = AnswerWish(),
) -> None:
    """Say a text aloud, on the loudspeaker or into a sound file."""
    sound.check((), json)
    loudspeaker = sound.loudspeaker()
    if sound.out is None and loudspeaker is None:
        raise UsageError(
            "there is nowhere to put the sound", "Give -o OUT.wav, --play, or -o - for raw samples on stdout"
        )
    model = loading.model()
    speech = model.speak(
        stdin_text() if text == STDIN else text,
        voice=voice,
        system=system,
        language=language,
        **wish.keywords(),
    )
    with sound.sink(loudspeaker, model.sample_rate) as take:
        for event in speech:
            take(event)
    _report(speech.result, sound.out, json)


@loads_model
def chat(
    question: Annotated[
        Path | None, typer.Argument(help="The spoken question, a sound file; - reads it from stdin.")
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="The same as an option.")] = None,
    text: Annotated[str | None, typer.Option(help="The written question or note; - reads it from stdin.")] = None,
    sound: SoundOutput = SoundOutput(),
    output: Annotated[str, typer.Option(help="What to answer with: text, audio or both.")] = "both",
    trim: TrimOption = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
    system: SystemOption = None,
    wish: AnswerWish = AnswerWish(),
) -> None:
    """Answer one question, spoken, written or both."""
    if question is not None and audio is not None:
        raise UsageError("there are two spoken questions", "Give the sound file once: voxrill chat FILE")
    spoken = audio if question is None else question
    if spoken is None and text is None:
        raise UsageError("there is no question", "Give a sound file, --text TEXT or both")
    if spoken is not None and str(spoken) != STDIN and not spoken.exists():
        raise AudioFileError(f"There is no file {spoken}", "Give a sound file. A written question needs --text")
    answer_question(spoken, text, sound, output, trim, loading, json, lambda _model: system, wish)


def answer_question(
    spoken: Path | None,
    text: str | None,
    sound: SoundOutput,
    output: str,
    trim: bool | None,
    loading: Loading,
    json: bool,
    system: Callable[[Model], str | None],
    wish: AnswerWish,
) -> None:
    """Answer a question under a system prompt that may depend on the model.

    Raises:
        UsageError: the options do not go together.
    """
    if text == STDIN and str(spoken) == STDIN:
        raise UsageError("stdin cannot be both the sound and the text", "Give one of them in another way")
    wanted = _output(output)
    if wanted == "text" and (sound.out is not None or sound.play):
        raise UsageError("--output text makes no sound", "Leave out -o and --play, or give --output both")
    sound.check([spoken], json or wanted != "audio")
    loudspeaker = sound.loudspeaker() if wanted != "text" else None
    model = loading.model()
    events = model.chat(
        audio=None if spoken is None else sound_source(spoken),
        text=stdin_text() if text == STDIN else text,
        system=system(model),
        output=wanted,
        trim=trim,
        **wish.keywords(),
    )
    with sound.sink(loudspeaker, model.sample_rate) as take:
        result = _play(events, take, show_text=not json and wanted != "audio")
    if sound.out is None and loudspeaker is None and wanted != "text" and result.audio_seconds:
        err.print("The spoken answer was not kept: give -o OUT.wav or --play", style="dim")
    _report(result, sound.out, json)


def pebble(json: JsonOption = False) -> None:
    """List what the small built-in model knows."""
    world = builtin.pebble_world()
    if json:
        print_json([{"say": say, "reply": reply} for say, reply in world.items()])
    elif stdout.is_terminal:
        refusal = builtin.open_builtin().manifest.taught.refusal
        table = new_table("Pebble, the built-in model", "say", "reply")
        table.caption = f"{len(world)} commands; everything else is answered: {refusal}"
        for say, reply in world.items():
            table.add_row(say, reply)
        stdout.print(table)
    else:
        for say, reply in world.items():
            print(f"{say}\t{reply}")


def _output(name: str) -> Output:
    if name in ("text", "audio", "both"):
        return name  # type: ignore[return-value]
    raise UsageError(f"--output is {name!r}", "Give text, audio or both")


def _play(events: Iterator[Event], write: Callable[[AudioEvent], None], show_text: bool) -> Result:
    result = Result()
    for event in events:
        if isinstance(event, AudioEvent):
            write(event)
        elif isinstance(event, EndEvent):
            result = event.result
        elif show_text:
            print(event.text, end="", flush=True)
    if show_text:
        print()
    return result


def _report(result: Result, out: str | None, json: bool) -> None:
    if json:
        print_json({**result.as_json(), "out": out and as_unicode(out)})
        return
    parts = [f"{result.seconds:.2f} s"]
    if result.first_audio is not None:
        parts.append(f"first audio after {result.first_audio * 1000:.0f} ms")
    if result.finish_reason != "stop":
        parts.append(f"ended early: {result.finish_reason}")
    if result.skipped_frames:
        parts.append(f"{result.skipped_frames} frames could not be played")
    if out is not None and not result.audio_seconds:
        parts.append("the model answered without any sound")
    wrote = f"wrote {out} ({result.audio_seconds:.2f} s of sound); " if out not in (None, STDOUT) else ""
    err.print(wrote + ", ".join(parts), style="dim", soft_wrap=True)
