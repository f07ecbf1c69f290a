"""Two single layers, held to published outputs, from the checkpoint: no graph shows what is between its layers.

In: a checkpoint and a checked folder. Out: rows of the acceptance's table. The modules are those that the decoder's
graph is traced from, and the export's own gate holds the graph to them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from voxrill.export.checkpoint import Checkpoint
from voxrill.export.decoder import DecoderModule
from voxrill.export.lfm import CONV, LfmConfig
from voxrill.runtime.apps.acceptance.folder import ATTENTION_LAYER, CONV_LAYER, PublishedFolder
from voxrill.runtime.apps.acceptance.rows import FLOAT32, AcceptanceRow, Quantity

CAPACITY = 16
"""Positions of the KV cache: those of the published prefill, and of the published caches."""

_SHORT = {
    "prefill_output": "prefill",
    "step_output": "step",
    "step_updated_conv_cache": "state",
    "step_updated_key_cache": "keys",
    "step_updated_value_cache": "values",
}
"""Names of the published arrays, and what the table calls them."""

_LAYERS = {0: CONV_LAYER, 2: ATTENTION_LAYER}


def layer_rows(checkpoint: Checkpoint, folder: PublishedFolder) -> list[AcceptanceRow]:
    """One row for each published layer: its prefill, its step after nine positions, and its state then."""
    return [_row(checkpoint, folder, layer, name) for layer, name in _LAYERS.items()]


def _row(checkpoint: Checkpoint, folder: PublishedFolder, layer: int, name: str) -> AcceptanceRow:
    config = LfmConfig.read(checkpoint.value("lfm"))
    kind = config.layer_types[layer]
    module = single_layer(checkpoint, config, layer)
    inputs = {
        key: torch.from_numpy(folder.array(name, key, 1, None, config.hidden))
        for key in ("prefill_input", "past_input", "step_input")
    }
    prefill, _ = run_layer(module, config, kind, inputs["prefill_input"])
    step, state = run_layer(module, config, kind, inputs["past_input"], inputs["step_input"])
    positions = inputs["past_input"].shape[1] + 1
    found = {"prefill_output": prefill, "step_output": step, **_named(kind, state)}
    quantities = []
    for key, value in found.items():
        wanted = folder.array(name, key, *value.shape)
        if key.endswith(("key_cache", "value_cache")):
            value, wanted = value[:, :, :positions], wanted[:, :, :positions]
        error = float(np.abs(value - wanted).max() / np.abs(wanted).max())
        quantities.append(Quantity(_SHORT[key], error, most=FLOAT32.layer))
    return AcceptanceRow("layers", f"layer {layer} ({kind}), whole", tuple(quantities))


def single_layer(checkpoint: Checkpoint, config: LfmConfig, layer: int) -> DecoderModule:
    """The decoder of one layer alone, with the weights of layer `layer`, and without the norm that follows all."""
    with torch.device("meta"):
        module = DecoderModule(replace(config, layer_types=(config.layer_types[layer],)))
        module.lfm.embedding_norm = nn.Identity()  # type: ignore[assignment]
    prefix = "lfm.layers.0."
    names = {
        key: f"lfm.layers.{layer}.{key.removeprefix(prefix)}" for key in module.state_dict() if key.startswith(prefix)
    }
    checkpoint.weights.load(module, names)
    return module


def run_layer(
    module: DecoderModule, config: LfmConfig, kind: str, *calls: torch.Tensor
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Inputs (1, S, hidden) one call after the other: the last call's output, and the state after it."""
    if kind == CONV:
        state = [torch.zeros(1, config.hidden, config.conv_cache)]
    else:
        state = [torch.zeros(1, config.kv_heads, CAPACITY, config.head_dim) for _ in range(2)]
    known, hidden = 0, torch.empty(0)
    with torch.inference_mode():
        for rows in calls:
            known += rows.shape[1]
            hidden, *state = module(rows, torch.ones(1, known, dtype=torch.int64), *state)
    return hidden.numpy(), [tensor.numpy() for tensor in state]


def _named(kind: str, state: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The state by its published names."""
    names = ("conv_cache",) if kind == CONV else ("key_cache", "value_cache")
    return {f"step_updated_{name}": tensor for name, tensor in zip(names, state, strict=True)}
