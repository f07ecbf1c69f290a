"""Progress in named steps, for the commands that work through graphs: silent, or a bar on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Called with what begins, how many steps are done, and how many there are."""


def quiet(_stage: str, _done: int, _total: int) -> None:
    """The `Progress` that shows nothing."""


@contextmanager
def step_progress(console: Console, what: str) -> Iterator[Progress]:
    """Yields what is called with the step that begins, the steps done, and their number; silent without a terminal."""
    from rich import progress as bars  # 25 ms, which `import voxrill` shall not take

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def step(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield step
