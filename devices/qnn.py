"""Qualcomm's NPU (the HTP) through the package onnxruntime-qnn: which operators it runs, and sessions on a chip's HTP.

On x86-64 the same package compiles for a chip and simulates it. That shows the numbers, and not the speed.
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
"""How many nodes a refusal names."""

_PLAIN = (
    "Add And Cast Concat Conv Cos Div Elu Exp Expand Gather Gelu Greater GreaterOrEqual LayerNormalization "
    "Less MatMul Mul Neg Pad Pow ReduceMean ReduceSum Relu Reshape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub "
    "Transpose Unsqueeze"
)
_QUANTISED = "DequantizeLinear MatMulNBits QuantizeLinear"
OPERATORS = frozenset([*_PLAIN.split(), *_QUANTISED.split()])
"""The operators of the npu flavour. Each was compiled for v73, v75 and v79, and simulated."""


def sdk_version() -> str:
    """The version of Qualcomm's SDK in the package. A context binary works with one version only.

    Raises:
        DeviceError: the package is not installed, or does not load.
    """
    register(QNN)
    return str(importlib.import_module(f"{find_plugin(QNN).module}.build_and_package_info").qnn_version)


@dataclass(frozen=True)
class Htp:
    """The HTP of one chip: the real one on the chip itself, a simulated one on x86-64."""

    soc: Soc

    @property
    def provider(self) -> Provider:
        """The execution provider, set to this chip."""
        return find_provider(f"{QNN}:soc={self.soc.name}")

    def session(self, graph: Path, context: Path | None = None) -> ort.InferenceSession:
        """A session that runs the whole graph on the HTP.

        Args:
            graph: an ONNX graph, or a small one that points to a context binary beside it.
            context: where to write such a small graph; the binary goes beside it.

        Raises:
            DeviceError: the package is missing, or the provider refuses nodes; the message names them.
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
        except Exception as error:  # onnxruntime raises a class of its own for each status
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
        """The nodes that would run on the CPU, as `name (operator)`; empty where onnxruntime does not tell."""
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
    """The context binary that is written beside the small graph that points to it."""
    return graph.with_name(f"{graph.stem}_qnn.bin")
