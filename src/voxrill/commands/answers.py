"""The commands that answer: speak, chat; and pebble, which lists what the built-in model knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.options import (
    STDIN,
    AudioTemperature,
    AudioTopK,
    ForceOption,
    JsonOption,
    Loading,
    MaxOption,
    OutOption,
    SeedOption,
    SystemOption,
    TextTemperature,
    TextTopK,
    TrimOption,
    loads_model,
    sampling,
    sound_source,
    stdin_text,
)
from voxrill.commands.output import STDOUT, err, new_table, print_json, sound_sink, summary
from voxrill.commands.output import out as stdout
from voxrill.commands.output_files import check_sound_output
from voxrill.runtime.bundle import builtin
from voxrill.runtime.engine.conversation import Output
from voxrill.runtime.errors import UsageError
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result
from voxrill.runtime.printable import as_unicode


@loads_model
def speak(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    out: OutOption = None,
    force: ForceOption = False,
    loading: Loading = Loading(),
    voice: Annotated[str | None, typer.Option(help="A voice of the model; inspect lists them.")] = None,
    json: JsonOption = False,
    system: SystemOption = None,
    max_new_tokens: MaxOption = None,
    seed: SeedOption = None,
    text_temperature: TextTemperature = None,
    text_top_k: TextTopK = None,
    audio_temperature: AudioTemperature = None,
    audio_top_k: AudioTopK = None,
) -> None:
    """Say a text aloud into a sound file."""
    if out is None:
        raise UsageError("there is nowhere to put the sound", "Give -o OUT.wav, or -o - for raw samples on stdout")
    _check_streams(out, json)
    check_sound_output(out, force=force)
    model = loading.model()
    task = model.manifest.tasks.speak
    speech = model.speak(
        stdin_text() if text == STDIN else text,
        voice=voice,
        system=system,
        max_new_tokens=max_new_tokens,
        seed=seed,
        text_sampling=sampling(task.text, text_temperature, text_top_k),
        audio_sampling=sampling(task.audio, audio_temperature, audio_top_k),
    )
    with sound_sink(out, model.sample_rate) as write:
        for event in speech:
            write(event)
    _report(speech.result, out, json)


@loads_model
def chat(
    audio: Annotated[Path | None, typer.Option(help="The spoken question; - reads the file from stdin.")] = None,
    text: Annotated[str | None, typer.Option(help="The written question or note; - reads it from stdin.")] = None,
    out: OutOption = None,
    force: ForceOption = False,
    output: Annotated[str, typer.Option(help="What to answer with: text, audio or both.")] = "both",
    trim: TrimOption = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
    system: SystemOption = None,
    max_new_tokens: MaxOption = None,
    seed: SeedOption = None,
    text_temperature: TextTemperature = None,
    text_top_k: TextTopK = None,
    audio_temperature: AudioTemperature = None,
    audio_top_k: AudioTopK = None,
) -> None:
    """Answer one question, spoken, written or both."""
    if audio is None and text is None:
        raise UsageError("there is no question", "Give --audio FILE, --text TEXT or both")
    if text == STDIN and audio is not None and str(audio) == STDIN:
        raise UsageError("stdin cannot be both the sound and the text", "Give one of them in another way")
    wanted = _output(output)
    if wanted == "text" and out is not None:
        raise UsageError("--output text makes no sound that -o could write", "Leave -o out, or give --output both")
    _check_streams(out, json or wanted != "audio")
    check_sound_output(out, [audio], force=force)
    model = loading.model()
    task = model.manifest.tasks.write if wanted == "text" else model.manifest.tasks.chat
    events = model.chat(
        audio=None if audio is None else sound_source(audio),
        text=stdin_text() if text == STDIN else text,
        system=system,
        output=wanted,
        trim=trim,
        max_new_tokens=max_new_tokens,
        seed=seed,
        text_sampling=sampling(task.text, text_temperature, text_top_k),
        audio_sampling=sampling(task.audio, audio_temperature, audio_top_k),
    )
    with sound_sink(out, model.sample_rate) as write:
        result = _play(events, write, show_text=not json and wanted != "audio")
    if out is None and wanted != "text" and result.audio_seconds:
        err.print("The spoken answer was not kept: give -o OUT.wav", style="dim")
    _report(result, out, json)


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


def _check_streams(out: str | None, text_on_stdout: bool) -> None:
    if out == STDOUT and text_on_stdout:
        raise UsageError(
            "text and raw sound cannot both go to stdout",
            "Give -o a file name, or leave the text out (--output audio)",
        )


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
        print_json({**summary(result), "out": out and as_unicode(out)})
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
