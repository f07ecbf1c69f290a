"""Modules in torch whose weights are rounded as a recipe rounds them: what a quantised graph is held to."""

import numpy as np
import torch

from voxrill.quantize.graph import fitting_block
from voxrill.quantize.k_quant import to_k_quant
from voxrill.quantize.recipe import K_QUANT
from voxrill.quantize.weights import to_int8, to_nearest, unpacked


def round_weights(module, graph, recipe, bits):
    """Give a module, whose products are `Linear`, the rounded weights. bits: of each, from the graph's report."""
    parameters = dict(module.named_parameters())
    quantised = {name: count for name, count in bits.items() if count < 32}
    assert quantised and quantised.keys() <= parameters.keys()
    for name, count in quantised.items():
        shown = _rounded(parameters[name].detach().numpy(), count, recipe.rule(graph, name))
        parameters[name].data = torch.from_numpy(np.ascontiguousarray(shown, np.float32))
    return module


def _rounded(matrix, bits, rule):
    """A matrix (out, in), or a table (rows, width)."""
    if bits == 8:  # a scale for each row: of a product's matrix as torch has it, and of a table
        found = to_int8(matrix, axis=0)
        return found.values * found.scales[:, None]
    rounding = to_k_quant if rule.method == K_QUANT else to_nearest
    rows = matrix.shape[1]
    return unpacked(rounding(np.ascontiguousarray(matrix.T), bits, fitting_block(rule.block, rows)), rows).T


def apart(found, wanted):
    """The length of the error over the length of what is wanted."""
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
