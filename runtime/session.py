"""One ONNX graph in onnxruntime, held to its contract.

In: a graph file and its `GraphSpec`. Out: a `Graph` that is run with named arrays.
The one trap it exists to avoid: every session has its own threads, which spin while idle and steal the cores from
the graph that runs. Three float32 graphs of the 1.5 B model run in turn on two cores took 211 ms (406 ms of processor
time); with spinning stopped after each run 155 ms (305 ms). All graphs of one model are opened through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from voxrill.devices.providers import CPU, session_options
from voxrill.devices.qnn import Htp, NpuError
from voxrill.runtime.contract import GraphSpec, TensorSpec, differences
from voxrill.runtime.errors import BundleError
from voxrill.runtime.stats import StageTimes

Array = NDArray[Any]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


class Graph:
    """A graph ready to run.

    Args:
        path: the `.onnx` file.
        spec: its contract; a graph whose inputs or outputs depart from it is refused.
        times: where the time of every run is added, under the graph's name.
        threads: threads of its pool; 0 leaves it to onnxruntime (one per physical core).
        repack: see `session_options`.
        tuned: see `session_options`.
        npu: run it there, wholly, instead of on the CPU.

    Raises:
        BundleError: the file is missing, cut short, not an ONNX graph, or not this contract's.
    """

    def __init__(
        self,
        path: Path,
        spec: GraphSpec,
        times: StageTimes,
        threads: int = 0,
        repack: bool = False,
        tuned: bool = False,
        npu: Htp | None = None,
    ) -> None:
        self.spec = spec
        self._times = times
        try:
            if npu is not None:
                self._session = npu.session(path)
            else:
                self._session = ort.InferenceSession(
                    str(path), sess_options=session_options(threads, repack, tuned), providers=[CPU]
                )
        except NpuError as error:
            raise BundleError(error.message, error.remedy) from None
        except Exception as error:  # onnxruntime raises a class per status; all mean the same to a user
            raise BundleError(
                f"{path.name} cannot be loaded: {_first_line(error)}",
                f"Check the bundle with: voxrill verify {path.parent}",
            ) from None
        found = differences(spec, _tensors(self._session.get_inputs()), _tensors(self._session.get_outputs()))
        if found:
            raise BundleError(
                f"{path.name} is not the graph this Voxrill knows: {'; '.join(found[:3])}",
                "Export the bundle again with this version",
            )
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; arrays by input name to arrays by output name."""
        with self._times.measure(self.spec.name):
            values = self._session.run(self._outputs, dict(feeds))
        return dict(zip(self._outputs, values, strict=True))

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """A run that reads and writes the given arrays where they lie; one may be input and output at once."""
        binding = Binding(self._session, self.spec, self._times)
        for name, array in inputs.items():
            binding.read(name, array)
        for name, array in outputs.items():
            binding.write(name, array)
        return binding


class Binding:
    """A graph's run without copies, made once and run often. Made by `Graph.bind`."""

    def __init__(self, session: ort.InferenceSession, spec: GraphSpec, times: StageTimes) -> None:
        self._session = session
        self._times = times
        self._name = spec.name
        self._io = session.io_binding()
        self._held: dict[str, Array] = {}

    def read(self, name: str, array: Array) -> None:
        """Input `name` is what is in `array` when the graph runs."""
        self._held[name] = array = np.ascontiguousarray(array)
        self._io.bind_cpu_input(name, array)

    def write(self, name: str, array: Array) -> None:
        """Output `name` is written into `array`."""
        self._held[name] = array
        self._io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        """Run once."""
        with self._times.measure(self._name):
            self._session.run_with_iobinding(self._io)


def _tensors(nodes: list[ort.NodeArg]) -> list[TensorSpec]:
    return [
        TensorSpec(
            node.name,
            _DTYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else str(size) for size in node.shape),
        )
        for node in nodes
    ]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
