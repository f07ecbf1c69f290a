"""A program that a command runs: for a limited time, with a clean environment, its output bounded.

In: a program and its arguments, and where it runs. Out: what it wrote. It is in a session of its own, so that it is
ended together with all that it started, and Ctrl-C is ours alone. What it leaves running in the background may stay:
nobody waits for it.
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
"""Seconds that a program may take."""

KEPT = 4000
"""Bytes of a program's output that are kept: the last ones."""

_GRACE = 0.2
"""Seconds after a program's end within which its output has arrived, if something in the background holds the pipe."""

_PIECE = 1 << 16

PASSED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TMP", "TEMP",
    "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "PULSE_SERVER",
    "SYSTEMROOT", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "USERPROFILE",
})  # fmt: skip
"""Variables that a program is given, besides those of the locale (`LC_`) and those that the file of commands names. All
others stay with us: keys and tokens are among them."""


def clean_environment(named: Sequence[str] = ()) -> dict[str, str]:
    """Our environment as a program gets it, with the variables in `named`."""
    wanted = PASSED | set(named)
    return {name: value for name, value in os.environ.items() if name in wanted or name.startswith("LC_")}


def run_program(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a program wrote, to stdout and stderr, until it ended well: the end of it, at most `KEPT` bytes.

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
    """If the `with` block fails, by whatever it may be, the program and all that it started end too."""
    try:
        yield
    except BaseException:
        with suppress(PermissionError):  # it has become another user's
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so no other group has this number
            else:
                process.kill()
            process.wait()
        raise


class _Tail(Thread):
    """Reads a pipe to its end and keeps the last bytes.

    It reads on after the program has ended, for what that left running: a program that writes into a pipe that nobody
    reads is stopped, or killed.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True, name="output of a program")
        self._pipe = pipe
        self._kept = b""
        self.start()

    def run(self) -> None:
        """Read until the last writer is gone."""
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), _PIECE):
                self._kept = (self._kept + piece)[-KEPT:]

    def text(self) -> str:
        """What was written until now."""
        self.join(_GRACE)
        return self._kept.decode(errors="replace").strip()
