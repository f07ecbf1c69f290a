"""The commands that run on the device: speak, chat, pebble, inspect, verify, pack, unpack.

stdout is data (text, JSON, raw sound), stderr is everything else. Errors are one line, and exit with status 2. Where no
bundle is named, by argument, option or VOXRILL_BUNDLE, the built-in one is taken, and stderr says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from voxrill.runtime import builtin
from voxrill.runtime import bundle as bundles
from voxrill.runtime.audio_file import WavWriter, pcm16
from voxrill.runtime.conversation import Output
from voxrill.runtime.errors import UsageError
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result
from voxrill.runtime.manifest import Manifest, Sampling, Task
from voxrill.runtime.model import Model, chosen
from voxrill.runtime.smoke import smoke_run

# No markup or emoji: file names and prompts may hold [brackets] and :colons:.
err = Console(stderr=True, highlight=False, markup=False, emoji=False)
_out = Console(highlight=False, markup=False, emoji=False)

STDOUT = "-"
"""As an output file: raw 16-bit little-endian mono samples on stdout (a WAV header cannot be streamed)."""

STDIN = "-"
"""As a text: read it from stdin."""

BUILTIN_NOTE = f"""\
This is Pebble, the small built-in model: it knows some 300 home commands in English (voxrill pebble lists them), and \
everything else is answered "{builtin.REFUSAL}".
For the real model: voxrill export LiquidAI/LFM2.5-Audio-1.5B -o bundle, then give --bundle bundle."""

_NO_BUNDLE = "Bundle folder; without one, the small built-in model."

BundleOption = Annotated[
    Path | None, typer.Option("--bundle", envvar="VOXRILL_BUNDLE", help=_NO_BUNDLE, show_default=False)
]
BundleArgument = Annotated[Path | None, typer.Argument(envvar="VOXRILL_BUNDLE", help=_NO_BUNDLE, show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The same seed gives the same answer.")]
MaxOption = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=1, help="Limit on text tokens and audio frames together."),
]
TextTemperature = Annotated[float | None, typer.Option(help="Text sampling temperature; 0 is greedy.", min=0.0)]
TextTopK = Annotated[int | None, typer.Option(help="Text candidates kept; 0 keeps all.", min=0)]
AudioTemperature = Annotated[float | None, typer.Option(help="Audio sampling temperature; 0 is greedy.", min=0.0)]
AudioTopK = Annotated[int | None, typer.Option(help="Audio candidates kept; 0 keeps all.", min=0)]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads per graph; 0: what tune found best, or one per core.")]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        help="Execution provider of all graphs, or GRAPH=NAME, or a profile that says so; may be given several times. "
        "With a chip: qnn:soc=SM8650.",
        show_default=False,
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a graph of which the provider would leave nodes to the CPU.")
]
SystemOption = Annotated[str | None, typer.Option(help="Another system prompt than the model family's own.")]
OutOption = Annotated[
    str | None, typer.Option("-o", "--out", help="WAV file to write; - for raw 16-bit samples on stdout.")
]


def register(app: typer.Typer) -> None:
    """Add this room's commands to the command line."""
    for command in (speak, chat, pebble, inspect, verify, pack, unpack):
        app.command()(command)


def speak(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    out: OutOption = None,
    bundle: BundleOption = None,
    voice: Annotated[str | None, typer.Option(help="A voice of the model; inspect lists them.")] = None,
    json: JsonOption = False,
    system: SystemOption = None,
    max_new_tokens: MaxOption = None,
    seed: SeedOption = None,
    text_temperature: TextTemperature = None,
    text_top_k: TextTopK = None,
    audio_temperature: AudioTemperature = None,
    audio_top_k: AudioTopK = None,
    threads: ThreadsOption = 0,
    provider: ProviderOption = None,
    strict: StrictOption = False,
) -> None:
    """Say a text aloud into a WAV file."""
    if out is None:
        raise UsageError("there is nowhere to put the sound", "Give -o OUT.wav, or -o - for raw samples on stdout")
    _check_streams(out, json)
    model = open_model(bundle, threads, provider, strict)
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


def chat(
    audio: Annotated[Path | None, typer.Option(help="The spoken question.")] = None,
    text: Annotated[str | None, typer.Option(help="The written question or note; - reads it from stdin.")] = None,
    out: OutOption = None,
    output: Annotated[str, typer.Option(help="What to answer with: text, audio or both.")] = "both",
    bundle: BundleOption = None,
    json: JsonOption = False,
    system: SystemOption = None,
    max_new_tokens: MaxOption = None,
    seed: SeedOption = None,
    text_temperature: TextTemperature = None,
    text_top_k: TextTopK = None,
    audio_temperature: AudioTemperature = None,
    audio_top_k: AudioTopK = None,
    threads: ThreadsOption = 0,
    provider: ProviderOption = None,
    strict: StrictOption = False,
) -> None:
    """Answer one question, spoken, written or both."""
    if audio is None and text is None:
        raise UsageError("there is no question", "Give --audio FILE, --text TEXT or both")
    wanted = _output(output)
    _check_streams(out, json or wanted != "audio")
    model = open_model(bundle, threads, provider, strict)
    task = model.manifest.tasks.write if wanted == "text" else model.manifest.tasks.chat
    events = model.chat(
        audio=audio,
        text=stdin_text() if text == STDIN else text,
        system=system,
        output=wanted,
        max_new_tokens=max_new_tokens,
        seed=seed,
        text_sampling=sampling(task.text, text_temperature, text_top_k),
        audio_sampling=sampling(task.audio, audio_temperature, audio_top_k),
    )
    with sound_sink(out if wanted != "text" else None, model.sample_rate) as write:
        result = _play(events, write, show_text=not json and wanted != "audio")
    if out is None and wanted != "text" and result.audio_seconds:
        err.print("The spoken answer was not kept: give -o OUT.wav", style="dim")
    _report(result, out if wanted != "text" else None, json)


def pebble(json: JsonOption = False) -> None:
    """List what the small built-in model knows: commands, and what it answers."""
    world = builtin.pebble_world()
    if json:
        print_json([{"say": say, "reply": reply} for say, reply in world.items()])
    elif _out.is_terminal:
        table = _table("Pebble, the built-in model", "say", "reply")
        table.caption = f"{len(world)} commands; everything else is answered: {builtin.REFUSAL}"
        for say, reply in world.items():
            table.add_row(say, reply)
        _out.print(table)
    else:
        for say, reply in world.items():
            print(f"{say}\t{reply}")


def inspect(bundle: BundleArgument = None, json: JsonOption = False) -> None:
    """Show what a bundle is: family, source, licence, graphs, prompts, files."""
    manifest = open_named(bundle).manifest
    if json:
        sys.stdout.buffer.write(msgspec.json.encode(manifest) + b"\n")
        return
    for table in _tables(manifest):
        _out.print(table)


def verify(bundle: BundleArgument = None, json: JsonOption = False) -> None:
    """Check a bundle: every file's hash, every graph's contract, and a short run of all graphs."""
    opened = open_named(bundle)
    name = printable(opened.directory)
    with _file_progress("checking", opened.manifest.size) as progress:
        bundles.verify_files(opened, progress)
    stages = smoke_run(opened)
    if json:
        print_json({"bundle": name, "ok": True, "files": len(opened.manifest.files), "smoke_run_ms": stages})
        return
    print(f"{name}: {len(opened.manifest.files)} files, {len(stages)} stages: all as the manifest says")


def pack(
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write, e.g. model.voxrill.")],
    bundle: BundleArgument = None,
) -> None:
    """Make one file of a bundle, to carry to a device that is offline."""
    opened = open_named(bundle)
    with _file_progress("packing", opened.manifest.size) as progress:
        bundles.pack(opened, out, progress)
    err.print(f"wrote {out} ({_size(out.stat().st_size)})")


def unpack(
    packed: Annotated[Path, typer.Argument(help="A file that voxrill pack wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle folder to write.")],
) -> None:
    """Take a packed bundle apart, checking every hash."""
    with _file_progress("unpacking", packed.stat().st_size if packed.is_file() else 0) as progress:
        bundles.unpack(packed, out, progress)
    err.print(f"wrote {out}")


def open_named(bundle: Path | None) -> bundles.Bundle:
    """The bundle that was named, or else the built-in one with a note that it is."""
    if bundle is not None:
        return bundles.open_bundle(bundle)
    opened = builtin.open_builtin()
    err.print(BUILTIN_NOTE, style="dim", soft_wrap=True)
    return opened


def open_model(
    bundle: Path | None, threads: int, provider: list[str] | None = None, strict: bool = False, **options: Any
) -> Model:
    """The model of the bundle that was named, or else the built-in one with a note that it is."""
    choice = chosen(provider or (), strict)
    return Model(open_named(bundle), threads, choice=choice, **options)


def stdin_text() -> str:
    """All of stdin, for a text that is `STDIN`."""
    try:
        return sys.stdin.read().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError("what stdin brings is not text", "Give text in UTF-8") from None


def sampling(default: Sampling, temperature: float | None, top_k: int | None) -> Sampling:
    """The model's own sampling, but for what was wished."""
    return Sampling(
        temperature=default.temperature if temperature is None else temperature,
        top_k=default.top_k if top_k is None else top_k,
    )


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


@contextmanager
def sound_sink(out: str | None, sample_rate: int) -> Iterator[Callable[[AudioEvent], None]]:
    """Where sound goes as it is made: a WAV file, stdout, or nowhere."""
    if out is None:
        yield lambda _event: None
    elif out == STDOUT:
        err.print(f"raw samples: 16-bit little-endian, mono, {sample_rate} Hz", style="dim")
        yield _write_raw
    else:
        with WavWriter(out, sample_rate) as writer:
            yield lambda event: writer.write(event.samples)


def _write_raw(event: AudioEvent) -> None:
    sys.stdout.buffer.write(pcm16(event.samples).tobytes())
    sys.stdout.buffer.flush()


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
        print_json({**summary(result), "out": out and printable(out)})
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


def summary(result: Result) -> dict[str, Any]:
    """A result as JSON knows it."""
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "tokens": len(result.tokens),
        "frames": int(result.codes.shape[1]),
        "skipped_frames": result.skipped_frames,
        "audio_seconds": round(result.audio_seconds, 4),
        "seconds": round(result.seconds, 4),
        "first_text_seconds": result.first_text,
        "first_audio_seconds": result.first_audio,
        "stages_ms": {name: round(ms, 3) for name, ms in result.stages.items()},
    }


def printable(name: str | Path) -> str:
    """A file's name as text; bytes of it that are not UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout, the first row their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _tables(manifest: Manifest) -> Iterator[Table]:
    source = manifest.source
    about = _table(manifest.name, "", "")
    for key, value in {
        "family": manifest.family,
        "flavour": manifest.flavour + (f" {manifest.static}" if manifest.static else ""),
        "source": f"{source.name} @ {source.revision}",
        "weights sha256": source.weights_sha256,
        "licence of the weights": f"{source.licence} ({source.licence_url})",
        "codebooks": f"{manifest.model.codes.codebooks} x {manifest.model.codes.vocab_size}",
        "codec": f"{manifest.model.codec.graph}, {manifest.model.codec.sample_rate} Hz",
        "interleaved": f"{manifest.model.interleave.text} text : {manifest.model.interleave.audio} audio",
        "size": _size(manifest.size),
        "made with": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()),
    }.items():
        about.add_row(key, value)
    yield about
    graphs = _table("graphs", "graph", "precision", "size")
    for name, graph in manifest.graphs.items():
        graphs.add_row(name, graph.precision, _size(manifest.graph_size(name)))
    yield graphs
    tasks = _table("tasks", "task", "mode", "system prompt", "audio sampling", "voices")
    for name in ("transcribe", "speak", "chat", "write"):
        task: Task = getattr(manifest.tasks, name)
        tasks.add_row(name, task.mode, task.system, _sampling_text(task.audio), ", ".join(task.voices) or task.voice)
    yield tasks


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns), title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _sampling_text(sampling: Sampling) -> str:
    return "greedy" if sampling.greedy else f"temperature {sampling.temperature}, top-k {sampling.top_k}"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


@contextmanager
def _file_progress(verb: str, total: int) -> Iterator[bundles.Progress]:
    """A progress bar on stderr over the bytes of files."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(verb, total=total)

        def advance(file: str, done: int) -> None:
            bar.update(task, advance=done, description=f"{verb} {file}")

        yield advance
