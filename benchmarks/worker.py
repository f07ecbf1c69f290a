"""The benchmark's side of a contender: start its process, ask it, end it.

In: a `MeasuredContender` and a number of threads. Out: its answers, or a `Failed` that says in words what went wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.protocol import Json

ROOT = Path(__file__).resolve().parent.parent
LOAD_SECONDS = 600.0
REQUEST_SECONDS = 900.0
SPARE_GB = 0.5
"""GB of memory that stay free for everything else."""


class Failed(Exception):
    """A contender cannot be made or has ended; the message says why."""


@dataclass(frozen=True)
class MeasuredContender:
    """How to start one: the command without `--threads N`, and the most memory that it takes, in GB."""

    name: str
    command: tuple[str, ...]
    memory_gb: float = 0.1

    def check_memory(self) -> None:
        """Refuse to start a contender that needs more memory than is free.

        Raises:
            Failed: it needs more.
        """
        free = psutil.virtual_memory().available / 1e9
        if free < self.memory_gb + SPARE_GB:
            raise Failed(f"needs about {self.memory_gb:.1f} GB of memory, and {free:.1f} GB are free")


class BenchWorker:
    """One running contender.

    Args:
        contender: what to start.
        threads: its threads.
        log: where its stderr goes.

    Raises:
        Failed: it did not load.
    """

    def __init__(self, contender: MeasuredContender, threads: int, log: Path) -> None:
        contender.check_memory()
        self.contender = contender
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*contender.command, "--threads", str(threads)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        try:
            self.hello = self._answer(LOAD_SECONDS)
        except Failed:
            self.close()
            raise

    def ask(self, stage: str, args: Json, count: int) -> Json:
        """Time a stage `count` times.

        Raises:
            Failed: it ended or took too long. It cannot be asked again.
        """
        assert self._process.stdin is not None
        request = json.dumps({"stage": stage, "args": args, "count": count})
        try:
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._why()) from None
        return self._answer(REQUEST_SECONDS)

    def _answer(self, seconds: float) -> Json:
        assert self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        # A blocking read has no time limit of its own; killing the process ends it.
        timer = threading.Timer(seconds, end)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise Failed(f"took longer than {seconds:.0f} s" if late.is_set() else self._why())
        answer: Json = json.loads(line)
        return answer

    def _why(self) -> str:
        """The last line that its process printed."""
        status = self._process.wait()
        return f"ended with status {status}: {last_line(self._log.read_text(errors='replace'))} (see {self._log})"

    def close(self) -> None:
        """Close its stdin, after which it ends by itself; kill it if it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> BenchWorker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing on stderr"


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
