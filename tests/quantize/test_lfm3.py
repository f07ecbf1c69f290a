"""LFM3-Audio's bundle in fewer bits: every shipped recipe of the cpu flavour, and INT4 held to the modules in torch.

The golden model is so small that most of its matrices would stay in float32. Here they are quantised all the same. Its
weights are random, so nothing is said about quality. The oracle is the torch module with the same rounded weights: what
is left between the two is the rounding of activations and of the KV cache.
"""

import json

import numpy as np
import pytest
from msgspec.structs import replace

import voxrill
from tests import signals
from tests.export.lfm3_golden import config, expected, weights
from tests.export.test_lfm3_bundle import lfm3_bundle, sound  # noqa: F401 (fixtures)
from tests.export.test_lfm3_modules import Backbone, encode
from voxrill.runtime.bundle.bundle import open_bundle, verify_files
from voxrill.runtime.bundle.manifest import QUANTIZE_REPORT_FILE
from voxrill.runtime.upkeep.smoke import smoke_run

onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")
torch = pytest.importorskip("torch", reason="the export extra is not installed")

from tests.quantize.rounded import apart, round_weights  # noqa: E402
from voxrill.quantize import sensitivity  # noqa: E402
from voxrill.quantize.bundle import quantize_bundle  # noqa: E402
from voxrill.quantize.groups import take_inventory  # noqa: E402
from voxrill.quantize.recipe import read_recipe, shipped_recipes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:weights of 3 bits")  # our own products may not be installed

RECIPES = [name for name in shipped_recipes() if not name.startswith("npu")]
SMALLEST = 512
"""Numbers of the smallest matrix that is quantised here; what the recipes leave is the gates of attention heads."""


@pytest.fixture(scope="module")
def made(lfm3_bundle, tmp_path_factory):  # noqa: F811
    """`made(recipe)`: the bundle in fewer bits."""
    folder, found = tmp_path_factory.mktemp("lfm3"), {}

    def make(recipe):
        if recipe not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("voxrill.quantize.graph.FEW_NUMBERS", SMALLEST)
                found[recipe] = quantize_bundle(open_bundle(lfm3_bundle), folder / recipe, read_recipe(recipe))
        return found[recipe]

    return make


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_shipped_recipe_gives_a_bundle_that_runs(made, recipe):
    bundle = made(recipe)
    verify_files(bundle)
    assert smoke_run(bundle)
    nodes = json.loads(bundle.path(QUANTIZE_REPORT_FILE).read_text())["graphs"]["depth_decoder"]["nodes"]
    # Three passes of three layers with five products, and of twelve heads; the hidden state once.
    products = {"MatMulNBits": 45, "DynamicQuantizeMatMul": 37}
    if recipe == "int8":
        products = {"DynamicQuantizeMatMul": 82}
    assert {name: count for name, count in nodes.items() if "MatMul" in name} == products
    with voxrill.load(bundle.directory, threads=1) as model:
        *_, end = model.chat(audio=sound(), sample_rate=16_000, max_new_tokens=30, seed=1)
        assert end.result.audio_seconds > 0
        speech = model.speak("hello", voice="male", max_new_tokens=10, seed=3)
        assert np.isfinite(speech.samples).all() and np.abs(speech.samples).max() > 0


def test_a_recipe_is_not_refused_because_a_model_is_small(lfm3_bundle, tmp_path):  # noqa: F811
    """The golden model's depth decoder has no layer that is worth fewer bits."""
    made = quantize_bundle(open_bundle(lfm3_bundle), tmp_path / "out", read_recipe("int4"))
    bits = json.loads(made.path(QUANTIZE_REPORT_FILE).read_text())["graphs"]["depth_decoder"]["bits"]
    assert not any(name.startswith("depthformer.") for name in bits) and made.manifest.graphs["decoder"].products


class Rounded:
    """Modules with the golden weights, rounded as a recipe says."""

    def __init__(self, recipe, report):
        from voxrill.export.lfm3 import modules
        from voxrill.export.lfm3.sizes import Lfm3Sizes

        self._recipe, self._report, self._modules = read_recipe(recipe), report, modules
        self._sizes = Lfm3Sizes.read(weights(), config())

    def __call__(self, name):
        module = getattr(self._modules, name)(weights(), self._sizes)
        graph = {"encoder": "audio_encoder"}.get(name, name)
        return round_weights(module, graph, self._recipe, self._report[graph]["bits"])


@pytest.fixture(scope="module", params=["int4", "small"])
def pair(made, request):
    """A loaded bundle, and the modules with the same rounded weights."""
    bundle = made(request.param)
    report = json.loads(bundle.path(QUANTIZE_REPORT_FILE).read_text())["graphs"]
    with voxrill.load(bundle.directory, threads=1) as model:
        yield model, Rounded(request.param, report)


def test_the_encoder_in_8_bits(pair):
    model, rounded = pair
    mel = expected()["mel"].astype(np.float32)
    assert apart(model.parts.encoder.embed(mel.T), encode(rounded, mel, [mel.shape[1]]).numpy()) < 0.16


def test_the_decoder_in_few_bits(pair):
    """Nine layers of random numbers amplify what the first of them rounds."""
    model, rounded = pair
    rows = model.parts.embed_tokens([int(one) for one in expected()["text_prompt"]])
    found = model.parts.backbone.forward(rows, model.parts.backbone.new_state())
    assert apart(found, Backbone(rounded).forward(torch.from_numpy(rows)).numpy()) < 0.2


def test_frames_in_few_bits(pair):
    """The logits of the first pass, before codes that are drawn from them may differ."""
    model, rounded = pair
    depth, equal = rounded("depth_decoder"), []
    noise = torch.zeros(12, depth.config.codes)
    for hidden, order in zip(expected()["tts_hidden"], expected()["tts_permutations"], strict=True):
        given = [hidden[None], np.ones(1, np.float32), np.ones(1, np.int64), noise.numpy(), order, noise.numpy() + 1]
        names = ("hidden_state", "temperature", "top_k", "gumbel", "permutation", "penalty")
        found = model.graphs["depth_decoder"].run(dict(zip(names, given, strict=True)))
        with torch.inference_mode():
            codes, logits = depth(*map(torch.from_numpy, given))
        assert apart(found["logits"][order[:4]], logits.numpy()[order[:4]]) < 0.04
        equal.append(np.mean(found["codes"] == codes.numpy()))
    assert np.mean(equal) > 0.8


def test_sensitivity_measures_every_graph(lfm3_bundle, tmp_path, monkeypatch):  # noqa: F811
    record = sensitivity.record

    def short(model, heard, task):
        return record(model, heard, replace(task, max_new_tokens=30))

    monkeypatch.setattr(sensitivity, "record", short)
    bundle = open_bundle(lfm3_bundle)
    groups = take_inventory(bundle, "kind").groups
    one_each = list({group.graph: group for group in groups}.values())
    found = sensitivity.measure(bundle, one_each, [signals.speech_like(16_000, 5)], tmp_path, threads=1)
    assert {one.group.graph for one in found} == set(bundle.manifest.graphs)
    assert all(one.costs[4] >= one.costs[8] >= 0 and one.costs[4] > 0 for one in found)
