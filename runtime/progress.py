"""Work in steps: their progress, silent or as a bar on stderr; and the result of steps that nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from voxrill.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

Result = TypeVar("Result")

Progress = Callable[[str, int, int], None]
"""Called with the name of the step that begins, the number of steps done, and the number of all steps."""


def result_of(steps: Generator[Any, None, Result]) -> Result:
    """Take all steps; their result."""
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
    """Yields a `Progress` that shows a bar while the block runs; it shows nothing without a terminal."""
    from rich import progress as bars  # 25 ms, which `import voxrill` must not take

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
