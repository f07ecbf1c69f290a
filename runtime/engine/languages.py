"""The languages of a model that knows several: how a caller names one, and the system prompt for it."""

from __future__ import annotations

import msgspec

from voxrill.runtime.bundle.manifest import Task, Tasks
from voxrill.runtime.errors import UsageError

LANGUAGE = "{language}"
"""Where a system prompt names the language."""


def languages(tasks: Tasks) -> tuple[str, ...]:
    """The codes (ISO 639-1) of the languages that a model hears and speaks, its own first."""
    return tuple(dict.fromkeys((tasks.language, *tasks.languages)))


def language_code(tasks: Tasks, said: str) -> str | None:
    """The code of a language that a caller names by a code or an English name; None where the model has no such.

    "de", "de-AT", "de_DE" and "German" are the same.
    """
    wanted = said.strip().casefold().replace("_", "-").partition("-")[0]
    return next(
        (code for code in languages(tasks) if wanted in (code, tasks.languages.get(code, code).casefold())), None
    )


def prompt_in(tasks: Tasks, task: Task, language: str | None, system: str | None = None) -> str | None:
    """The system prompt of `task` for a language, `system` where none is named.

    Args:
        tasks: the manifest's.
        task: one of them.
        language: see `language_code`.
        system: a prompt of the caller's own, which says the language itself.

    Raises:
        UsageError: the model does not know the language, or both were given.
    """
    if language is None:
        return system
    if system is not None:
        raise UsageError("a system prompt and a language were given", "Name the language in the prompt")
    code = language_code(tasks, language)
    if code is None:
        known = ", ".join(languages(tasks))
        raise UsageError(f"this model does not know the language {language!r}", f"It knows: {known}")
    if code not in tasks.languages or isinstance(task.spoken, msgspec.UnsetType):
        return task.system  # of a model that knows this language only
    return task.spoken.replace(LANGUAGE, tasks.languages[code])
