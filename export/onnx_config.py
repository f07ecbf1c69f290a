"""The contract in optimum's terms, and optimum's comparison, which every graph must pass.

An `OnnxConfig` per graph carries the contract's inputs, outputs and symbolic axes; optimum's `validate_models_outputs`
compares the traced module and the exported graph over several shape sets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from optimum.exporters.onnx import OnnxConfig
from optimum.exporters.onnx.convert import validate_models_outputs
from optimum.utils import NormalizedConfig
from torch import nn
from transformers import PretrainedConfig

from voxrill.export.graphs import EXAMPLE, GraphPlan, Sizes
from voxrill.runtime.bundle import contract
from voxrill.runtime.bundle.contract import GraphSpec, TensorSpec
from voxrill.runtime.errors import ExportError

RELATIVE_TOLERANCE = 1e-4
"""Largest accepted difference, as a share of the output's largest value: float32 sums differ with their order."""

FEWEST_CODES = 32
"""Every codebook has as many."""

TORCH_DTYPES = {"float32": torch.float32, "int64": torch.int64}


def resolve(spec: TensorSpec, sizes: Sizes) -> tuple[int, ...]:
    """The tensor's shape, with a number from `sizes` for every symbol."""
    known = dict(sizes)
    if contract.PAST_SEQUENCE in sizes:
        known[contract.TOTAL_SEQUENCE] = sizes[contract.PAST_SEQUENCE] + sizes[contract.SEQUENCE]
    return tuple(known[size] if isinstance(size, str) else size for size in spec.shape)


def example_inputs(plan: GraphPlan, sizes: Sizes) -> dict[str, torch.Tensor]:
    """Inputs of the given sizes: seeded noise for floats, sensible values for counts, codes and masks.

    Where all shapes are fixed, `sizes[EXAMPLE]` says how full the inputs are: 0 partly, 1 barely, 2 completely.
    """
    example = sizes.get(EXAMPLE, 0)
    generator = torch.Generator().manual_seed(example)
    inputs = {}
    for tensor in plan.spec.inputs:
        shape = resolve(tensor, sizes)
        if tensor.dtype == "float32":
            inputs[tensor.name] = torch.randn(shape, generator=generator)
        else:
            inputs[tensor.name] = torch.zeros(shape, dtype=torch.int64)
    _set_counts(plan.spec, inputs, generator, example)
    return inputs


def _set_counts(spec: GraphSpec, inputs: dict[str, torch.Tensor], generator: torch.Generator, example: int) -> None:
    """Give the integer inputs, and the temperature, values that mean something."""
    if "mel_lengths" in inputs:
        frames = inputs["mel_spectrogram"].shape[1]
        inputs["mel_lengths"] += (max(frames - frames // 5, 1), 1, frames)[example]
    if "attention_mask" in inputs:
        mask = inputs["attention_mask"]
        mask += 1
        if all(isinstance(size, int) for size in spec.inputs[1].shape):  # npu: padded cache, padded prefill
            length = inputs["inputs_embeds"].shape[1]
            known = mask.shape[1] - length
            # Padding follows what is valid, in the cache and in the new positions alike.
            mask[:, (known // 3, 0, known)[example] : known] = 0
            mask[:, known + ((length + 1) // 2, 1, length)[example] :] = 0
    if "audio_codes" in inputs:
        codes = inputs["audio_codes"]
        codes += torch.randint(0, FEWEST_CODES, codes.shape, generator=generator)
    if "offset" in inputs:
        inputs["offset"] += (3, 0, 500)[example]
    if "top_k" in inputs:
        inputs["top_k"] += (4, 1, min(64, inputs["gumbel"].shape[1]))[example]
        inputs["temperature"] = torch.tensor([(0.8, 1.0, 1.3)[example]])
    if "permutation" in inputs:
        inputs["permutation"] = torch.randperm(len(inputs["permutation"]), generator=generator)
        inputs["penalty"] = 1 + 0.1 * (inputs["penalty"] > 1).float()


class ContractConfig(OnnxConfig):  # type: ignore[misc]
    """One graph's contract as an optimum `OnnxConfig`."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig

    def __init__(self, plan: GraphPlan) -> None:
        super().__init__(PretrainedConfig())
        self.plan = plan

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names and their symbolic axes."""
        return {t.name: _axes(t) for t in self.plan.spec.inputs}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names and their symbolic axes."""
        return {t.name: _axes(t) for t in self.plan.spec.outputs}

    def generate_dummy_inputs(self, framework: str = "pt", **sizes: int) -> dict[str, torch.Tensor]:
        """Example inputs of the given symbolic sizes."""
        return example_inputs(self.plan, sizes)


def _axes(tensor: TensorSpec) -> dict[int, str]:
    return {axis: size for axis, size in enumerate(tensor.shape) if isinstance(size, str)}


class NamedOutputs(nn.Module):
    """The traced module with inputs by name and outputs as a dict, as optimum's comparison wants it."""

    def __init__(self, module: nn.Module, spec: GraphSpec) -> None:
        super().__init__()
        self.module = module
        self.spec = spec

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Call the module with inputs in contract order."""
        result = self.module(*(inputs[t.name] for t in self.spec.inputs))
        outputs = result if isinstance(result, tuple) else (result,)
        return {t.name: value for t, value in zip(self.spec.outputs, outputs, strict=True)}


def check_parity(plan: GraphPlan, module: nn.Module, path: Path) -> list[dict[str, Any]]:
    """Compare the exported graph with its module over all shape sets; the report of what was measured.

    Raises:
        ExportError: optimum's comparison fails, or an output differs by more than `RELATIVE_TOLERANCE`.
    """
    named = NamedOutputs(module, plan.spec)
    report = _measure(plan, named, path)
    logging.getLogger("optimum.exporters.onnx.convert").setLevel(logging.ERROR)
    config = ContractConfig(plan)
    for sizes, measured in zip(plan.tried, report, strict=True):
        # optimum knows one absolute tolerance for all outputs; ours, below, is relative to each output.
        scale = max(output["scale"] for output in measured["outputs"].values())
        try:
            validate_models_outputs(
                models_and_onnx_configs={plan.spec.name: (named, config)},
                onnx_named_outputs=[[t.name for t in plan.spec.outputs]],
                output_dir=path.parent,
                onnx_files_subpaths=[path.name],
                atol=RELATIVE_TOLERANCE * scale,
                input_shapes=dict(sizes),
                use_subprocess=False,
            )
        except Exception as error:
            raise ExportError(
                f"graph {plan.spec.name} does not match its module at {sizes or 'its fixed shapes'}: {error}",
                "Please report this with the checkpoint's config.json",
            ) from error
        for name, output in measured["outputs"].items():
            if not output["max_difference"] <= RELATIVE_TOLERANCE * max(output["scale"], 1e-3):  # also true for NaN
                raise ExportError(
                    f"output {name} of graph {plan.spec.name} differs from its module by "
                    f"{output['max_difference']:.2g} (largest value {output['scale']:.2g})",
                    "Please report this with the checkpoint's config.json",
                )
    return report


def _measure(plan: GraphPlan, named: NamedOutputs, path: Path) -> list[dict[str, Any]]:
    """Largest difference and largest value of every output, for each shape set."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    report = []
    for sizes in plan.tried:
        inputs = example_inputs(plan, sizes)
        with torch.inference_mode():
            expected = named(**inputs)
        feeds = {name: value.numpy() for name, value in inputs.items()}
        actual = session.run([t.name for t in plan.spec.outputs], feeds)
        outputs = {}
        for tensor, value in zip(plan.spec.outputs, actual, strict=True):
            wanted = expected[tensor.name].numpy()
            difference = np.abs(wanted.astype(np.float64) - value).max(initial=0.0)
            outputs[tensor.name] = {
                "max_difference": float(difference),
                "scale": float(np.abs(wanted).max(initial=0.0)),
            }
        report.append({"sizes": dict(sizes), "outputs": outputs})
    return report


def largest_differences(report: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Per output, the largest relative difference over all shape sets."""
    worst: dict[str, float] = {}
    for measured in report:
        for name, output in measured["outputs"].items():
            relative = output["max_difference"] / max(output["scale"], 1e-9)
            worst[name] = max(worst.get(name, 0.0), relative)
    yield from worst.items()
