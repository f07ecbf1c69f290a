"""Commands that work through several files go on when one of them fails, and end as failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from voxrill.commands.output import err
from voxrill.runtime.errors import DataError, VoxrillError


class Failures:
    """The failures of a command that works through `files` files."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._failed = 0

    @contextmanager
    def of_one(self) -> Iterator[None]:
        """Work on one file in the `with` block. Its error is printed and counted, unless it is the only file.

        Raises:
            VoxrillError: it is the only file.
        """
        try:
            yield
        except VoxrillError as error:
            if self._files == 1:
                raise
            self.tell(str(error))

    def tell(self, what: str) -> None:
        """Count a failure, and print why."""
        self._failed += 1
        err.print(f"voxrill: {what}", style="red", soft_wrap=True)

    @property
    def count(self) -> int:
        """Failures so far."""
        return self._failed

    def check(self) -> None:
        """Raises DataError if a file has failed."""
        if self._failed:
            raise DataError(f"{self._failed} of {self._files} files failed", "See the lines above")
