"""Qualcomm's NPU (the HTP) through the package onnxruntime-qnn: what it runs, and sessions on the HTP of a chip.

On x86-64 the same package compiles for a chip and simulates it: the numbers are checked there, the speed is not.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from voxrill.devices.plugins import find_plugin, register
from voxrill.devices.providers import FATAL_ONLY, Provider, find_provider, open_session, session_options
from voxrill.devices.socs import CHECKED, INTEGERS_ONLY, SOCS, Soc
from voxrill.runtime.errors import ChipError, ProviderError

QNN = "qnn"
"""The provider's short name."""

_NAMED = 3
"""Nodes that are named in a refusal."""

_PLAIN = (
    "Add And Cast Concat Conv Cos Div Elu Exp Expand Gather Gelu Greater GreaterOrEqual LayerNormalization "
    "Less MatMul Mul Pad Pow ReduceMean ReduceSum Relu Reshape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub "
    "Transpose Unsqueeze"
)
_QUANTISED = "DequantizeLinear MatMulNBits QuantizeLinear"
OPERATORS = frozenset([*_PLAIN.split(), *_QUANTISED.split()])
"""What the npu flavour is made of: each was compiled for v73, v75 and v79, and simulated."""


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

    @property
    def provider(self) -> Provider:
        """What a graph is given to."""
        return find_provider(f"{QNN}:soc={self.soc.name}")

    def session(self, graph: Path, context: Path | None = None) -> ort.InferenceSession:
        """A session that runs the whole graph there, or none.

        Args:
            graph: an ONNX graph, or one that stands for a context binary beside it.
            context: where to write such a graph; its binary is put beside it.

        Raises:
            DeviceError: the package is missing, or the provider refuses a node; they are named.
        """
        options = session_options()
        if context is not None:
            options.add_session_config_entry("ep.context_enable", "1")
            options.add_session_config_entry("ep.context_embed_mode", "0")
            options.add_session_config_entry("ep.context_file_path", str(context))
        try:
            return open_session(graph, options, self.provider, strict=True)
        except ProviderError:
            raise
        except Exception as error:  # onnxruntime raises a class per status
            refused = self._refused(graph)
            if not refused:
                raise ChipError(
                    f"{graph.name} cannot be compiled for {self.soc.name}: {' '.join(str(error).split())}",
                    self._remedy(),
                ) from None
            raise ChipError(
                f"{graph.name} has {len(refused)} nodes that the HTP of {self.soc.name} does not run: "
                f"{', '.join(refused[:_NAMED])}",
                "Export with --flavour npu, and quantise with --recipe npu-int4 or npu-a16w8",
            ) from None

    def _remedy(self) -> str:
        if self.soc.arch <= INTEGERS_ONLY:
            return f"Quantise with --recipe npu-a16w8: an HTP v{self.soc.arch} computes with integers only"
        return f"Try another chip, to see whether the graph is at fault: {', '.join(CHECKED)}"

    def _refused(self, graph: Path) -> list[str]:
        """The nodes that would be left to the CPU, as `name (operator)`; none where that cannot be told."""
        options = session_options()
        options.log_severity_level = FATAL_ONLY
        try:
            parts = open_session(graph, options, self.provider).get_provider_graph_assignment_info()
        except Exception:
            return []
        ours = self.provider.full_name
        return [f"{node.name} ({node.op_type})" for part in parts if part.ep_name != ours for node in part.get_nodes()]


def chip_of(provider: Provider) -> Soc | None:
    """The chip that was named with a provider, as in `qnn:soc=SM8650`; None where none was."""
    if provider.name != QNN:
        return None
    return next((soc for soc in SOCS.values() if str(soc.model) == provider.options.get("soc_model")), None)


def context_file(graph: Path) -> Path:
    """The context binary that is written beside a graph that stands for it."""
    return graph.with_name(f"{graph.stem}_qnn.bin")
