"""The command line: every command under one name, and every error as one line."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import typer

from voxrill.commands.ending import ended_by_signals, forget_stdout, open_standard_streams
from voxrill.commands.index import COMMANDS, GROUPS, QuietOption, load_command
from voxrill.commands.once import say_waiting, wait_to_say
from voxrill.commands.quiet import be_quiet
from voxrill.runtime.errors import VoxrillError, VoxrillWarning
from voxrill.runtime.printable import printable
from voxrill.runtime.version import VERSION

USER_ERROR = 2
UNREAD = 1
"""The exit status when nobody reads stdout any more; typer's own."""


class Commands(typer.core.TyperGroup):
    """The commands of `voxrill.commands.index`, each imported when it is run or asked for its help."""

    _naming = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order in which help lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of them; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        if self._naming:  # only its name and its line are asked for
            return typer.core.TyperCommand(cmd_name, short_help=COMMANDS[cmd_name].help)
        return load_command(cmd_name)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What the shell may complete `incomplete` to; none of the commands is imported."""
        self._naming = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._naming = False

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of help, which imports none of them."""
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, entry.help) for name, entry in commands.items()])


_EPILOG = """\b
Examples:
  voxrill transcribe question.wav
  voxrill chat question.wav
  voxrill COMMAND -h"""

app = typer.Typer(
    name="voxrill",
    help="LFM2-Audio, a speech-and-text model, on the device.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=Commands,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"voxrill {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "-V", "--version", callback=_version, is_eager=True, help="Show the version."),
    quiet: QuietOption = False,
) -> None:
    if quiet:
        be_quiet(True)


def main() -> None:
    """Run the command line. The exit status is 0, 2 for what a user can mend, or 128 + a signal's number."""
    open_standard_streams()
    with ended_by_signals():
        status = _run()
    if status:
        sys.exit(status)


def _run() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that a terminal lacks is no reason to stop
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> None:
        if issubclass(category, VoxrillWarning):
            _tell(str(message), "yellow")
        else:
            show_others(message, category, *where, **rest)

    warnings.showwarning = show
    be_quiet(False)
    wait_to_say("")
    try:
        status = _command()
        if status == 0:
            say_waiting()
        sys.stdout.flush()
    except VoxrillError as error:
        _tell(str(error), "red")
        return USER_ERROR
    except BrokenPipeError:  # the reader of stdout has enough, as `head` has
        forget_stdout()
        return UNREAD
    except OSError as error:  # of stdout, mostly: a full disk behind a redirection
        _tell(_os_error(error), "red")
        forget_stdout()
        return USER_ERROR
    return status


def _command() -> int:
    """The exit status of the command, which typer raises."""
    try:
        app(prog_name="voxrill")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _tell(text: str, style: str) -> None:
    from rich.console import Console  # 30 ms, which help and most commands need not take

    Console(stderr=True, highlight=False, markup=False, emoji=False).print(
        f"voxrill: {printable(text)}", style=style, soft_wrap=True
    )


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}." if error.filename else f"cannot read or write: {reason}."


if __name__ == "__main__":
    main()
