"""What is compared, and how it is made: checkpoint, bundles, GGUF files, onnxruntime-genai's model.

In: a working folder, a family and the interpreters of the other environments. Out: contenders by name. A missing file
is made, and kept for the next run. If it cannot be made, `Failed` gives the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.llama import FORMATS
from benchmarks.protocol import Json
from benchmarks.worker import ROOT, Failed, MeasuredContender, last_line, say
from voxrill.runtime.bundle.atomic_folder import lock_folder, remove, unlock
from voxrill.runtime.bundle.bundle import link_file
from voxrill.runtime.bundle.contract import AUDIO_ENCODER
from voxrill.runtime.bundle.manifest import MANIFEST_FILE
from voxrill.runtime.bundle.tuned import TUNED_FILE, tuned_folder

BANDWIDTH = "read bandwidth"
SMALL_PAGES = f"{BANDWIDTH}, small pages"
"""The same on the smallest pages: what memory gives that the kernel was not asked to put on huge ones."""
PRODUCTS = "kernels"
GENAI = "onnxruntime-genai int4"
GENAI_SPEECH = "onnxruntime-genai speech"
"""Its LFM2-Audio, which hears and speaks; GENAI is the backbone alone, for tokens."""
FLOAT32 = "float32"
FAST_PREFILL = "-fast-prefill"
TUNED = "-tuned"
VARIANTS = (f"int4{FAST_PREFILL}", f"int4{TUNED}")
"""Bundles that differ from a recipe's bundle only in prefill, or in how they are loaded."""
DTYPES = ("float32", "bfloat16")
TORCH_MEMORY_GB = {"float32": 9.6, "bfloat16": 7.4}
"""While it loads. Once loaded it takes two thirds of this."""


@dataclass
class Workshop:
    """Finds contenders and makes what they need.

    work: folder of checkpoints, bundles and the like; family: lfm2 or lfm2.5; precisions: float32, recipes, and either
    with -fast-prefill or -tuned behind it; bundles: bundle folders by name, instead of those; python: interpreters of
    the environments llama, genai and reference; made: what this workshop made, with seconds, CPU seconds and peak
    memory in bytes.
    """

    work: Path
    family: str
    precisions: tuple[str, ...]
    bundles: dict[str, Path] = field(default_factory=dict)
    python: dict[str, Path] = field(default_factory=dict)
    made: dict[str, Json] = field(default_factory=dict)
    _known: dict[str, MeasuredContender | Failed] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Every contender, in the order of tables."""
        llama = [f"llama.cpp {name}" for name in FORMATS]
        torch = [f"torch {dtype}" for dtype in DTYPES]
        return [BANDWIDTH, SMALL_PAGES, PRODUCTS, *self._ours(), *llama, GENAI, GENAI_SPEECH, *torch]

    def contender(self, name: str) -> MeasuredContender:
        """One contender. It is made if it is not there yet.

        Raises:
            Failed: it cannot be made.
        """
        if name not in self._known:
            try:
                self._logs.mkdir(parents=True, exist_ok=True)
                with locked(self._logs):  # another run may be making the same
                    self._known[name] = self._find(name)
            except Failed as reason:
                self._known[name] = reason
        found = self._known[name]
        if isinstance(found, Failed):
            raise found
        return found

    def _ours(self) -> list[str]:
        return [f"voxrill {name}" for name in self.bundles or self.precisions]

    @property
    def _logs(self) -> Path:
        return self.work / "logs"

    def _find(self, name: str) -> MeasuredContender:
        if name in (BANDWIDTH, SMALL_PAGES):
            pages = ("--small-pages",) if name == SMALL_PAGES else ()
            return MeasuredContender(name, (sys.executable, "-m", "benchmarks.bandwidth", *pages), 1.0)
        if name == PRODUCTS:
            return MeasuredContender(name, (sys.executable, "-m", "benchmarks.products"), 4.0)
        if name == GENAI:
            return self._genai(name)
        if name == GENAI_SPEECH:
            return self._genai_speech(name)
        kind, _, what = name.partition(" ")
        makers: dict[str, Callable[[str, str], MeasuredContender]] = {
            "voxrill": self._voxrill,
            "llama.cpp": self._llama,
            "torch": self._torch,
        }
        return makers[kind](name, what)

    def _voxrill(self, name: str, precision: str) -> MeasuredContender:
        bundle = self.bundles.get(precision) or self._bundle(precision)
        size = sum(file.stat().st_size for file in bundle.iterdir()) / 1e9
        return MeasuredContender(name, (sys.executable, "-m", "benchmarks.ours", str(bundle)), 1.3 * size + 0.5)

    def _llama(self, name: str, kind: str) -> MeasuredContender:
        python = self._python("llama")
        folder = self.work / f"gguf-{self.family}"
        file = folder / f"{kind}.gguf"
        if not file.is_file():
            self._make("llama.cpp's files", [python, "-m", "benchmarks.llama", "make", self._checkpoint(), folder])
        size = file.stat().st_size / 1e9
        return MeasuredContender(name, (python, "-m", "benchmarks.llama", "serve", str(file)), 2 * size + 0.4)

    def _genai(self, name: str) -> MeasuredContender:
        python = self._python("genai")
        folder = self.work / f"genai-{self.family}"
        if not (folder / "genai_config.json").is_file():
            self._make(
                "onnxruntime-genai's model", [python, "-m", "benchmarks.genai", "make", self._checkpoint(), folder]
            )
        return MeasuredContender(name, (python, "-m", "benchmarks.genai", "serve", str(folder)), 2.0)

    def _genai_speech(self, name: str) -> MeasuredContender:
        python = self._python("genai")
        folder = self.work / f"genai-speech-{self.family}"
        if not (folder / "embeddings.onnx").is_file():
            encoder = self._bundle("int4") / f"{AUDIO_ENCODER}.onnx"
            words = [python, "-m", "benchmarks.genai_speech", "make", self._checkpoint(), folder, "--encoder", encoder]
            self._make("onnxruntime-genai's LFM2-Audio", words)
        return MeasuredContender(name, (python, "-m", "benchmarks.genai_speech", "serve", str(folder)), 2.5)

    def _torch(self, name: str, dtype: str) -> MeasuredContender:
        command = (self._python("reference"), "-m", "benchmarks.reference", str(self._checkpoint()), "--dtype", dtype)
        return MeasuredContender(name, command, TORCH_MEMORY_GB[dtype])

    def _python(self, environment: str) -> str:
        """The interpreter of another environment."""
        path = self.python.get(environment)
        if path is None:
            raise Failed(f"not measured: give --{environment} PYTHON, or run: make bench")
        if not path.exists():
            raise Failed(f"there is no {path}: give --{environment} PYTHON, or run: make bench")
        return str(path.absolute())  # not resolved: the interpreter knows its environment by the link's place

    def _checkpoint(self) -> Path:
        folder = self.work / f"checkpoint-{self.family}"
        if not (folder / "model.safetensors").is_file():
            made = folder.with_name(f"{folder.name}-unfinished")
            options = ["--family", self.family, "--size", "full", "--dtype", "bfloat16"]
            self._make("a random checkpoint", [sys.executable, "-m", "tests.checkpoints", *options, made])
            made.rename(folder)
        return folder

    def _bundle(self, precision: str) -> Path:
        """The bundle of one precision; see the class."""
        exported = self.work / f"bundle-{self.family}"
        bundle = exported if precision == FLOAT32 else exported.with_name(f"{exported.name}-{precision}")
        voxrill = [sys.executable, "-m", "voxrill"]
        if precision.endswith(TUNED):
            if not (tuned_folder(bundle) / TUNED_FILE).is_file():
                _link(self._bundle(precision.removesuffix(TUNED)), bundle)
                self._make(f"the {precision} form", [*voxrill, "tune", bundle])
        elif not (bundle / MANIFEST_FILE).is_file():
            self._make(f"the {precision} bundle", [*voxrill, *self._source(precision), "-o", bundle])
        return bundle

    def _source(self, precision: str) -> list[object]:
        """The command that makes a bundle, without its target."""
        if precision == FLOAT32:
            return ["export", self._checkpoint()]
        command = ["quantize", self._bundle(FLOAT32), "--recipe", precision.removesuffix(FAST_PREFILL)]
        return [*command, "--fast-prefill"] if precision.endswith(FAST_PREFILL) else command

    def _make(self, what: str, command: list[object]) -> None:
        """Run a command that makes something, with its output in a log, and note its time and memory."""
        say(f"making {what}; this is done once")
        log = self._logs / f"make-{what.replace(' ', '-')}.log"
        start = time.perf_counter()
        words = [str(word) for word in command]
        with log.open("w") as out, subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=out) as process:
            # wait4, because it alone tells the time and memory of this one process.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Failed(f"{what} could not be made: {last_line(log.read_text(errors='replace'))} (see {log})")
        self.made[what] = {
            "wall": time.perf_counter() - start,
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak": 1024 * usage.ru_maxrss,
        }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """For one folder, only one process at a time is in this block."""
    lock = lock_folder(folder, wait=True)
    try:
        yield
    finally:
        unlock(lock)


def _link(bundle: Path, target: Path) -> None:
    """The same bundle in another folder, so that it can be tuned and the first cannot."""
    remove(target)
    for path in bundle.iterdir():
        if path.is_file():
            link_file(path, target / path.name)
