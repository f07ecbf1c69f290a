"""LFM3-Audio's depth decoder in the published size, with random weights, held to its module in torch.

In: a folder for the graphs (0.6 GB). Out: optimum's comparison in float32, and how far the INT4 graph is from the
module with the same rounded weights. It takes 2 GB of memory and a minute of processor time. Running it:

    python -m tests.export.lfm3_true_depth FOLDER
"""

import argparse
import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.export.lfm3_true_size import published_sizes
from tests.export.test_lfm3_true_size import Shapes
from tests.quantize.rounded import apart, round_weights
from voxrill.export.graphs import FIXED, GraphPlan
from voxrill.export.layers import linears_to_matmuls
from voxrill.export.lfm3.depth_decoder import DepthDecoderModule
from voxrill.export.lfm3.graphs import read_model_spec
from voxrill.export.lfm3.tensors import Lfm3Tensors
from voxrill.export.write import write_graph
from voxrill.quantize.graph import quantize_graph
from voxrill.quantize.recipe import read_recipe
from voxrill.runtime.bundle.contract import DEPTH_DECODER, GraphSpec, depth_decoder
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.stats import StageTimes

FRAMES = 12


def random_module():
    """The module; the same numbers on every machine with the same torch."""
    torch.manual_seed(0)
    module = DepthDecoderModule(published_sizes().depth)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim == 2:
                weight.uniform_(-1, 1).mul_(math.sqrt(3 / weight.shape[1]))
            else:
                weight.fill_(1.0 if "norm" in name else 0.01)
    module.depthformer.join()
    return module.eval()


def differences(module, graph):
    """Of a dozen frames: how far the logits of the first pass are from the module's, and which codes are equal."""
    config, random = module.config, np.random.default_rng(0)
    noise, few = np.zeros((config.codebooks, config.codes), np.float32), config.passes[0]
    far, equal = [], []
    for _ in range(FRAMES):
        given = {
            "hidden_state": random.standard_normal((1, config.hidden)).astype(np.float32),
            "temperature": np.ones(1, np.float32),
            "top_k": np.ones(1, np.int64),
            "gumbel": noise,
            "permutation": random.permutation(config.codebooks),
            "penalty": noise + 1,
        }
        found = graph.run(given)
        with torch.inference_mode():
            codes, logits = module(*map(torch.from_numpy, given.values()))
        first = given["permutation"][:few]
        far.append(apart(found["logits"][first], logits.numpy()[first]))
        equal.append(found["codes"] == codes.numpy())
    return max(far), float(np.mean(equal))


def check(folder: Path, spec: GraphSpec) -> None:
    """Export, compare, quantise, compare."""
    folder.mkdir(parents=True, exist_ok=True)
    module, recipe = random_module(), read_recipe("int4")
    plan = GraphPlan(spec, lambda: linears_to_matmuls(copy.deepcopy(module)), {}, FIXED)
    for line in write_graph(plan, folder):
        print(line)
    source, few = folder / f"{DEPTH_DECODER}.onnx", folder / f"{DEPTH_DECODER}-int4.onnx"
    report = quantize_graph(DEPTH_DECODER, source, few, recipe)
    print("products:", report.nodes)
    for name, file in (("float32", source), ("INT4", few)):
        if file == few:
            round_weights(module, DEPTH_DECODER, recipe, report.bits)
        graph = Graph(file, spec, times=StageTimes(), threads=1)
        far, equal = differences(module, graph)
        print(f"{name}: logits of the first pass {far:.2g} apart, {equal:.0%} of codes equal")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    checkpoint: Any = SimpleNamespace(weights=Lfm3Tensors([Shapes()], "the published sizes"), config={})
    check(parser.parse_args().folder, depth_decoder(read_model_spec(checkpoint)))


if __name__ == "__main__":
    main()
