"""One ONNX graph in onnxruntime, held to its contract.

In: a graph file and its `GraphSpec`. Out: a `Graph` that is run with named arrays.
All graphs of a model are opened here, because of one trap: every session has threads of its own. While they are idle
they spin, and take the cores from the graph that runs. Three float32 graphs of the 1.5 B model, run in turn on two
cores, took 211 ms (406 ms of processor time). Without spinning they took 155 ms (305 ms).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from voxrill.devices import overflow
from voxrill.devices.kernels import own_products, register
from voxrill.devices.providers import (
    CPU,
    CPU_NAME,
    CPU_PROVIDER,
    FATAL_ONLY,
    Provider,
    assignment,
    open_session,
    session_options,
)
from voxrill.runtime.bundle.contract import GraphSpec, TensorSpec, differences
from voxrill.runtime.bundle.few_bits import has_byte_products, has_own_attention, has_products
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.engine.turnstile import Turnstile
from voxrill.runtime.errors import BundleError, DeviceError, ProviderRefused

Array = NDArray[Any]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
}

_FALLBACK_REFUSED = "fallback to CPU EP has been explicitly disabled"
"""Part of onnxruntime's message for a graph of which a provider takes only a part."""

_FAILED = " was false. "
"""In onnxruntime's errors, the text between a condition in its source and the explanation for a reader."""

INT8_CACHE = (1, 28)
"""The first onnxruntime that runs a decoder with an int8 KV cache: 1.24 does not know its operators, and 1.26 opens it
but cannot run it."""

_NAMED = 3
"""Operators that are named in a refusal."""


class Graph:
    """A graph ready to run.

    Args:
        path: the `.onnx` file.
        spec: its contract; a graph whose inputs or outputs depart from it is refused.
        times: where the time of every run is added, under the graph's name.
        threads: threads of its pool; 0 leaves it to onnxruntime (one per physical core).
        repack: see `session_options`.
        tuned: see `session_options`.
        provider: the execution provider it is given to.
        strict: refuse a graph of which its provider would take only a part.
        profiling: what the name of onnxruntime's record of every node's time begins with, folder included.
        turnstile: the model's, which every run passes; None for one of its own.

    own_products: whether the quantised products of this graph are ours (see `voxrill.devices.kernels`).
    exact: whether its 8-bit products are exact on this processor. Graphs that were quantised before 0.3 may not be, and
        none is with an old onnxruntime on x86 without VNNI.

    Raises:
        BundleError: the file is missing, cut short, not an ONNX graph, or not this contract's; or it needs a newer
            onnxruntime.
        ProviderRefused: strict, and nodes of it would run on the CPU.
        ProviderError: the provider is not installed, or finds nothing to run on.
    """

    def __init__(
        self,
        path: Path,
        spec: GraphSpec,
        *,
        times: StageTimes,
        threads: int = 0,
        repack: bool = False,
        tuned: bool = False,
        provider: Provider = CPU_PROVIDER,
        strict: bool = False,
        profiling: Path | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        _check_version(spec)
        self.spec = spec
        self.provider = provider
        self.turnstile = turnstile or Turnstile()
        self._times = times
        ours = self.on_cpu and own_products().fast
        self.own_products = ours and has_products(path)
        # Our products do not take every block size that onnxruntime's take; see `session_options` for exact ones.
        owns = (True, False) if self.own_products or (ours and has_own_attention(path)) else (False,)
        asked = (True, False) if overflow.asks_exact() else (False,)
        ways = [(own, exact) for own in owns for exact in asked]

        def opened(own: bool, exact: bool, strict: bool = strict) -> ort.InferenceSession:
            options = session_options(threads, repack, tuned, exact)
            options.log_severity_level = FATAL_ONLY  # what it refuses is tried another way, or raised
            if own:
                register(options)
            if profiling is not None:
                options.enable_profiling, options.profile_file_prefix = True, str(profiling)
            return open_session(path, options, provider, threads, strict)

        try:
            self._session, own, exact = _first_open(opened, ways)
            self.exact = exact or not overflow.products_overflow() or not has_byte_products(path)
            self.own_products = self.own_products and own
        except DeviceError:
            raise
        except Exception as error:  # onnxruntime raises a class per status; all mean the same to a user
            if strict and _FALLBACK_REFUSED in str(error):
                self._session = opened(own=False, exact=False, strict=False)
                raise self._refusal() from None
            if not self.on_cpu and loads(path, exact=False):
                raise ProviderRefused(
                    f"{provider.name} cannot run {spec.name}: {_first_line(error)}",
                    f"Give this graph to the CPU: {self._on_cpu_option}",
                ) from None
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

    @property
    def on_cpu(self) -> bool:
        """Whether the graph was given to the CPU, which takes every node."""
        return self.provider.name == CPU_NAME

    def assigned(self) -> dict[str, Counter[str]]:
        """How many nodes of each operator a provider runs, by onnxruntime's name of the provider.

        Raises:
            ProviderError: this onnxruntime does not say.
        """
        return assignment(self._session)

    def end_profiling(self) -> Path:
        """Write the record of every node's time; the file."""
        return Path(self._session.end_profiling())

    def _refusal(self) -> ProviderRefused:
        fallen = self.assigned()[CPU]
        operators = ", ".join(operator for operator, _ in fallen.most_common(_NAMED))
        return ProviderRefused(
            f"{self.spec.name} would not run on {self.provider.name} alone: {fallen.total()} of its nodes "
            f"({operators}) would fall back to the CPU",
            f"Leave --strict out, or give this graph to the CPU: {self._on_cpu_option}",
        )

    @property
    def _on_cpu_option(self) -> str:
        return f"--provider {self.spec.name}={CPU_NAME}"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; arrays by input name to arrays by output name."""
        with self.turnstile.turn(), self._times.measure(self.spec.name):
            values = self._session.run(self._outputs, dict(feeds))
        return dict(zip(self._outputs, values, strict=True))

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Binding:
        """A run that reads and writes the given arrays in place. One array may be input and output at once."""
        binding = Binding(self._session, self.spec, self._times, self.turnstile, not self.on_cpu)
        for name, array in inputs.items():
            binding.read(name, array)
        for name, array in outputs.items():
            binding.write(name, array)
        return binding


class Binding:
    """A graph's run without copies, made once and run often. Made by `Graph.bind`.

    copied: other providers than the CPU copy the inputs when they are bound, so they are bound again before each run.
    """

    def __init__(
        self, session: ort.InferenceSession, spec: GraphSpec, times: StageTimes, turnstile: Turnstile, copied: bool
    ) -> None:
        self._io = session.io_binding()  # the first attribute: it points into the session, and must be freed before it
        self._session = session
        self._times = times
        self._turnstile = turnstile
        self._name = spec.name
        self._copied = copied
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}

    def read(self, name: str, array: Array) -> None:
        """Input `name` is what is in `array` when the graph runs."""
        self._inputs[name] = array = np.ascontiguousarray(array)
        self._io.bind_cpu_input(name, array)

    def write(self, name: str, array: Array) -> None:
        """Output `name` is written into `array`."""
        self._outputs[name] = array
        self._io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        """Run once."""
        with self._turnstile.turn(), self._times.measure(self._name):
            if self._copied:
                for name, array in self._inputs.items():
                    self._io.bind_cpu_input(name, array)
            self._session.run_with_iobinding(self._io)


def _first_open(
    opened: Callable[[bool, bool], ort.InferenceSession], ways: Sequence[tuple[bool, bool]]
) -> tuple[ort.InferenceSession, bool, bool]:
    """The session of the first way that works, and that way; raises what the last one raises."""
    *others, last = ways
    for own, exact in others:
        try:
            return opened(own, exact), own, exact
        except DeviceError:
            raise
        except Exception:  # a class per status
            continue
    return opened(*last), *last


def _check_version(spec: GraphSpec) -> None:
    if any(tensor.dtype == "int8" for tensor in spec.state) and overflow.ort_version() < INT8_CACHE:
        raise BundleError(
            f"{spec.name} has an int8 KV cache, which onnxruntime {ort.__version__} cannot run",
            f"Update: pip install --upgrade 'onnxruntime>={'.'.join(map(str, INT8_CACHE))}'",
        )


def _tensors(nodes: list[ort.NodeArg]) -> list[TensorSpec]:
    return [
        TensorSpec(
            node.name,
            _DTYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else str(size) for size in node.shape),
        )
        for node in nodes
    ]


def loads(path: Path, exact: bool) -> bool:
    """Whether the CPU takes a graph. If it does not, the graph is to blame, and not a provider.

    exact: see `session_options`.
    """
    options = session_options(threads=1, exact=exact)
    options.log_severity_level = FATAL_ONLY
    try:
        open_session(path, options, CPU_PROVIDER)
    except Exception:  # a class per status
        return False
    return True


def _first_line(error: Exception) -> str:
    """The message of onnxruntime, without the place in its source and the condition that failed there."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition(_FAILED)[2]
