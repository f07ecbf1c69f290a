"""The options that several commands share, and the bundle and model that they name.

If no bundle is named by argument, option or VOXRILL_BUNDLE, the built-in one is used, and stderr says so once. The
engine is imported when a model is opened: help does not need it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Container
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO, get_type_hints

import typer

from voxrill.commands.once import wait_to_say
from voxrill.commands.output import err, file_progress
from voxrill.runtime.errors import UsageError

if TYPE_CHECKING:
    from voxrill.devices.choice import Choice
    from voxrill.model import Model
    from voxrill.runtime.audio.end_of_turn import FinishedModel
    from voxrill.runtime.audio.endpointing import EndpointOptions
    from voxrill.runtime.bundle.bundle import Bundle
    from voxrill.runtime.bundle.manifest import Manifest
    from voxrill.runtime.engine.options import AnswerKeywords, TextKeywords

STDIN = "-"
"""As a text or a sound file: read it from stdin."""

_BUILTIN_NOTE = """\
This is Pebble, the small built-in model: it knows some 300 home commands in English (voxrill pebble lists them), and \
everything else is answered "{refusal}".
For the real model: voxrill export LiquidAI/LFM2.5-Audio-1.5B -o bundle, then give --bundle bundle."""

_NO_BUNDLE = "Bundle: a folder, or a packed file; without one, the small built-in model."

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
TrimOption = Annotated[
    bool | None,
    typer.Option("--trim/--no-trim", help="Hear only the speech, or the silence too; else as suits the model."),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads per graph; 0: what tune found best, or one per core.")]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        help="Execution provider of all graphs, or GRAPH=NAME, or the file of a device profile; may be given several "
        "times. With a chip: qnn:soc=SM8650.",
        show_default=False,
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a provider that would leave nodes of a graph to the CPU.")
]
AudioFlag = Annotated[bool, typer.Option("--audio", help="Microphones and loudspeakers.")]
MicrophoneOption = Annotated[
    str | None,
    typer.Option("--microphone", help="Its name, a part of its name, or its number; otherwise the default device."),
]
SpeakerOption = Annotated[
    str | None,
    typer.Option("--speaker", help="Its name, a part of its name, or its number; otherwise the default device."),
]
WakeWordOption = Annotated[
    str | None,
    typer.Option("--wake-word", help="Sleep until this is said; list shows the words. Needs the extra wake."),
]
FollowUpOption = Annotated[float, typer.Option(help="Seconds after an answer in which no wake word is needed.")]
EndOfTurnOption = Annotated[
    str | None,
    typer.Option(
        "--end-of-turn",
        help="What tells at a short silence that you have finished: timer for silence alone, auto for an installed "
        "model, hub to fetch one (8.7 MB), or a model's file. The built-in model knows its own commands.",
        show_default=False,
    ),
]
PatienceOption = Annotated[
    float | None,
    typer.Option(
        "--patience",
        min=0,
        max=10,
        help="Seconds of silence that end what the model takes to be unfinished.",
        show_default="2",
    ),
]
LanguageOption = Annotated[
    str | None, typer.Option(help="The language, by its code (de) or name; inspect lists those the model knows.")
]
SystemOption = Annotated[str | None, typer.Option(help="The system prompt, in place of the model family's own.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace what -o names, even if Voxrill did not make it or takes long to.")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        help="Sound file to write: .wav, .flac, .ogg, .opus or .mp3; - for raw 16-bit samples on stdout. A sound that "
        "Voxrill made is replaced.",
    ),
]


def open_named(bundle: Path | None) -> Bundle:
    """The bundle that was named, or the built-in one; then stderr says once what that is."""
    from voxrill.runtime.bundle import builtin

    if bundle is not None:
        return open_path(bundle)
    opened = builtin.open_builtin()
    wait_to_say(builtin_note(opened.manifest))
    return opened


def open_path(bundle: Path) -> Bundle:
    """The bundle in a folder, or in a packed file, which is unpacked once into the user's cache."""
    from voxrill.runtime.bundle.bundle import open_bundle

    if not bundle.is_file():
        return open_bundle(bundle)
    from voxrill.runtime.bundle.packed import open_packed

    with file_progress("unpacking", bundle.stat().st_size) as progress:
        return open_packed(bundle, lambda text: err.print(text, style="dim", soft_wrap=True), progress)


@dataclass(frozen=True)
class Loading:
    """Which bundle is loaded, and how: what --bundle, --threads, --provider and --strict say."""

    bundle: BundleOption = None
    threads: ThreadsOption = 0
    provider: ProviderOption = None
    strict: StrictOption = False

    @property
    def choice(self) -> Choice:
        """The provider of each graph.

        Raises:
            DeviceError: one is not known.
        """
        from voxrill.devices.choice import choose

        return choose(self.provider or (), self.strict)

    def model(self, profiling: Path | None = None) -> Model:
        """The model of the bundle that was named, or of the built-in one: see `open_named`.

        profiling: as of `Engine`.
        """
        from voxrill.model import Model

        choice = self.choice
        return Model(open_named(self.bundle), self.threads, choice=choice, profiling=profiling)


@dataclass(frozen=True)
class TextWish:
    """How text is generated: what --max-new-tokens, --seed, --text-temperature and --text-top-k say."""

    max_new_tokens: MaxOption = None
    seed: SeedOption = None
    text_temperature: TextTemperature = None
    text_top_k: TextTopK = None

    def text_keywords(self) -> TextKeywords:
        """The keywords of a question."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "temperature": self.text_temperature,
            "top_k": self.text_top_k,
        }


@dataclass(frozen=True)
class AnswerWish(TextWish):
    """How an answer is generated, in text and sound: as `TextWish`, and --audio-temperature and --audio-top-k."""

    audio_temperature: AudioTemperature = None
    audio_top_k: AudioTopK = None

    def keywords(self) -> AnswerKeywords:
        """As `text_keywords`, for an answer that may be spoken."""
        return {
            **self.text_keywords(),
            "audio_temperature": self.audio_temperature,
            "audio_top_k": self.audio_top_k,
        }


@dataclass(frozen=True)
class TurnWish:
    """What ends a turn beside silence: what --end-of-turn and --patience say."""

    end_of_turn: EndOfTurnOption = None
    patience: PatienceOption = None

    def model(self) -> FinishedModel | None:
        """What tells at a pause whether a turn is over; None where silence alone does.

        Raises:
            DataError: the file is no such model, or cannot be fetched.
            MissingDependency: it cannot be fetched without the extra `hub`.
        """
        from voxrill.runtime.audio.end_of_turn import AUTO, NONE_FOUND, find_model

        found = find_model(self.end_of_turn)
        if found is None and self.end_of_turn == AUTO:
            err.print(NONE_FOUND, style="yellow", soft_wrap=True)
        return found

    def options(self, endpoint: EndpointOptions, model: FinishedModel | None) -> EndpointOptions:
        """The rules by which turns end whose pauses `model` judges.

        Raises:
            UsageError: --patience without a model.
        """
        from voxrill.runtime.audio.end_of_turn import with_patience

        return with_patience(endpoint, model, self.patience)


def loads_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of each group that it has as a parameter: a dataclass such as `Loading`.

    An option that the command has as a parameter of its own is left out of the group's: one that names its bundle by an
    argument has `bundle`. A command that calls another hands its groups on. typer reads options off a command's
    signature, so the signature is written anew.
    """
    own = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: kind.annotation for name, kind in own.parameters.items() if is_dataclass(kind.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        group = groups.get(parameter.name)
        parameters += [parameter] if group is None else _of_group(parameter, group, own.parameters)

    @functools.wraps(command)
    def given(*arguments: Any, **options: Any) -> None:
        for name, group in groups.items():
            if name not in options:
                known = [field.name for field in fields(group)]
                options[name] = group(**{field: options[field] for field in known if field in options})
        command(*arguments, **{name: value for name, value in options.items() if name in own.parameters})

    given.__dict__["__signature__"] = own.replace(parameters=parameters)
    given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return given


def _of_group(parameter: inspect.Parameter, group: Any, own: Container[str]) -> list[inspect.Parameter]:
    """The parameters that stand in the place of the one for a group."""
    kinds = get_type_hints(group, include_extras=True)
    return [
        parameter.replace(name=field.name, annotation=kinds[field.name], default=field.default)
        for field in fields(group)
        if field.name not in own
    ]


def builtin_note(manifest: Manifest) -> str:
    """What stderr says where the built-in model is taken: two lines."""
    return _BUILTIN_NOTE.format(refusal=manifest.taught.refusal)


def sound_source(file: Path) -> Path | BinaryIO:
    """Where a sound comes from: the file that was named, or stdin for `-`.

    Raises:
        UsageError: stdin is closed.
    """
    return _stdin().buffer if str(file) == STDIN else file


def stdin_text() -> str:
    """All of stdin: the text, if it was given as `STDIN`."""
    try:
        return _stdin().read().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError("stdin is not text", "Give text in UTF-8") from None


def _stdin() -> TextIO:
    if sys.stdin is None:  # Python's word for a program that was started with stdin closed
        raise UsageError("stdin is closed", "Give a pipe or a file: voxrill ... <FILE")
    return sys.stdin
