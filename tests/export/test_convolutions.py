"""Convolutions as matrix products: the same numbers as torch's, streamed in any pieces, and small when quantised."""

import numpy as np
import pytest

import voxrill
from tests import signals
from voxrill.runtime.bundle.bundle import open_bundle

torch = pytest.importorskip("torch", reason="the export extra is not installed")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

import torch.nn.functional as F  # noqa: E402

from voxrill.export.convolutions import CausalConv, CausalTransposedConv, CausalUpsampling  # noqa: E402
from voxrill.export.layers import ConvProduct, MatMul, TransposedConvProduct, linears_to_matmuls  # noqa: E402
from voxrill.export.mimi_decoder import MimiConfig, MimiDecoderModule  # noqa: E402
from voxrill.quantize.bundle import quantize_bundle  # noqa: E402
from voxrill.quantize.exclude import FEW_NUMBERS  # noqa: E402
from voxrill.quantize.recipe import Recipe, Rule  # noqa: E402

WIDTH_IN, WIDTH_OUT, LENGTH = 6, 5, 23
PIECES = {"whole": [23], "steps": [1] * 23, "odd": [1, 7, 2, 11, 2]}
PUBLISHED_MIMI = MimiConfig(
    codebooks=8,
    vocab=2048,
    code_dim=256,
    dim=512,
    layers=8,
    inner=2048,
    upsample=2,
    widths=(1024, 512, 256, 128, 64),
    ratios=(8, 6, 5, 4),
    squeezed=(256, 128, 64, 32),
    first_kernel=7,
    last_kernel=3,
    residual_kernel=3,
)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def filled(layer):
    """The layer with random weights, bias included."""
    return layer.requires_grad_(False).apply(
        lambda module: [p.copy_(noise(*p.shape)) for p in module.parameters(recurse=False)]
    )


def causal(layer, x):
    """The offline convolution of x (1, channels, T) by torch's own operator, and the state before the first sample."""
    if isinstance(layer, CausalConv):
        product = layer.product
        earlier = product.kernel_size[0] - 1
        return F.conv1d(F.pad(x, (earlier, 0)), product.weight, product.bias), torch.zeros(1, x.shape[1], earlier)
    if isinstance(layer, CausalTransposedConv):
        weight, bias, groups, width = layer.product.weight, layer.bias, 1, len(layer.bias)
    else:
        weight, bias, groups, width = layer.weight, None, x.shape[1], x.shape[1]
    stride = weight.shape[2] // 2
    y = F.conv_transpose1d(x, weight, bias, stride, groups=groups)
    return y[..., : x.shape[-1] * stride], torch.zeros(1, width, stride)


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize(
    "layer",
    [
        CausalConv(WIDTH_IN, WIDTH_OUT, 7),
        CausalConv(WIDTH_IN, 1, 3),
        CausalTransposedConv(WIDTH_IN, WIDTH_OUT, 4),
        CausalTransposedConv(WIDTH_IN, WIDTH_OUT, 5),
        CausalUpsampling(WIDTH_IN, 2),
    ],
    ids=["conv", "last", "even-stride", "odd-stride", "upsampling"],
)
def test_streamed_convolutions_equal_torchs(layer, pieces):
    x = noise(1, WIDTH_IN, LENGTH)
    wanted, state = causal(filled(layer), x)
    found = []
    for piece in x.split(pieces, -1):
        shape = state.shape
        y, state = layer(piece.transpose(1, 2), state)
        assert state.shape == shape
        found.append(y.transpose(1, 2))
    assert (torch.cat(found, -1) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    "layer",
    [torch.nn.Linear(6, 4), ConvProduct(6, 4), ConvProduct(2, 4, 3), TransposedConvProduct(6, 4, 8, bias=False)],
    ids=["linear", "pointwise", "conv", "transposed"],
)
def test_a_product_keeps_its_numbers(layer):
    x = noise(3, 6)
    assert torch.allclose(MatMul(filled(layer))(x), layer(x), atol=1e-6)


def test_nearly_all_of_mimi_is_quantised():
    """At the published size: 48.3 million numbers in products and the code table, 0.02 million elsewhere."""
    with torch.device("meta"):
        module = linears_to_matmuls(MimiDecoderModule(PUBLISHED_MIMI))
    products = {f"{name}.weight" for name, child in module.named_modules() if isinstance(child, MatMul)}
    sizes = {name: weight.numel() for name, weight in module.state_dict().items()}
    quantised = sum(n for name, n in sizes.items() if name in products | {"codes.weight"} and n >= FEW_NUMBERS)
    assert sum(sizes.values()) > 48e6
    assert sum(sizes.values()) - quantised < 0.001 * sum(sizes.values())


def test_no_convolution_is_left_in_mimi(bundles):
    bundle = open_bundle(bundles["lfm2"])
    graph = onnx.load(str(bundle.path(bundle.manifest.graphs["mimi_decoder"].file))).graph
    assert not {node.op_type for node in graph.node} & {"Conv", "ConvTranspose"}
    config = MimiConfig(**{**vars(PUBLISHED_MIMI), "layers": 2})  # as the tiny checkpoint has it
    with torch.device("meta"):
        module = linears_to_matmuls(MimiDecoderModule(config))
    names = {tensor.name for tensor in graph.initializer}
    products = [n for n in graph.node if n.op_type == "MatMul" and names & set(n.input)]
    assert len(products) == sum(isinstance(child, MatMul) for child in module.modules())


@pytest.mark.parametrize(("family", "least"), [("lfm2", 20), ("lfm2.5", 12)])
def test_an_int8_codec_is_close_to_float32(bundles, models, tmp_path, family, least):
    """The signal is `least` dB above what 8 bits change: this finds wrong arithmetic, and says nothing of quality.

    LFM2.5's detokenizer, tiny and random, was measured at 15.9 dB (its log-magnitudes and phases magnify rounding);
    Pebble's, which is trained, at 23.7 dB.
    """
    small = quantize_bundle(open_bundle(bundles[family]), tmp_path / "int8", Recipe("test", (Rule(8),)))
    codes = signals.codes(20, 5).astype(np.int64)
    wanted, got = models[family].codec.decode(codes), voxrill.load(small.directory, threads=1).codec.decode(codes)
    assert 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum()) > least
