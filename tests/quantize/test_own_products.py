"""One bundle, two sets of products: ours where the library is, onnxruntime's elsewhere. Both give nearly the same."""

import numpy as np
import pytest

import voxrill
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.tuned import key_of

pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from voxrill.quantize.bundle import quantize_bundle
from voxrill.quantize.recipe import Recipe, Rule

pytestmark = pytest.mark.filterwarnings("ignore:weights of 3 bits:voxrill.VoxrillWarning")

FEW = (("decoder", "*"), ("depthformer", "depthformer.layers.*"), ("text_head", "*"))


def bundle_of(source, folder, bits, block=32, fast_prefill=True):
    recipe = Recipe("test", (Rule(8), *(Rule(bits, graph, name, block, "k_quant") for graph, name in FEW)))
    return quantize_bundle(open_bundle(source), folder, recipe, fast_prefill=fast_prefill)


def stages(bundle):
    with voxrill.load(bundle.directory, threads=1) as model:
        parts = model.parts
        rows = parts.embed_tokens(list(range(40, 80)))
        hidden = parts.backbone.forward(rows, parts.backbone.new_state())
        return [hidden, parts.backbone.logits(hidden[-1]), parts.depthformer.logits(hidden[-1], np.zeros(8, np.int64))]


def graphs_with_own(bundle):
    with voxrill.load(bundle.directory, threads=1) as model:
        return {name for name, graph in model.graphs.items() if graph.own_products}, set(model.graphs)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_both_sets_of_products_give_nearly_the_same(library, bundles, tmp_path, without_library, bits):
    """Only the order of sums differs. But a sum that differs in its last bit may round an activation of the next
    product to the next of 255 steps, and such steps add up."""
    bundle = bundle_of(bundles["lfm2.5"], tmp_path / "few", bits, fast_prefill=False)
    key = key_of(bundle)
    ours = stages(bundle)
    without_library()
    for got, wanted in zip(ours, stages(bundle), strict=True):
        assert not np.array_equal(got, wanted)  # other products did run
        assert np.abs(got - wanted).max() <= 0.05 * np.abs(wanted).max()
    assert key_of(bundle) != key  # a tuned form belongs to one set of products


def test_prefill_has_no_second_decoder_where_our_products_run(library, bundles, tmp_path, without_library):
    """Their weights serve many positions as well. What they do not take, blocks of 16, has its second decoder."""
    bundle = bundle_of(bundles["lfm2.5"], tmp_path / "few", 4)
    own, opened = graphs_with_own(bundle)
    assert "decoder" in own and "decoder_prefill" not in opened
    small = bundle_of(bundles["lfm2.5"], tmp_path / "small", 4, block=16)
    own, opened = graphs_with_own(small)
    assert "decoder" not in own and "decoder_prefill" in opened
    without_library()
    own, opened = graphs_with_own(bundle)
    assert not own and "decoder_prefill" in opened


def test_the_command_says_that_the_second_decoder_is_not_loaded_here(library, cli, bundles, tmp_path):
    ran = cli("quantize", bundles["lfm2.5"], "-o", tmp_path / "out", "--recipe", "int4", "--fast-prefill")
    assert ran.status == 0 and "not loaded" in ran.err
