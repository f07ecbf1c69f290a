"""Rockchip's toolkit for the NPU of an RK3588, as a session: it runs in an environment of its own.

In: a graph of the npu flavour in float32, and the interpreter of an environment with rknn-toolkit2. Out: a session on
the toolkit's simulator, and what the toolkit reported while it built the graph: nodes that it cannot run, and nodes
that are left to the CPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from voxrill.runtime.errors import BundleError, UsageError

Array = NDArray[Any]

NEWEST_OPSET = 19
"""The newest opset that rknn-toolkit2 2.5.0 reads. Of our operators only Gelu is newer."""

_PROGRAM = Path(__file__).with_name("rknn_simulator.py")
_INSTALL = "Make one with Python 3.11: pip install rknn-toolkit2 (or make .venv-rknn/.installed)"
_WITHOUT_LOWERING = re.compile(r"No lowering found for: (\S+), node type = (\w+)")
_LAYER = re.compile(r"RKNN: \[[\d:.]+\] \d+ +(\w+) +\w+ +CPU +.* (\w+):(\S+)\s*$", re.MULTILINE)
_NO_WORK = ("InputOperator", "OutputOperator")
_ERROR = re.compile(r"^(?:\w+\.)*[A-Z]\w+: (?!Traceback)(.+)$", re.MULTILINE)
"""The last line of a traceback. The toolkit prints several tracebacks, one inside the other."""


def find_interpreter(python: Path) -> Path:
    """The path of an interpreter that has the toolkit, valid from every folder.

    Raises:
        UsageError: there is none, or it has no toolkit.
    """
    found = Path(shutil.which(python) or python).absolute()
    try:
        ran = subprocess.run([found, "-I", "-c", "import rknn.api"], capture_output=True, text=True)
    except OSError as error:
        raise UsageError(f"{python} cannot be run ({error.strerror})", _INSTALL) from None
    if ran.returncode:
        reason = ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"]
        raise UsageError(f"{python} has no rknn-toolkit2 ({reason[-1]})", _INSTALL)
    return found


class Simulated:
    """A graph on the simulator, run like a session of onnxruntime. `simulated` makes it.

    refused: nodes that the toolkit knows and cannot run; on_cpu: nodes that the processor beside the NPU would run.
    Both as `name (operator)`.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], folder: Path, inputs: Sequence[str]) -> None:
        self._name, self._process, self._folder, self._inputs = name, process, folder, inputs
        self._wait()
        said = _said(folder)
        self.refused = [f"{name} ({operator})" for name, operator in _WITHOUT_LOWERING.findall(said)]
        self.on_cpu = [f"{name} ({operator})" for operator, _, name in _LAYER.findall(said) if operator not in _NO_WORK]

    def run(self, _names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Run once. All outputs are returned, in the graph's order."""
        source, target = (self._folder / f"{name}.npz" for name in ("in", "out"))
        np.savez(source, *(feeds[name] for name in self._inputs))
        assert self._process.stdin is not None
        self._process.stdin.write(f"{source} {target}\n")
        self._process.stdin.flush()
        self._wait()
        with np.load(target) as outputs:
            return [outputs[name] for name in outputs.files]

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            errors = _ERROR.findall(_said(self._folder)) or ["it ended without a word"]
            raise BundleError(f"rknn-toolkit2 refuses {self._name}: {errors[-1]}", "Export with --flavour npu")


@contextmanager
def simulated(python: Path, graph: Path, calls: Sequence[Mapping[str, Array]] = ()) -> Iterator[Simulated]:
    """A session on the simulator for the `with` block.

    Args:
        python: an interpreter that has the toolkit (`find_interpreter`).
        graph: an ONNX file.
        calls: inputs to choose the 8-bit ranges with. Without any, the graph is built in float16.

    Raises:
        BundleError: the toolkit does not take the graph.
    """
    with tempfile.TemporaryDirectory(prefix="voxrill-") as name:
        folder = Path(name)
        inputs = write_older(graph, folder / "graph.onnx")
        dataset = [str(_dataset(calls, inputs, folder))] if calls else []
        command: list[Path | str] = [
            python,
            "-I",
            _PROGRAM,
            "graph.onnx",
            *dataset,
        ]  # -I: import nothing from the program's folder
        with (folder / "log").open("w") as log, _started(command, folder, log) as process:
            yield Simulated(graph.name, process, folder, inputs)


@contextmanager
def _started(command: Sequence[Path | str], folder: Path, log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end, which loses nothing. It runs in `folder`, where the toolkit leaves files."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, cwd=folder, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _said(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")


def _dataset(calls: Sequence[Mapping[str, Array]], inputs: Sequence[str], folder: Path) -> Path:
    """A file with one line for each call, which lists a .npy file for each input."""
    lines = []
    for number, feeds in enumerate(calls):
        files = [folder / f"{number}-{index}.npy" for index in range(len(inputs))]
        for name, file in zip(inputs, files, strict=True):
            np.save(file, feeds[name])
        lines.append(" ".join(map(str, files)))
    target = folder / "dataset.txt"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def write_older(source: Path, target: Path) -> list[str]:
    """Write a graph as one file, in an opset that the toolkit reads. Returns the names of its inputs."""
    proto = onnx.load(str(source))
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        nodes += _gelu(node, proto.graph) if node.op_type == "Gelu" else [node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for opset in proto.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, NEWEST_OPSET)
    onnx.save_model(proto, str(target))
    return [value.name for value in proto.graph.input]


def _gelu(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Gelu by its definition: x / 2 * (1 + erf(x / sqrt(2)))."""

    def constant(value: float) -> str:
        name = f"{node.name}_{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def made(operator: str, *inputs: str, output: str = "") -> str:
        name = f"{node.name}_{operator}_{len(steps)}"
        steps.append(helper.make_node(operator, inputs, [output or name], name))
        return name

    steps: list[onnx.NodeProto] = []
    half = made("Mul", node.input[0], constant(0.5))
    tail = made("Erf", made("Mul", node.input[0], constant(0.5**0.5)))
    made("Mul", half, made("Add", tail, constant(1.0)), output=node.output[0])
    return steps
