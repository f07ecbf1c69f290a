"""The command line: every command under one name, and every error as one line."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import typer

from voxrill.commands.ending import ended_by_signals, forget_stdout, open_standard_streams
from voxrill.commands.index import COMMANDS, GROUPS, load_command
from voxrill.runtime.errors import VoxrillError, VoxrillWarning
from voxrill.runtime.printable import printable
from voxrill.runtime.version import VERSION

USER_ERROR = 2
UNREAD = 1
"""The exit status when nobody reads stdout any more; typer's own."""


class Commands(typer.core.TyperGroup):
    """The commands of `voxrill.commands.index`, each imported when it is run or asked for its help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order in which help lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of them; None if there is none of that name."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of help, which imports none of them."""
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, entry.help) for name, entry in commands.items()])


app = typer.Typer(
    name="voxrill",
    help="LFM2-Audio, a speech-and-text model, on the device.",
    no_args_is_help=True,
    add_completion=False,
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
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


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
    try:
        status = _command()
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
