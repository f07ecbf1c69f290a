"""A program that a command runs: for a limited time, with a clean environment and bounded output.

In: a program and its arguments, and the folder where it runs. Out: what it wrote. The program has its own session. So
it can be ended together with everything that it started, and Ctrl-C reaches only us. Programs that it leaves in the
background may go on: we do not wait for them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO

from voxrill.runtime.errors import HookError

PATIENCE = 30.0
"""Seconds that a program may run."""

KEPT = 4000
"""Bytes at the end of a program's output that are kept."""

_GRACE = 0.2
"""Seconds to wait, after a program has ended, for the rest of its output. Only needed if a background program holds the
pipe open: without one, the pipe ends with the program."""

_PIECE = 1 << 16

PASSED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TMP", "TEMP",
    "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "PULSE_SERVER",
    "SYSTEMROOT", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "USERPROFILE",
})  # fmt: skip
"""Variables that a program gets, besides those of the locale (`LC_`) and those that the file of commands names. Others
may be keys and tokens, so programs do not get them."""


def clean_environment(named: Sequence[str] = ()) -> dict[str, str]:
    """The part of our environment that a program gets: `PASSED`, the locale, and the variables in `named`."""
    wanted = PASSED | set(named)
    return {name: value for name, value in os.environ.items() if name in wanted or name.startswith("LC_")}


def run_program(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run a program and wait for its end; returns the end of what it wrote to stdout and stderr, `KEPT` bytes at most.

    Raises:
        HookError: it cannot be run, took longer than `PATIENCE`, or failed; the message quotes what it wrote.
    """
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:  # ValueError: a null character in an argument
        reason = error.strerror if isinstance(error, OSError) else error
        raise HookError(f"{command[0]} cannot be run: {reason}", "Try it by hand") from None
    assert process.stdout is not None
    output = _Tail(process.stdout)
    with _ended(process):
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise HookError(
                f"{command[0]} took more than {PATIENCE:g} s and was ended", "Start what takes longer in the background"
            ) from None
    said = output.text()
    if status:
        raise HookError(f"{command[0]} ended with status {status}: {said}", "Try it by hand")
    return said


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """If the `with` block fails for any reason, end the program and everything that it started."""
    try:
        yield
    except BaseException:
        with suppress(PermissionError):  # it runs as another user now
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # we have not waited for it, so no other group has its number
            else:
                process.kill()
            process.wait()
        raise


class _Tail(Thread):
    """A thread that reads a pipe to its end and keeps the last bytes.

    It reads on after the program has ended, because programs in the background may still write. If nobody read the
    pipe, they would stop when it is full, or be killed when it is closed.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True, name="output of a program")
        self._pipe = pipe
        self._kept = b""
        self.start()

    def run(self) -> None:
        """Read until the last writer has closed the pipe."""
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), _PIECE):
                self._kept = (self._kept + piece)[-KEPT:]

    def text(self) -> str:
        """The last bytes that were written until now, as text."""
        self.join(_GRACE)
        return self._kept.decode(errors="replace").strip()
