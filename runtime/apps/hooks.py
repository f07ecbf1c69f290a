"""What a command does: a Python function, or a program with the slots' values as arguments. Never a shell.

In: a grammar. Out: a `Hook` for every command, found before anything is heard, so that a file that names what is not
there is refused at once. A hook that fails, or takes too long, is an error of its own, and the next command is heard.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from voxrill.runtime.apps.grammar import Call, Command, Grammar, filled, slots_in
from voxrill.runtime.apps.slots import Value
from voxrill.runtime.errors import UsageError

Hook = Callable[[Call], None]

PATIENCE = 30.0
"""Seconds that a program may take."""

_STDERR = 2
"""Where a program's own output goes: stdout is for data."""

_STDERR_KEPT = 200
"""Characters of a program's last words that its error quotes."""


def find_hooks(grammar: Grammar) -> dict[str, Hook]:
    """The hook of every command that has one.

    Raises:
        UsageError: a program, module or function is not there, or the function does not take the command's slots.
    """
    hooks: dict[str, Hook] = {}
    for name, command in grammar.commands.items():
        if command.call:
            hooks[name] = _function_hook(name, command, grammar.folder)
        elif command.run:
            hooks[name] = _program_hook(name, command.run, grammar.folder)
    return hooks


def _program_hook(name: str, arguments: list[str], folder: Path) -> Hook:
    program = arguments[0]
    found = shutil.which(folder / program if "/" in program else program)
    if found is None:
        raise UsageError(
            f"the command {name} runs {program!r}, which is no program here",
            f"Install it, or give its path; paths begin in {folder}",
        )
    program_path: str = found

    def run(call: Call) -> None:
        command = [program_path, *(filled(argument, call.slots) for argument in arguments[1:])]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=_STDERR, stderr=subprocess.PIPE,
                timeout=PATIENCE, check=False, errors="replace", text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"{program} ({call}) took more than {PATIENCE:g} s and was ended", "Let it return"
            ) from None
        except OSError as error:
            raise UsageError(f"{program} ({call}) cannot be run: {error.strerror}", "Try it by hand") from None
        if done.returncode:
            said = done.stderr.strip()[-_STDERR_KEPT:]
            raise UsageError(f"{program} ({call}) ended with status {done.returncode}: {said}", "Try it by hand")

    return run


def _function_hook(name: str, command: Command, folder: Path) -> Hook:
    function = _function(name, command.call, folder)
    for phrase in command.say:
        _check_takes(name, command.call, function, slots_in(phrase))

    def run(call: Call) -> None:
        try:
            function(**call.slots)
        except Exception as error:  # whatever it is, the next command must be heard
            raise UsageError(f"{command.call} ({call}) raised {type(error).__name__}: {error}", "Mend it") from error

    return run


def _function(name: str, reference: str, folder: Path) -> Callable[..., Any]:
    """The function that "module:function" names; the module may lie beside the file."""
    module, _, attribute = reference.partition(":")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"the command {name} calls {reference!r}, which cannot be had: {error}",
            f'Give "module:function" of a module that is installed, or lies in {folder}',
        ) from None
    if not callable(function):
        raise UsageError(f"the command {name} calls {reference!r}, which is no function", "Name a function")
    result: Callable[..., Any] = function
    return result


def _check_takes(name: str, reference: str, function: Callable[..., Any], slots: list[str]) -> None:
    values: Mapping[str, Value] = dict.fromkeys(slots, "")
    try:
        inspect.signature(function).bind(**values)
    except TypeError as error:
        raise UsageError(
            f"{reference}, which the command {name} calls, does not take its slots ({', '.join(slots) or 'none'}): "
            f"{error}",
            "Give it a parameter for each slot, with a default for those that not every phrase says",
        ) from None
