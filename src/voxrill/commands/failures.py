"""Some of several files may fail: each failure is told at once, and the command ends as failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from voxrill.commands.output import err
from voxrill.runtime.errors import DataError, VoxrillError


class Failures:
    """Those of a command that works through `files` files."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._failed = 0

    @contextmanager
    def of_one(self) -> Iterator[None]:
        """Work on one file, of which an error is told; of an only file it is the end.

        Raises:
            VoxrillError: it is the only one.
        """
        try:
            yield
        except VoxrillError as error:
            if self._files == 1:
                raise
            self.tell(str(error))

    def tell(self, what: str) -> None:
        """Say that a file has failed, and why."""
        self._failed += 1
        err.print(f"voxrill: {what}", style="red", soft_wrap=True)

    def check(self) -> None:
        """Raises DataError if a file has failed."""
        if self._failed:
            raise DataError(f"{self._failed} of {self._files} files failed", "See the lines above")
