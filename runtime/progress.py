"""Work in steps: progress in named ones, silent or as a bar on stderr; and what comes of steps that are not watched."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from voxrill.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

Result = TypeVar("Result")

Progress = Callable[[str, int, int], None]
"""Called with what begins, how many steps are done, and how many there are."""


def result_of(steps: Generator[Any, None, Result]) -> Result:
    """Take all steps; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as over:
            result: Result = over.value
            return result


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """The `Progress` that shows nothing."""


@contextmanager
def step_progress(console: Console, what: str) -> Iterator[Progress]:
    """Yields what is called with the step that begins, the steps done, and their number; silent without a terminal."""
    from rich import progress as bars  # 25 ms, which `import voxrill` shall not take

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),  # it may be a file's name
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def step(stage: str, done: int, total: int) -> None:
            bar.update(task, description=printable(stage), completed=done, total=total)

        yield step
