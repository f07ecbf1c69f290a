"""The command line as the tests drive it: the real one, in this process or in one of its own.

In: arguments. Out: exit status, stdout and stderr. What a refusal looks like is said here, once.
"""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.places import ROOT
from voxrill.__main__ import main


@dataclass(frozen=True)
class Ran:
    """What a command left behind: its exit status, stdout as it is, stderr as text."""

    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        """Stdout as text."""
        return self.raw.decode()


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder`, by its path there; "folder" for folders."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


class CommandLine:
    """The real command line in this process: `cli("inspect", bundle)`."""

    def __init__(self, monkeypatch, capture) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capture

    def __call__(self, *arguments: object) -> Ran:
        """Run a command."""
        self._monkeypatch.setattr(sys, "argv", ["voxrill", *map(str, arguments)])
        self._capture.readouterr()
        try:
            main()
            status: Any = 0
        except SystemExit as end:
            status = end.code or 0
        sys.stdout.flush()
        captured = self._capture.readouterr()
        return Ran(status, captured.out, captured.err.decode())

    def refuses(self, *arguments: object, saying: str | tuple[str, ...]) -> str:
        """Run a command that must fail well, and return what it said.

        Exit status 2, nothing on stdout, one line on stderr that holds every string of `saying`, and no file
        below the current folder other than before.
        """
        before = contents(Path.cwd())
        ran = self(*arguments)
        check_refusal(ran, (saying,) if isinstance(saying, str) else saying)
        assert contents(Path.cwd()) == before
        return ran.err


PROGRESS = re.compile(
    r"^(export|quantize|sensitivity|tune|compile|npu-check|pack|unpack|compare): .* of [\d.e+]+.*\n", re.MULTILINE
)


def check_refusal(ran: Ran, saying: tuple[str, ...]) -> None:
    """Exit status 2, nothing on stdout, and one line on stderr that holds every string of `saying`.

    Lines of progress may come before it.
    """
    said = PROGRESS.sub("", ran.err)
    assert said.startswith("voxrill: "), ran.err
    assert said.count("\n") == 1 and said.endswith(".\n"), ran.err
    for part in saying:
        assert part in said
    assert ran.status == 2
    assert ran.raw == b""


def run_alone(*arguments: object, cwd: Path, module: str = "voxrill", **environment: str) -> Ran:
    """Run a command in a process of its own; one of the benchmarks' with `module`."""
    if module != "voxrill":  # the benchmarks are not installed, so they are imported from the repository's root
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env=clean_environment(**environment),
        timeout=300,
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode())


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without a default bundle, and with one thread."""
    kept = {name: value for name, value in os.environ.items() if name != "VOXRILL_BUNDLE"}
    return {**kept, "OMP_NUM_THREADS": "1", **more}
