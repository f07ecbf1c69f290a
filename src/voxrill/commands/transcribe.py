"""The command transcribe: files of any length, folders of them, or the microphone.

Text, subtitles and JSON go to stdout or to --out, everything else to stderr. A file of up to half a minute becomes one
line unless times are asked for; all else is written segment by segment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from voxrill.commands.failures import Failures
from voxrill.commands.once import say_waiting
from voxrill.commands.options import (
    STDIN,
    ForceOption,
    JsonOption,
    LanguageOption,
    Loading,
    MicrophoneOption,
    SystemOption,
    TextWish,
    TrimOption,
    TurnWish,
    loads_model,
    open_named,
    sound_source,
)
from voxrill.commands.output import STDOUT, err, print_json
from voxrill.commands.output_files import check_output
from voxrill.commands.transcript_writer import Writing
from voxrill.devices.processor import cores
from voxrill.model import Model
from voxrill.runtime.apps.batch import (
    ResultsFile,
    hashed,
    made_with,
    short_hash,
    transcribe_batch,
)
from voxrill.runtime.apps.journal import journal_of
from voxrill.runtime.apps.subtitles import form_named, form_of, suffix_of
from voxrill.runtime.atomic_write import is_special
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.sound_folder import other_files, sound_files
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.engine.languages import prompt_in
from voxrill.runtime.errors import UsageError
from voxrill.runtime.printable import printable
from voxrill.runtime.progress import Progress, step_progress

_OTHERS_NAMED = 20
"""Files of folders that are named as left out."""


_LONG_BATCH = 20
"""Sounds from which the progress of a list is written without a terminal."""


@dataclass(frozen=True)
class BatchWish:
    """A batch: which files, how many at a time, the output file, whether it begins anew, and how to transcribe."""

    files: list[Path]
    jobs: int
    out: Path | None
    anew: bool
    wished: dict[str, Any]


@loads_model
def transcribe(
    sounds: Annotated[
        list[Path] | None, typer.Argument(help="Sound files of any kind, rate and length, or folders; - reads stdin.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Listen to the microphone until Ctrl-C.")] = False,
    microphone: MicrophoneOption = None,
    ending: TurnWish = TurnWish(),
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="plain, srt, vtt or json; else the suffix of --out decides. For several sounds: a file beside each.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="File to write: .txt, .srt, .vtt or .json; for several sounds .jsonl, or a folder with --format. "
            "Interrupted, the same command goes on.",
        ),
    ] = None,
    force: ForceOption = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="For folders: sounds at a time. Each one needs a model of its own in memory.")
    ] = 1,
    trim: TrimOption = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
    system: SystemOption = None,
    language: LanguageOption = None,
    wish: TextWish = TextWish(),
) -> None:
    """Write down the words of files, folders or a microphone."""
    files = sounds or []
    if live == bool(files):
        raise typer.BadParameter("give sound files or folders, or --live for the microphone")
    out = None if str(out) == STDOUT else out
    folders = any(file.is_dir() for file in files)
    many = folders or len(files) > 1
    each = many and form is not None
    batch = not each and (folders or (many and out is not None))
    _check(form, out, json, jobs, each, batch)
    if not each:
        _check_out(out, files, force, batch)
    timed = form is not None or out is not None
    if trim is False and (live or batch or timed):
        raise UsageError(
            "--no-trim hears a short sound whole, without the times of its segments",
            "Leave it out, or give files without --format and --out",
        )
    written = form_named(form, None if batch else out)
    targets = _targets(files, form, out, force) if each and form is not None else {}
    if not live and ending != TurnWish():
        raise UsageError("--end-of-turn and --patience are for the microphone", "Give them with --live")
    ends = ending.model() if live else None
    ending.options(EndpointOptions(), ends)
    audio = AudioSystem() if live else None
    choice = loading.choice
    opened = open_named(loading.bundle)
    tasks = opened.manifest.tasks
    wished = {"system": prompt_in(tasks, tasks.transcribe, language, system), **wish.text_keywords()}
    if batch:
        threads = loading.threads or (max(1, cores() // jobs) if jobs > 1 else 0)
        _transcribe_batch(
            lambda: Model(opened, threads, choice=choice), opened, BatchWish(files, jobs, out, force, wished)
        )
    elif each:
        model = partial(Model, opened, loading.threads, choice=choice)
        _transcribe_each(lambda: Writing(model(), wished, written, None, json), targets)
    else:
        with _stream(out) as stream:
            kept = out if stream is None else None
            writing = Writing(Model(opened, loading.threads, choice=choice), wished, written, kept, json, trim, stream)
            if audio is not None:
                say_waiting()
                heard = DeviceMicrophone(audio, microphone, lambda text: err.print(text, style="yellow"))
                writing.live(heard, ends, ending.patience)
            else:
                _transcribe_files(writing, files, timed)


def _stream(out: Path | None) -> AbstractContextManager[TextIO | None]:
    """A device or a pipe that is written to as it goes; None for a file, which is written when it is whole."""
    return open(out, "w", encoding="utf-8", newline="\n") if out is not None and is_special(out) else nullcontext()


def _check(form: str | None, out: Path | None, json: bool, jobs: int, each: bool, batch: bool) -> None:
    """Refuse options that do not go together. `each`: a file for each of several sounds; `batch`: one list of them.

    Raises:
        UsageError: they do not.
    """
    if jobs > 1 and not batch:
        raise UsageError("--jobs is for a list of transcripts", "Give a folder without --format, or leave it out")
    if batch and out is not None and out.suffix.lower() in (".srt", ".vtt", ".txt"):
        raise UsageError(
            f"{out} would hold the transcripts of several sounds",
            f"Give --format {form_of(out)} and -o FOLDER for a file each, or -o NAME.jsonl for one list",
        )
    if each and out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and there are several sounds", "Give -o a folder, or leave it out")
    if json and (form is not None or (out is not None and not batch)):
        raise UsageError("--json shows events as they happen", "For a file of segments: --format json -o FILE")


def _targets(files: list[Path], form: str, out: Path | None, force: bool) -> dict[Path, Path]:
    """The file to write for each sound: beside it, or in the folder `out`. Sounds that have theirs are left out.

    Raises:
        UsageError: two sounds would have the same one, or one is stdin, which has no name.
    """
    places: dict[Path, Path] = {}
    for named in files:
        if str(named) == STDIN:
            raise UsageError("stdin has no name that a file beside it could have", "Give it alone, with -o FILE")
        for sound in sound_files(named):
            inside = sound.parent.relative_to(named) if named.is_dir() else Path()
            target = (sound.parent if out is None else out / inside) / f"{sound.stem}{suffix_of(form)}"
            if target in places and places[target] != sound:
                raise UsageError(f"{places[target]} and {sound} would both become {target}", "Rename one of them")
            places[target] = sound
    _tell_others([file for named in files for file in other_files(named) if file not in places])
    left = {sound: target for target, sound in places.items() if force or not target.exists()}
    if len(left) < len(places):
        count = len(places) - len(left)
        err.print(f"{count} of {len(places)} sounds have their file already; --force writes it anew", style="dim")
    return left


def _transcribe_each(made: Callable[[], Writing], targets: dict[Path, Path]) -> None:
    if not targets:
        return
    failures, writing = Failures(len(targets)), made()
    for sound, target in targets.items():
        with failures.of_one():
            target.parent.mkdir(parents=True, exist_ok=True)
            check_output(target, [sound], force=True)
            replace(writing, out=target).file(sound, timed=True, named=False)
    failures.check()


def _check_out(out: Path | None, files: list[Path], force: bool, folders: bool) -> None:
    """Refuse an output that would cost something: see `output_files`. Where there is a journal, it is gone on with."""
    if out is not None and not is_special(out):
        begun = journal_of(out)
        check_output(out, files, force=force, resumed=folders or begun.exists())
        check_output(begun, files, resumed=True)


def _transcribe_files(writing: Writing, files: list[Path], timed: bool) -> None:
    failures = Failures(len(files))
    for file in files:
        with failures.of_one():
            writing.file(sound_source(file), timed, named=len(files) > 1)
    failures.check()


def _transcribe_batch(model: Callable[[], Model], bundle: Bundle, wish: BatchWish) -> None:
    files = list(dict.fromkeys(file for named in wish.files for file in sound_files(named)))
    _tell_others([file for named in wish.files for file in other_files(named)])
    made = short_hash(made_with(bundle, wish.wished))
    failures = Failures(len(files))
    lines = wish.out is not None and len(files) >= _LONG_BATCH
    with ExitStack() as stack:
        progress = stack.enter_context(step_progress(err, "transcribing", lines=lines))
        results = stack.enter_context(ResultsFile(wish.out, made, anew=wish.anew)) if wish.out is not None else None
        asked = _unfinished(files, results, progress)
        if not asked:
            return
        models = [model() for _ in range(min(wish.jobs, len(asked)))]
        records = stack.enter_context(closing(transcribe_batch(models, asked, made, wish.wished)))
        for number, record in enumerate(records, 1):
            progress("transcribing", number, len(asked))
            if "error" in record:
                failures.tell(record["error"])
            (print_json if results is None else results.add)(record)
        if wish.out is not None:
            err.print(f"wrote {wish.out}, {len(files) - failures.count} sounds", style="dim", soft_wrap=True)
    failures.check()


def _tell_others(others: list[Path]) -> None:
    """Name the files of folders that are no sounds, the first of many."""
    if others:
        named = ", ".join(map(printable, others[:_OTHERS_NAMED]))
        more = f" and {len(others) - _OTHERS_NAMED} more" if len(others) > _OTHERS_NAMED else ""
        err.print(f"left out, since their names are not those of sounds: {named}{more}", style="dim", soft_wrap=True)


def _unfinished(files: list[Path], results: ResultsFile | None, progress: Progress) -> list[tuple[Path, str]]:
    """The files that no earlier run has finished, with their hashes."""
    asked = []
    for number, one in enumerate(hashed(files)):
        progress("looking for changes", number, len(files))
        if results is None or not results.has(*one):
            asked.append(one)
    if len(asked) < len(files):
        err.print(f"{len(files) - len(asked)} of {len(files)} sounds were finished before", style="dim")
    return asked
