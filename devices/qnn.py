"""Qualcomm's NPU (the HTP) through the package onnxruntime-qnn: its chips, and what a session needs to run on one.

On x86-64 the same package compiles for a chip and simulates it: the numbers are checked there, the speed is not.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import onnxruntime as ort

from voxrill.devices.errors import DeviceError
from voxrill.devices.plugins import find_plugin, give, register
from voxrill.devices.providers import session_options

QNN = "qnn"
"""The provider's short name."""

_NAMED = 3
"""Nodes that are named in a refusal."""

_NOTHING_LOGGED = 4
"""onnxruntime's fatal level: what it refuses is said in Voxrill's own words."""


class NpuError(DeviceError):
    """A chip is unknown, or a graph cannot be compiled for it."""


@dataclass(frozen=True)
class Soc:
    """A chip: its number in Qualcomm's SDK, and the version of its HTP."""

    name: str
    model: int
    arch: int
    sold_as: str


SOCS = {
    soc.name: soc
    for soc in (
        Soc("SM8350", 30, 68, "Snapdragon 888"),
        Soc("SC8280XP", 37, 68, "Snapdragon 8cx Gen 3"),
        Soc("SM8450", 36, 69, "Snapdragon 8 Gen 1"),
        Soc("SM8475", 42, 69, "Snapdragon 8+ Gen 1"),
        Soc("SM8550", 43, 73, "Snapdragon 8 Gen 2"),
        Soc("SC8380XP", 60, 73, "Snapdragon X Elite"),
        Soc("SM8650", 57, 75, "Snapdragon 8 Gen 3"),
        Soc("SM8750", 69, 79, "Snapdragon 8 Elite"),
        Soc("SM8850", 87, 81, "Snapdragon 8 Elite Gen 5"),
    )
}
"""Numbers from ExecuTorch's QcomChipset; those of the SC chips from llama.cpp's QNN backend."""

_PLAIN = (
    "Add And Cast Concat Conv Cos Div Elu Exp Expand Gather GatherND Gelu Greater GreaterOrEqual LayerNormalization "
    "Less MatMul Mul Pad Pow ReduceMean ReduceSum Relu Reshape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub "
    "Transpose Unsqueeze Where"
)
_QUANTISED = "DequantizeLinear MatMulNBits QuantizeLinear"
OPERATORS = frozenset([*_PLAIN.split(), *_QUANTISED.split()])
"""What the npu flavour is made of: each was compiled for v73, v75 and v79, and simulated."""

CHECKED = ("SM8550", "SM8650", "SM8750")
"""One chip each of v73, v75 and v79: what a graph must compile for to count as ready."""


def find_soc(name: str) -> Soc:
    """A chip by its name, in capitals or not.

    Raises:
        NpuError: it is not known; the known ones are listed.
    """
    if name.upper() not in SOCS:
        known = ", ".join(f"{soc.name} ({soc.sold_as})" for soc in SOCS.values())
        raise NpuError(f"there is no chip {name!r}", f"Give one of: {known}")
    return SOCS[name.upper()]


def sdk_version() -> str:
    """The version of Qualcomm's SDK inside the package; a context binary belongs to one.

    Raises:
        DeviceError: the package is not installed, or does not load.
    """
    register(QNN)
    return str(importlib.import_module(f"{find_plugin(QNN).module}.build_and_package_info").qnn_version)


@dataclass(frozen=True)
class Htp:
    """The HTP of one chip: real on the chip itself, simulated on x86-64."""

    soc: Soc

    def session(self, graph: Path, context: Path | None = None) -> ort.InferenceSession:
        """A session that runs the whole graph there, or none.

        Args:
            graph: an ONNX graph, or one that stands for a context binary beside it.
            context: where to write such a graph; its binary is put beside it.

        Raises:
            DeviceError: the package is missing, or the provider refuses a node; they are named.
        """
        options = self._options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if context is not None:
            options.add_session_config_entry("ep.context_enable", "1")
            options.add_session_config_entry("ep.context_embed_mode", "0")
            options.add_session_config_entry("ep.context_file_path", str(context))
        try:
            with _silent_stdout():
                return ort.InferenceSession(str(graph), options)
        except Exception as error:  # onnxruntime raises a class per status
            refused = self._refused(graph)
            if not refused:
                raise NpuError(
                    f"{graph.name} cannot be compiled for {self.soc.name}: {' '.join(str(error).split())}",
                    f"It may be too old a chip for this form; {', '.join(CHECKED)} are checked",
                ) from None
            raise NpuError(
                f"{graph.name} has {len(refused)} nodes that the HTP of {self.soc.name} does not run: "
                f"{', '.join(refused[:_NAMED])}",
                "Export with --flavour npu, and quantise with --recipe npu-int4 or npu-a16w8",
            ) from None

    def _options(self) -> ort.SessionOptions:
        options = session_options()
        options.log_severity_level = _NOTHING_LOGGED
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        give(options, QNN, more={"soc_model": str(self.soc.model), "htp_arch": str(self.soc.arch)})
        return options

    def _refused(self, graph: Path) -> list[str]:
        """The nodes that would be left to the CPU, as `name (operator)`; none where that cannot be told."""
        try:
            with _silent_stdout():
                parts = ort.InferenceSession(str(graph), self._options()).get_provider_graph_assignment_info()
        except Exception:
            return []
        ours = find_plugin(QNN).provider
        return [f"{node.name} ({node.op_type})" for part in parts if part.ep_name != ours for node in part.get_nodes()]


def context_file(graph: Path) -> Path:
    """The context binary that is written beside a graph that stands for it."""
    return graph.with_name(f"{graph.stem}_qnn.bin")


_STDOUT = Lock()
"""Graphs are loaded by several threads, which have one stdout."""


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Qualcomm's library greets on stdout, which is for data: nothing is written there meanwhile."""
    with _STDOUT:
        sys.stdout.flush()
        libc, kept = ctypes.CDLL(None), os.dup(1)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            libc.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
