"""What a command does: a Python function, or a program with the slots' values as arguments. Never a shell.

In: a grammar. Out: a `Hook` for every command, found before anything is heard, so that a file that names something that
is not there is refused at once. A hook that fails, or takes too long, is an error by itself, and the next command is
heard.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from voxrill.runtime.apps.grammar import Call, Command, Grammar, filled, slots_in
from voxrill.runtime.apps.programs import clean_environment, run_program
from voxrill.runtime.apps.slots import Value
from voxrill.runtime.errors import DataError, HookError

Hook = Callable[[Call], str]
"""Does what a call means; what it wrote, empty for a function."""


def find_hooks(grammar: Grammar) -> dict[str, Hook]:
    """The hook of every command that has one.

    Raises:
        DataError: a program, module or function does not exist, or the function does not take the command's slots.
    """
    hooks: dict[str, Hook] = {}
    for name, command in grammar.commands.items():
        if command.call:
            hooks[name] = _function_hook(name, command, grammar.folder)
        elif command.run:
            hooks[name] = _program_hook(name, command.run, grammar)
    return hooks


def _program_hook(name: str, arguments: list[str], grammar: Grammar) -> Hook:
    program, folder = arguments[0], grammar.folder
    found = shutil.which(folder / program if "/" in program else program)
    if found is None:
        raise DataError(
            f"the command {name} runs {program!r}, and there is no such program",
            f"Install it, or give its path; paths begin in {folder}",
        )
    program_path: str = found

    def run(call: Call) -> str:
        command = [program_path, *(filled(argument, call.slots) for argument in arguments[1:])]
        try:
            return run_program(command, folder, clean_environment(grammar.environment))
        except HookError as error:
            raise HookError(f"{call}: {error.message}", error.remedy) from None

    return run


def _function_hook(name: str, command: Command, folder: Path) -> Hook:
    function = _function(name, command.call, folder)
    for phrase in command.say:
        _check_takes(name, command.call, function, slots_in(phrase))

    def run(call: Call) -> str:
        try:
            function(**call.slots)
        except (Exception, SystemExit) as error:  # the next command must be heard, whatever went wrong
            raise HookError(f"{command.call} ({call}) raised {type(error).__name__}: {error}", "Mend it") from error
        return ""

    return run


def _function(name: str, reference: str, folder: Path) -> Callable[..., Any]:
    """The function that "module:function" names; the module may lie beside the file."""
    module, _, attribute = reference.partition(":")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing a module runs its code
        raise DataError(
            f"the command {name} calls {reference!r}, which cannot be imported: {error}",
            f'Give "module:function" of a module that is installed, or lies in {folder}',
        ) from None
    if not callable(function):
        raise DataError(f"the command {name} calls {reference!r}, which is not a function", "Name a function")
    result: Callable[..., Any] = function
    return result


def _check_takes(name: str, reference: str, function: Callable[..., Any], slots: list[str]) -> None:
    values: Mapping[str, Value] = dict.fromkeys(slots, "")
    try:
        inspect.signature(function).bind(**values)
    except TypeError as error:
        raise DataError(
            f"{reference}, which the command {name} calls, does not take its slots ({', '.join(slots) or 'none'}): "
            f"{error}",
            "Give it a parameter for each slot, with a default for each slot that some phrases do not say",
        ) from None
