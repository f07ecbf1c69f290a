"""The command line: the rooms' commands under one name, and every error as one line."""

import io
import sys
import warnings
from typing import Any

import typer
from rich.console import Console

from voxrill import __version__
from voxrill.export import cli as export_commands
from voxrill.export import npu_cli as npu_commands
from voxrill.quantize import cli as quantize_commands
from voxrill.runtime import cli as runtime_commands
from voxrill.runtime import doctor_cli as doctor_command
from voxrill.runtime import golden_cli as golden_command
from voxrill.runtime import plan_cli as plan_command
from voxrill.runtime import providers_cli as providers_command
from voxrill.runtime import tune_cli as tune_command
from voxrill.runtime.apps import cli as app_commands
from voxrill.runtime.apps import transcribe_cli as transcribe_command
from voxrill.runtime.apps import translate_cli as translate_command
from voxrill.runtime.apps.documents import cli as document_commands
from voxrill.runtime.apps.evaluation import cli as evaluation_commands
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.model import Fallback
from voxrill.runtime.serve import cli as serve_command
from voxrill.runtime.talk import cli as talk_commands
from voxrill.runtime.talk import devices_cli as device_commands
from voxrill.runtime.talk.bench import cli as bench_commands
from voxrill.runtime.tuned import NotTuned

USER_ERROR = 2

app = typer.Typer(
    name="voxrill",
    help="LFM2-Audio, a speech-and-text model, on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
transcribe_command.register(app)
runtime_commands.register(app)
document_commands.register(app)
translate_command.register(app)
app_commands.register(app)
evaluation_commands.register(app)
tune_command.register(app)
talk_commands.register(app)
device_commands.register(app)
doctor_command.register(app)
serve_command.register(app)
bench_commands.register(app)
plan_command.register(app)
golden_command.register(app)
providers_command.register(app)
export_commands.register(app, quantize_commands.quantiser)
quantize_commands.register(app)
npu_commands.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"voxrill {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line; the exit status is 0, or 2 for anything a user can mend."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that a terminal lacks is no reason to stop
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> None:
        if issubclass(category, NotTuned | Fallback):
            console.print(f"voxrill: {message}", style="yellow", soft_wrap=True)
        else:
            show_others(message, category, *where, **rest)

    warnings.showwarning = show
    try:
        app(prog_name="voxrill")
    except VoxrillError as error:
        console.print(f"voxrill: {error}", style="red", soft_wrap=True)
        sys.exit(USER_ERROR)
    except OSError as error:  # of stdout, mostly: a full disk behind a redirection
        console.print(f"voxrill: {_os_error(error)}", style="red", soft_wrap=True)
        sys.exit(USER_ERROR)


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}." if error.filename else f"cannot read or write: {reason}."


if __name__ == "__main__":
    main()
